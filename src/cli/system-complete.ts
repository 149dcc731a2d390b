// What follows from the options of `nonroot-system-x86_64` together: QEMU's default devices, the character devices behind the short
// forms, properties that `-global` and `-set` change; what does not fit together is refused.

import { PLUG_GRANULE, PLUG_SLOTS_MAX } from '../bits/slot-table.ts';
import type { TimerConfig } from '../machine/config.ts';
import { propertiesOf } from '../machine/device-tree.ts';
import type { DeviceConfig } from '../machine/device-type.ts';
import { allDeviceTypes, findDeviceType } from '../machine/device-types.ts';
import type { OptionInfo } from '../monitor/emulator.ts';
import { gdbText } from '../monitor/gdb/start.ts';
import { addChardev, shortChardev } from './system-char-options.ts';
import { addNetwork } from './system-device-options.ts';
import { completeDisplay } from './system-display-options.ts';
import { addDrives } from './system-drive-options.ts';
import { accelNames, microvmOnly, topologyOf } from './system-machine-options.ts';
import { checkMemdevs } from './system-memdev-options.ts';
import { numaOf } from './system-numa-options.ts';
import type { SystemOption } from './system-option.ts';
import { integer, onOff, Refused, type Settings } from './system-settings.ts';

/** Drivers of boards that `-global` may name although no `-device` does, with what they take: what they are anyway. */
const boardGlobals: Readonly<Record<string, Readonly<Record<string, readonly string[]>>>> = {
  PIIX4_PM: { disable_s3: ['0', '1', 'on', 'off', 'true', 'false'], disable_s4: ['1', 'on', 'true'] },
  'ICH9-LPC': {
    disable_s3: ['0', '1', 'on', 'off', 'true', 'false'],
    disable_s4: ['1', 'on', 'true'],
    noreboot: ['off', 'false', 'on', 'true'],
  },
};
/** Of the boards' timers: what each property takes, and what it makes of the settings. */
const timerGlobals: Readonly<Record<string, Readonly<Record<string, Readonly<Record<string, TimerConfig>>>>>> = {
  hpet: { msi: { on: { hpetMsi: true }, true: { hpetMsi: true }, off: { hpetMsi: false }, false: { hpetMsi: false } } },
  'kvm-pit': { lost_tick_policy: { delay: { pitDiscards: false }, discard: { pitDiscards: true } } },
  mc146818rtc: { lost_tick_policy: { discard: { rtcSlew: false }, slew: { rtcSlew: true } } },
};

export function complete(s: Settings): void {
  if (s.accel.length > 0 && !s.accel.some((name) => accelNames.includes(name)))
    throw new Refused(`-accel ${s.accel.join(':')}: not supported; accepted: ${accelNames.join(', ')}`);
  microvm(s);
  addDrives(s);
  addNetwork(s);
  characters(s);
  completeDisplay(s);
  globals(s);
  bootRoms(s);
  memory(s);
  topologyOf(s);
  memoryRoom(s);
  s.numaNodes = numaOf(s);
  checkMemdevs(s);
  if (s.daemonize && usesStdio(s)) throw new Refused('-daemonize: not supported with standard input and output in use');
  if (s.machine.board === 'none') {
    if (s.devices.length > 0) throw new Refused(`-device ${s.devices[0]!.driver}: machine none has no buses`);
    return;
  }
  if (s.kernel === undefined) {
    if (s.append !== undefined) throw new Refused('-append: only allowed with -kernel');
    if (s.initrd !== undefined) throw new Refused('-initrd: only allowed with -kernel');
  }
}

const usesStdio = (s: Settings): boolean => [...s.chardevs.values()].some((o) => o.kind === 'stdio');

/** What only a microvm has is refused elsewhere; of a microvm, what it has not. */
function microvm(s: Settings): void {
  const is = s.machine.board === 'microvm';
  const given = [...s.machineProperties]
    .filter(([key, value]) => microvmOnly.includes(key) || (['pic', 'rtc'].includes(key) && value === 'off'))
    .map(([key]) => key);
  if (!is && given.length > 0)
    throw new Refused(`-machine ${given[0]}: not supported with ${s.machine.name}; accepted with microvm`);
  if (!is) return;
  const { cpus, maxcpus } = topologyOf(s);
  if (cpus !== maxcpus)
    throw new Refused(`-smp maxcpus=${maxcpus}: not supported with microvm, whose vCPUs are all there from the start`);
  if (!s.acpi && (s.bios !== undefined || s.kernel === undefined))
    throw new Refused('-machine microvm,acpi=off: not supported with firmware; accepted with -kernel and without -bios');
  if (s.serial.length > 1) throw new Refused(`-serial ${s.serial[1]}: not supported; a microvm has one serial port`);
  if (s.microvm.isaSerial === false && s.serial.some((text) => text !== 'none'))
    throw new Refused(`-serial ${s.serial[0]}: not supported with isa-serial=off`);
  if (s.usb || s.usbDevices.length > 0 || s.machineProperties.get('usb') === 'on')
    throw new Refused('-usb: not supported with microvm');
}

