// What a machine starts with, in its memory: a kernel with its tables, or firmware; and flash, whose contents the guest may change.

import type { MemoryLayout } from '../../accel/accel.ts';
import { FACS_PLACE } from '../../firmware/acpi/build.ts';
import { FACS_VECTOR } from '../../firmware/acpi/tables.ts';
import { real16State } from '../../firmware/boot-state.ts';
import { loadKernel } from '../../firmware/detect.ts';
import { ACPI_ADDRESS, ACPI_MAX_SIZE, SMBIOS_ADDRESS, SMBIOS_MAX_SIZE } from '../../firmware/layout.ts';
import { extractVmlinux } from '../../firmware/payload.ts';
import { isBzImage } from '../../firmware/setup-header.ts';
import type { BootState, LoadTarget } from '../../firmware/target.ts';
import { cpuModel } from '../../isa/x86/cpu-model.ts';
import type { Board } from '../../machine/board.ts';
import type { FwCfgBlobs } from '../../machine/fw-cfg-items.ts';
import { kernelItems } from '../../machine/kernel-items.ts';
import { commandLineAddition, RESET_VECTOR, tripleFault } from '../../machine/microvm.ts';
import type { FlashImage, KernelFiles, MachineSetup } from '../../machine/running.ts';
import { acpiTables, hasAcpi, memoryMap, smbiosTables } from '../../machine/tables.ts';
import { decompress } from './decompress.ts';
import { keptKernel } from './kept-kernel.ts';

export interface LoadGuestOptions extends Pick<MachineSetup, 'config' | 'files' | 'firmware'> {
  readonly board: Board;
  readonly layout: MemoryLayout;
  /** All of the machine's memory. */
  readonly memory: Uint8Array;
  /** The guest's memory is as it was made: all zeros. */
  readonly fresh: boolean;
  /** Is told which memory of the guest's is likely to be used first. */
  readonly soon?: (parts: readonly Part[]) => void;
}
interface Part {
  readonly gpa: number;
  readonly length: number;
}

/**
 * What a kernel with an initramfs uses first, as Linux does: memory behind itself and below its initramfs. Most bytes of each, and by how much they are
 * less than all memory at least.
 */
const SOON = { behind: 32 << 20, below: 16 << 20, part: 16 } as const;
/** What is loaded that is smaller is neither. */
const LARGE = 1 << 20;
const PAGE = 4096;
/** The same for what was loaded into a guest of so many bytes, from the kernel to its initramfs. */
export function usedFirst(loaded: readonly Part[], memory: number): readonly Part[] {
  const [initrd, kernel] = loaded.filter(({ length }) => length >= LARGE).sort((a, b) => b.gpa - a.gpa);
  if (!initrd || !kernel) return [];
  const [from, to] = [Math.ceil((kernel.gpa + kernel.length) / PAGE) * PAGE, Math.floor(initrd.gpa / PAGE) * PAGE];
  const most = Math.min(memory / SOON.part, Math.max(0, to - from) / 2);
  const behind = Math.floor(Math.min(SOON.behind, most) / PAGE) * PAGE;
  const below = Math.floor(Math.min(SOON.below, most / 2) / PAGE) * PAGE;
  return [
    { gpa: from, length: behind },
    { gpa: to - below, length: below },
  ];
}

/**
 * Loads the firmware or the kernel. Returns the first vCPU's state at the kernel's entry; null where it begins at the reset vector.
 * @throws one clear line for what cannot be loaded
 */
export function loadGuest(o: LoadGuestOptions): BootState | null {
  const { config, files } = o;
  if (config.firmware) {
    loadFirmware(o);
    return null;
  }
  if (!files) throw new Error('Cannot start the machine: it has neither firmware nor a kernel');
  return loadLinux(o, files);
}

function loadFirmware({ config, firmware, board, layout: { ramBase }, memory }: LoadGuestOptions): void {
  const { rom } = board;
  const image = firmware?.rom;
  if (image) memory.set(image, rom.host);
  // A board without a chipset has it below 1 MiB as RAM, to begin with a copy.
  if (image && config.machine === 'microvm') {
    const low = image.subarray(-Math.min(image.length, 128 << 10));
    const gpa = (1 << 20) - low.length;
    memory.set(low, ramBase + gpa);
    board.ram.written(gpa, low.length);
  }
  for (const [file, bytes] of rom.roms) bytes.set(firmware?.roms?.get(file)?.subarray(0, bytes.length) ?? []);
}

