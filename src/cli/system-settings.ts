// What `nonroot-system-x86_64` gathers from its command line, and how QEMU writes lists of properties
// (QEMU 7.2, "System Emulation", section "Invocation": `value,key=value,flag`, a comma in a value doubled).

import type { DeviceConfig } from '../machine/device-type.ts';
import { type CpuChoice, parseCpu } from '../machine/options.ts';

/** A command line that is refused; the message begins with the option. Exit code 1, as QEMU. */
export class Refused extends Error {}

/** What is on the far side of a serial port. `none`: the port is not there. */
export type SerialBackend =
  | { readonly kind: 'none' | 'null' }
  /** With `monitor`, Ctrl-A c switches to the monitor and Ctrl-A x ends. */
  | { readonly kind: 'stdio'; readonly monitor: boolean }
  | { readonly kind: 'file'; readonly path: string };

/** The command line's effect so far, with QEMU's defaults to begin with. */
export interface Settings {
  kernel?: string;
  initrd?: string;
  append?: string;
  /** Bytes. */
  memory: number;
  cpus: number;
  cpu: CpuChoice;
  hpet: boolean;
  /** Accelerators in the order in which they are tried. */
  accel: string[];
  serial: SerialBackend[];
  monitor?: 'stdio' | 'none';
  nographic: boolean;
  nodefaults: boolean;
  noReboot: boolean;
  /** Wait for the monitor's `cont`. */
  paused: boolean;
  devices: DeviceConfig[];
  trace: string[];
  log?: string;
  /** Seconds to add to the host's clock. */
  rtcOffset: number;
  name?: string;
  uuid?: string;
  pidfile?: string;
  /** How messages begin. */
  message: { timestamp: boolean; guestName: boolean };
}

export const defaults = (): Settings => ({
  memory: 128 << 20,
  cpus: 1,
  cpu: parseCpu('qemu64'),
  hpet: true,
  accel: [],
  serial: [],
  nographic: false,
  nodefaults: false,
  noReboot: false,
  paused: false,
  devices: [],
  trace: [],
  rtcOffset: 0,
  message: { timestamp: false, guestName: false },
});

/** What each property of a list does with its value. */
export type PropertyActions = Readonly<Record<string, (value: string) => void>>;

/**
 * Acts on the properties of `text`, the value of `option`. `implied` is the key of a first item without one; any other item without
 * `=` is a flag, `on`.
 * @throws Refused for a property that has no action
 */
export function properties(option: string, text: string, implied: string, actions: PropertyActions): void {
  const items = text.replaceAll(',,', '\0').split(',');
  items.forEach((item, n) => {
    const equals = item.indexOf('=');
    const [key, value] =
      equals >= 0 ? [item.slice(0, equals), item.slice(equals + 1)] : n === 0 && implied ? [implied, item] : [item, 'on'];
    const action = Object.hasOwn(actions, key) ? actions[key] : undefined;
    if (!action) throw new Refused(`${option} ${item.replaceAll('\0', ',,')}: not supported`);
    action(value.replaceAll('\0', ','));
  });
}

/**
 * A value out of a few.
 * @throws Refused
 */
export function oneOf(option: string, value: string, accepted: readonly string[]): string {
  if (!accepted.includes(value)) throw new Refused(`${option}${value}: not supported; accepted: ${accepted.join(', ')}`);
  return value;
}

/**
 * `on` or `off`.
 * @throws Refused
 */
export function onOff(option: string, value: string): boolean {
  return ['on', 'yes', 'true'].includes(oneOf(option, value, ['on', 'off', 'yes', 'no', 'true', 'false']));
}

/**
 * What a serial port is connected to, as `-serial` has it.
 * @throws Refused
 */
export function serialBackend(text: string): SerialBackend {
  if (text === 'none' || text === 'null') return { kind: text };
  if (text === 'stdio' || text === 'mon:stdio') return { kind: 'stdio', monitor: text !== 'stdio' };
  if (text.startsWith('file:') && text.length > 5) return { kind: 'file', path: text.slice(5) };
  throw new Refused(`-serial ${text}: not supported; accepted: stdio, mon:stdio, file:PATH, null, none`);
}

/**
 * Seconds to add to the host's clock for `-rtc base=`.
 * @throws Refused
 */
export function rtcOffset(base: string, now: Date = new Date()): number {
  if (base === 'utc') return 0;
  if (base === 'localtime') return -60 * now.getTimezoneOffset();
  const ms = /^\d{4}-\d\d-\d\d(T\d\d:\d\d:\d\d)?$/.test(base) ? Date.parse(base.includes('T') ? `${base}Z` : base) : Number.NaN;
  if (Number.isNaN(ms)) {
    throw new Refused(`-rtc base=${base}: accepted: utc, localtime, or a date such as 2006-06-17T16:01:21 or 2006-06-17`);
  }
  return Math.round((ms - now.getTime()) / 1000);
}