/** Serial ports, monitors and QMP servers with their character devices. */
function characters(s: Settings): void {
  const isNone = s.machine.board === 'none';
  const monitorFree = s.monitor.length === 0 && s.qmp.length === 0 && s.monitors.length === 0 && !s.nodefaults;
  const muxed = s.serial.some((text) => text.startsWith('mon:'));
  if (s.serial.length === 0 && !s.nodefaults && !isNone && s.microvm.isaSerial !== false)
    s.serial.push(s.nographic ? (s.monitor.length === 0 ? 'mon:stdio' : 'stdio') : 'null');
  else if (s.nographic && monitorFree && !muxed) s.monitor.push('stdio');

  const free = [0, 1, 2, 3].filter(
    (n) => !s.devices.some((d) => d.driver === 'isa-serial' && d['index'] !== undefined && Number(d['index']) === n),
  );
  const ports: DeviceConfig[] = [];
  s.serial.forEach((text, n) => {
    const index = free.shift();
    if (index === undefined) throw new Refused(`-serial ${text}: there are four serial ports`);
    if (text === 'none') return;
    const id = shortChardev(s, '-serial', text, `serial${n}`);
    ports.push({ driver: 'isa-serial', index, chardev: id });
    if (text.startsWith('mon:')) s.monitors.push({ chardev: id, mode: 'readline' });
  });
  // Ports of -device without a number take the free ones in their order.
  s.devices = [
    ...ports,
    ...s.devices.map((d) => (d.driver === 'isa-serial' && d['index'] === undefined ? { ...d, index: free.shift() ?? 4 } : d)),
  ];
  const hasPrinter = s.parallel.length > 0 || s.devices.some((d) => d.driver === 'isa-parallel');
  if (!hasPrinter && !s.nodefaults && ['pc', 'q35'].includes(s.machine.board)) s.parallel.push('null');
  s.parallel.forEach((text, index) => {
    if (text === 'none') return;
    s.devices.push({ driver: 'isa-parallel', index, chardev: shortChardev(s, '-parallel', text, `parallel${index}`) });
  });
  s.debugcon.forEach((text, n) => {
    if (text === 'none') return;
    s.devices.push({ driver: 'isa-debugcon', chardev: shortChardev(s, '-debugcon', text, `debugcon${n === 0 ? '' : n}`) });
  });
  s.monitor.forEach((text, n) => {
    if (text === 'none') return;
    s.monitors.push({ chardev: shortChardev(s, '-monitor', text, `compat_monitor${n}`), mode: 'readline' });
  });
  s.qmp.forEach(({ text }, n) => {
    s.monitors.push({ chardev: shortChardev(s, '-qmp', text, `compat_monitor${s.monitor.length + n}`), mode: 'control' });
  });
  if (s.gdb !== undefined && s.gdb !== 'none') {
    // A debugger may come late: nobody waits for it.
    s.gdbChardev = shortChardev(s, '-gdb', gdbText(s.gdb), 'gdb');
  }
  for (const { chardev } of s.monitors)
    if (!s.chardevs.has(chardev)) throw new Refused(`-mon chardev=${chardev}: there is no character device of that id`);
  if ([...s.chardevs.values()].filter((o) => o.kind === 'stdio').length > 1)
    throw new Refused('-chardev stdio: standard input and output are in use already');
  if (s.paused && s.monitors.length === 0 && s.gdb === undefined)
    throw new Refused('-S: not supported without a monitor (-monitor, -qmp, -mon or -gdb)');
}

