// What the domain layer has to know of an emulator and its host, as the daemon's probe reports it (QMP query-machines, qom-list-types).

export interface MachineInfo {
  /** The full name, `pc-i440fx-7.2`. */
  name: string;
  /** `pc`, when this machine has one. */
  alias?: string;
  maxCpus: number;
  /** The id of the machine's RAM, `pc.ram`; absent when it takes no memory backend. */
  ramId?: string;
  isDefault?: boolean;
  deprecated?: boolean;
}

export interface EmulatorInfo {
  /** The executable's path. */
  path: string;
  /** `x86_64`, `i686`: libvirt's names. */
  arch: string;
  machines: readonly MachineInfo[];
  /** The CPU model of a machine when the document names none. */
  defaultCpu: string;
  /** The video model of a domain that has graphics and no video. */
  defaultVideo: 'vga' | 'cirrus';
}

/** What filling in a definition needs from outside. */
export interface DefineContext {
  /** Known emulators; the first of an architecture is its default. */
  emulators: readonly EmulatorInfo[];
  /** `length` random bytes, for UUIDs, MAC addresses and interface ids. */
  random(length: number): Uint8Array;
  /** Architecture of a document that names none. */
  arch?: string;
}

/** The machine that `name` is, by its name or alias; without a name the default one. */
export const findMachine = (emulator: EmulatorInfo, name: string | undefined): MachineInfo | undefined =>
  name === undefined
    ? (emulator.machines.find((one) => one.isDefault) ?? emulator.machines[0])
    : emulator.machines.find((one) => one.name === name || one.alias === name);

/** Boards by the machine's family: which chipset its name stands for. */
export type Board = 'pc' | 'q35' | 'microvm' | 'isapc' | 'virt' | 'other';

export function boardOf(machine: string): Board {
  if (machine === 'pc' || machine.startsWith('pc-i440fx') || machine.startsWith('pc-0.') || machine.startsWith('pc-1.'))
    return 'pc';
  if (machine === 'q35' || machine.startsWith('pc-q35')) return 'q35';
  if (machine === 'microvm') return 'microvm';
  if (machine === 'virt' || machine.startsWith('virt-')) return 'virt';
  return machine === 'isapc' ? 'isapc' : 'other';
}

const hexByte = (byte: number): string => byte.toString(16).padStart(2, '0');

/** A random UUID (version 4). */
export function randomUuid(random: DefineContext['random']): string {
  const bytes = random(16);
  bytes[6] = (bytes[6]! & 0x0f) | 0x40;
  bytes[8] = (bytes[8]! & 0x3f) | 0x80;
  const digits = Array.from(bytes, hexByte).join('');
  return digits.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}

/** A random MAC address with QEMU's prefix. */
export const randomMac = (random: DefineContext['random']): string =>
  ['52', '54', '00', ...Array.from(random(3), hexByte)].join(':');
