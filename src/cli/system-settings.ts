// What `nonroot-system-x86_64` gathers from its command line, and helpers to read values (QEMU 7.2, "System Emulation", section
// "Invocation").

import type { CharOptions } from '../chardev/options.ts';
import type { MachineConfig, NumaConfig, TimerConfig } from '../machine/config.ts';
import type { DeviceConfig } from '../machine/device-type.ts';
import { findMachine, type MachineType } from '../machine/machine-types.ts';
import type { MicrovmParts } from '../machine/microvm.ts';
import { type CpuChoice, parseCpu } from '../machine/options.ts';
import type { VncSetting } from '../monitor/display.ts';
import type { Actions } from '../monitor/emulator.ts';
import { optionMap, parseBool, Refused } from '../monitor/keyval.ts';
import type { Json } from '../rpc/qmp/json.ts';
import type { Sandbox } from './sandbox.ts';
import type { DriveSetting } from './system-drive-options.ts';
import type { FsdevSetting } from './system-fsdev-options.ts';

export { Refused };

type JsonObject = { readonly [name: string]: Json };

/** One monitor: a character device and what is spoken on it. */
export interface MonitorSetting {
  readonly chardev: string;
  readonly mode: 'readline' | 'control';
}

/** The command line's effect so far, with QEMU's defaults to begin with. */
export interface Settings {
  machine: MachineType;
  machineProperties: Map<string, string>;
  kernel?: string;
  initrd?: string;
  append?: string;
  /** Name or path of the firmware in ROM; the board's own when neither this nor flash nor a kernel is given. */
  bios?: string;
  /** Folders where firmware is looked for first: `-L`. */
  firmwareFolders: string[];
  /** Files of flash chips: `-pflash`. */
  flash: string[];
  /** Files for the firmware by name: `-fw_cfg`. */
  fwCfg: { name: string; file?: string; text?: string }[];
  bootMenu?: { on: boolean; timeout?: number };
  /** `-boot reboot-timeout=`, ms; -1 for none. */
  rebootTimeout?: number;
  /** Bytes. */
  memory: number;
  memoryGiven: boolean;
  /** `maxmem=` and `slots=` of `-m`. */
  maxMemory?: number;
  memorySlots?: number;
  memoryHotplug?: MachineConfig['memoryHotplug'];
  smp: { cpus?: number; maxcpus?: number; sockets?: number; dies?: number; cores?: number; threads?: number };
  /** `-numa` as given; read when memory, objects and topology are known. */
  numa: string[];
  numaNodes?: NumaConfig | undefined;
  /** What is to be said before the machine starts. */
  warnings: string[];
  cpu: CpuChoice;
  hpet: boolean;
  /** Of a microvm: parts that are not as usual. */
  microvm: { -readonly [K in keyof MicrovmParts]?: MicrovmParts[K] };
  acpi: boolean;
  /** Accelerators in the order in which they are tried. */
  accel: string[];
  /** `-accel dbt,threshold=0`. */
  eager: boolean;
  /** `-accel dbt,cache=`. */
  translationCache: boolean;
  dirtyRing: number;
  /** Character devices in their order, by id. */
  chardevs: Map<string, CharOptions>;
  /** `-serial`, `-monitor` and `-parallel` as they were given. */
  serial: string[];
  monitor: string[];
  qmp: { text: string; pretty: boolean }[];
  parallel: string[];
  debugcon: string[];
  monitors: MonitorSetting[];
  gdb?: string;
  gdbChardev?: string;
  devices: DeviceConfig[];
  netdevs: JsonObject[];
  nics: string[];
  nets: string[];
  fsdevs: FsdevSetting[];
  objects: JsonObject[];
  blockdevs: JsonObject[];
  drives: DriveSetting[];
  /** `-drive` and its short forms as they were given; read when the machine is known. */
  driveTexts: string[];
  driveIndexes: Set<string>;
  /** Files among `flash` that cannot be programmed. */
  readOnlyFlash: Set<string>;
  /** Changes of all disks are temporary. */
  snapshot: boolean;
  /** `-global DRIVER.PROPERTY=VALUE`. */
  globals: { driver: string; property: string; value: string }[];
  /** `secure` of flash chips; MiB of q35's extended TSEG. */
  secureFlash: boolean;
  extendedTseg?: number | undefined;
  /** Of the HPET, the RTC and KVM's PIT. */
  timers: TimerConfig;
  /** The guest may suspend to RAM; undefined where nothing is said. */
  sleep: boolean | undefined;
  /** `-vga`; undefined for the default. */
  vga?: string;
  vnc: (Omit<VncSetting, 'secret'> & { readonly secretId: string | undefined })[];
  usb: boolean;
  usbDevices: string[];
  nographic: boolean;
  nodefaults: boolean;
  noReboot: boolean;
  noShutdown: boolean;
  actions: Partial<Actions>;
  /** Wait for the monitor's `cont`. */
  paused: boolean;
  trace: string[];
  log?: string;
  /** Seconds to add to the host's clock. */
  rtcOffset: number;
  name?: string;
  /** The process is called by the guest's name: `-name process=`. */
  process?: string;
  uuid?: string;
  pidfile?: string;
  daemonize: boolean;
  /** What a confined process keeps: `-sandbox on`. */
  sandbox?: Sandbox | undefined;
  /** How messages begin. */
  message: { timestamp: boolean; guestName: boolean };
  incoming?: string;
  loadvm?: string;
}

export const defaults = (): Settings => ({
  machine: findMachine('pc')!,
  machineProperties: new Map(),
  firmwareFolders: [],
  flash: [],
  fwCfg: [],
  memory: 128 << 20,
  memoryGiven: false,
  smp: {},
  numa: [],
  warnings: [],
  cpu: parseCpu('qemu64'),
  hpet: true,
  microvm: {},
  acpi: true,
  accel: [],
  eager: false,
  translationCache: true,
  dirtyRing: 0,
  chardevs: new Map(),
  serial: [],
  monitor: [],
  qmp: [],
  parallel: [],
  debugcon: [],
  monitors: [],
  devices: [],
  netdevs: [],
  nics: [],
  nets: [],
  fsdevs: [],
  objects: [],
  blockdevs: [],
  drives: [],
  driveTexts: [],
  driveIndexes: new Set(),
  readOnlyFlash: new Set(),
  snapshot: false,
  globals: [],
  secureFlash: false,
  timers: {},
  sleep: undefined,
  vnc: [],
  usb: false,
  usbDevices: [],
  nographic: false,
  nodefaults: false,
  noReboot: false,
  noShutdown: false,
  actions: {},
  paused: false,
  trace: [],
  rtcOffset: 0,
  daemonize: false,
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
  for (const [key, value] of optionMap(text, implied)) {
    // QEMU takes underscores for hyphens: `kernel_irqchip`.
    const name = Object.hasOwn(actions, key) ? key : key.replaceAll('_', '-');
    const action = Object.hasOwn(actions, name) ? actions[name] : undefined;
    if (!action) throw new Refused(`${option} ${key}${value === 'on' ? '' : `=${value}`}: not supported`);
    action(value);
  }
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
  const is = parseBool(value);
  if (is === undefined) throw new Refused(`${option}${value}: not supported; accepted: on, off`);
  return is;
}

/**
 * A number, decimal or with 0x.
 * @throws Refused
 */
export function integer(option: string, value: string, least: number, most: number): number {
  const n = /^(0x[\da-f]+|-?\d+)$/i.test(value) ? Number(value) : Number.NaN;
  if (!(n >= least && n <= most)) throw new Refused(`${option}${value}: accepted are numbers from ${least} to ${most}`);
  return n;
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