function loadLinux({ config, board, layout, memory, fresh, soon }: LoadGuestOptions, files: KernelFiles): BootState {
  const { facts } = board;
  const { ramBase, ramLow, ramHigh, ramHighBase } = layout;
  if (ramLow < 1 << 20) throw new Error(`Cannot give the guest ${ramLow >> 10} KiB of memory: accepted are 1 MiB and more`);
  const place = (gpa: number): number => (gpa < ramLow ? ramBase + gpa : gpa - 2 ** 32 + ramHighBase);
  const loaded: Part[] = [];
  const written = (gpa: number, length: number): void => {
    board.ram.written(gpa, length);
    if (gpa < ramLow) loaded.push({ gpa, length });
  };
  const target: LoadTarget = {
    ramBelow4G: ramLow,
    ramAbove4G: ramHigh,
    fresh,
    write(gpa, bytes) {
      memory.set(bytes, place(gpa));
      written(gpa, bytes.length);
    },
    load(gpa, file, start, end, zeroed) {
      file.copy(start, memory.subarray(place(gpa), place(gpa) + end - start), zeroed);
      written(gpa, end - start);
    },
  };
  const acpi = hasAcpi(config);
  if (acpi) target.write(ACPI_ADDRESS, acpiTables(config, facts, ACPI_ADDRESS, ACPI_MAX_SIZE));
  target.write(SMBIOS_ADDRESS, smbiosTables(config, facts, SMBIOS_ADDRESS, SMBIOS_MAX_SIZE));
  if (config.machine === 'microvm') target.write(RESET_VECTOR, tripleFault);
  const append = `${files.append}${commandLineAddition(config, facts.virtio)}`;
  // Only the kernel's own decompressor switches to five levels of pages, since that takes leaving 64-bit mode.
  const [model = '', ...changes] = config.cpuModel.split(',');
  const inGuest = cpuModel(model, changes).features.has('la57');
  const whole = (): Uint8Array => {
    files.complete?.();
    return files.kernel;
  };
  const vmlinux = inGuest
    ? undefined
    : (files.vmlinux?.() ??
      (isBzImage(files.kernel) ? keptKernel(whole, () => extractVmlinux(whole(), decompress), files.identity) : undefined));
  try {
    const rsdp = acpi ? ACPI_ADDRESS : 0;
    const boot = loadKernel(target, {
      ...files,
      append,
      vmlinux,
      inGuest,
      rsdp,
      memoryMap: memoryMap(config, facts),
      decompress,
    });
    if (fresh && files.initrd) soon?.(usedFirst(loaded, ramLow + ramHigh));
    return boot;
  } finally {
    vmlinux?.close?.();
  }
}

/** The ACPI tables of a kernel that was loaded directly once more, where they tell of what only the reset has placed. */
export function tellPlaces({ config, board, layout, memory }: Omit<LoadGuestOptions, 'fresh'>): void {
  const { facts } = board;
  if (config.firmware || !hasAcpi(config) || facts.errorRecords === undefined) return;
  const tables = acpiTables(config, facts, ACPI_ADDRESS, ACPI_MAX_SIZE);
  memory.set(tables, layout.ramBase + ACPI_ADDRESS);
  board.ram.written(ACPI_ADDRESS, tables.length);
}

/**
 * What firmware does after a sleep, where there is none: the first vCPU's state at the address that the guest has written into its FACS, in real mode
 * (ACPI specification 6.4, sections 5.2.10 and 16.3.1). Undefined where there is no such address.
 */
export function wakeState({ layout, memory }: Pick<LoadGuestOptions, 'layout' | 'memory'>): BootState | undefined {
  const facs = ACPI_ADDRESS + FACS_PLACE;
  const view = new DataView(memory.buffer, memory.byteOffset + layout.ramBase + facs);
  const vector = view.getUint32(FACS_VECTOR, true);
  if (vector === 0 || vector >= 1 << 20) return undefined;
  return { ...real16State('a guest that slept', vector >>> 4, 0, 0), rip: vector & 15 };
}

/** What the firmware is given: files, and a kernel that it is to start. */
export function firmwareBlobs({ config, files, firmware }: MachineSetup, ramLow: number): FwCfgBlobs {
  const share = <K>(map: ReadonlyMap<K, Uint8Array> | undefined): Map<K, Uint8Array> =>
    new Map([...(map ?? [])].map(([key, bytes]) => [key, shared(bytes)]));
  const kernel = config.firmware && files ? kernelItems(files, ramLow) : undefined;
  return { files: share(firmware?.files), numbered: share(kernel) };
}

/** A copy that all threads see. */
function shared(bytes: Uint8Array): Uint8Array {
  const copy = new Uint8Array(new SharedArrayBuffer(bytes.length));
  copy.set(bytes);
  return copy;
}

/** Flash of a board and the files behind it. It keeps its contents over resets. */
export class FlashFiles {
  readonly #board: Board;
  readonly #images: readonly FlashImage[];
  readonly #report: MachineSetup['report'];
  #saving: Promise<void> = Promise.resolve();

  constructor(o: { readonly board: Board; readonly images: readonly FlashImage[]; readonly report: MachineSetup['report'] }) {
    this.#board = o.board;
    this.#images = o.images;
    this.#report = o.report;
    const { rom, flashBell } = o.board;
    rom.flash.forEach((chip, n) => {
      chip.bytes.set(o.images[n]!.bytes.subarray(0, chip.length));
    });
    flashBell.heard = () => void this.save();
  }

  /** Writes what the guest has changed to the files. */
  save(): Promise<void> {
    return (this.#saving = this.#saving.then(async () => {
      for (const [n, chip] of this.#board.rom.flash.entries()) {
        const dirty = this.#board.lock.run(() => chip.takeDirty());
        if (!dirty) continue;
        try {
          await this.#images[n]?.save?.(dirty.from, chip.bytes.slice(dirty.from, dirty.to));
        } catch (error) {
          this.#report(`pflash${n}`, `Cannot keep variables: ${error instanceof Error ? error.message : String(error)}`);
        }
      }
    }));
  }
}