/** Puts the values of `-global` into the devices that do not set them. */
function globals(s: Settings): void {
  for (const { driver, property, value } of s.globals) {
    const text = `-global ${driver}.${property}=${value}`;
    if (driver === 'virtio-mmio') {
      if (property !== 'force-legacy') throw new Refused(`${text}: not supported; accepted is force-legacy`);
      s.microvm.legacyTransports = onOff(`-global ${driver}.${property}=`, value);
      continue;
    }
    if (driver === 'cfi.pflash01' && property === 'secure') {
      s.secureFlash = onOff(`-global ${driver}.${property}=`, value);
      continue;
    }
    if (driver === 'mch' && property === 'extended-tseg-mbytes') {
      s.extendedTseg = integer(`-global ${driver}.${property}=`, value, 0, 0xfff);
      continue;
    }
    const timer = timerGlobals[driver];
    if (timer) {
      const accepted = timer[property];
      if (!accepted) throw new Refused(`${text}: not supported; accepted: ${Object.keys(timer).join(', ')}`);
      if (!Object.hasOwn(accepted, value))
        throw new Refused(`${text}: not supported; accepted: ${Object.keys(accepted).join(', ')}`);
      s.timers = { ...s.timers, ...accepted[value] };
      continue;
    }
    const board = boardGlobals[driver];
    if (board) {
      const accepted = board[property];
      if (!accepted) throw new Refused(`${text}: not supported`);
      if (!accepted.includes(value)) throw new Refused(`${text}: not supported; accepted: ${accepted.join(', ')}`);
      if (property === 'disable_s3') s.sleep = !/^(1|on|true)$/.test(value);
      continue;
    }
    const types = allDeviceTypes().filter((t) => t.name === driver || t.parents?.includes(driver));
    if (types.length === 0) throw new Refused(`${text}: not supported`);
    for (const type of types) {
      const row = propertiesOf(type)[property];
      if (!row) throw new Refused(`${text}: there is no such property`);
      if (row.parse(value) === undefined) throw new Refused(`${text}: accepted: ${row.accepted}`);
    }
    const names = types.map((t) => t.name);
    s.devices = s.devices.map((d) => (names.includes(d.driver) && d[property] === undefined ? { ...d, [property]: value } : d));
  }
}

/** Network cards that the machine may boot from have their expansion ROM; of all others it would only cost time. */
function bootRoms(s: Settings): void {
  const ordered = ['order', 'once'].some((name) => s.machineProperties.get(`boot.${name}`)?.includes('n'));
  s.devices = s.devices.map((d) => {
    const rom = findDeviceType(d.driver)?.bootRom;
    const indexed = d['bootindex'] !== undefined && Number(d['bootindex']) >= 0;
    return rom !== undefined && (ordered || indexed) && d['romfile'] === undefined ? { ...d, romfile: rom } : d;
  });
}

/** The object that `-machine memory-backend=` names is the RAM. */
function memory(s: Settings): void {
  const id = s.machineProperties.get('memory-backend');
  if (id === undefined) return;
  const found = s.objects.find((o) => o['id'] === id);
  if (!found) throw new Refused(`-machine memory-backend=${id}: there is no object of that id`);
  const size = Number(found['size']);
  if (s.memoryGiven && size !== s.memory)
    throw new Refused(`-machine memory-backend=${id}: its size ${size} differs from -m ${s.memory}`);
  s.memory = size;
}

/** What `-m maxmem=` and `slots=` make room for; in QEMU's words where it cannot be. */
function memoryRoom(s: Settings): void {
  const { memory: size, maxMemory: most, memorySlots: slots = 0 } = s;
  if (most === undefined) {
    if (slots > 0) throw new Refused('-m: slots specified but no max-size');
    return;
  }
  const hex = (n: number): string => `0x${n.toString(16)}`;
  const wrong = (why: string): never => {
    throw new Refused(`-m: invalid value of maxmem: ${why}`);
  };
  if (most < size) wrong(`maximum memory size (${hex(most)}) must be at least the initial memory size (${hex(size)})`);
  if (slots > 0 && most === size)
    wrong(
      `memory slots were specified but maximum memory size (${hex(most)}) is equal to the initial memory size (${hex(size)})`,
    );
  if (slots > PLUG_SLOTS_MAX) throw new Refused(`-m: unsupported amount of memory slots: ${slots}`);
  // Without slots nothing can come; a microvm takes the option and has no such devices.
  if (slots > 0 && (s.machine.board === 'pc' || s.machine.board === 'q35'))
    s.memoryHotplug = { slots, bytes: Math.floor((most - size) / PLUG_GRANULE) * PLUG_GRANULE };
}

export { addChardev };

/** What `query-command-line-options` tells of a table of options. */
export const optionInfos = (options: readonly SystemOption[]): readonly OptionInfo[] =>
  options.flatMap((o) => (o.group === undefined ? [] : [{ option: o.group, parameters: o.parameters ?? [] }]));
