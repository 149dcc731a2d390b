// The two chips that every q35 board has on PCI: the host bridge at 0.0 and the ISA bridge at 1f.0. Intel 3 Series Express Chipset datasheet (316966), section 5.1; ICH9 datasheet (316972), section 13.1.
import type { Arena } from '../bits/arena.ts';
import type { IrqLine } from '../bus/irq.ts';
import type { AddressSpace } from '../bus/space.ts';
import { type AcpiPm, acpiPm } from './acpi-pm.ts';
import { PAM_COUNT, pamRegister, pamWritable } from './pam.ts';
import { PciFunction } from './pci-function.ts';
import type { PciHost } from './pci-host.ts';
import { SmramControl, type SmramOptions } from './smram.ts';

export const ecamBase = 0xb000_0000;
const pciexbar = 0x60;
/** GGC, REMAPBASE and REMAPLIMIT, TOM and TOUUD, GBSM, BGSM, TSEGMB, TOLUD: registers with their bytes. */
const firmwareNotes: readonly (readonly [register: number, bytes: number])[] = [[0x52, 2], [0x98, 4], [0xa0, 4], [0xa4, 4], [0xa8, 4], [0xac, 4], [0xb0, 2]]; // biome-ignore format: a table

/** The host bridge, 8086:29c0. `preset` enables ECAM at 0xB000_0000 without firmware. `pam` is told of writes to the attribute map. */
export function hostBridge(
  arena: Arena,
  host: PciHost,
  mmio: AddressSpace,
  preset: boolean,
  pam: (register: (n: number) => number) => void = () => {},
  smram?: SmramOptions,
): { readonly f: PciFunction; readonly smram: SmramControl | undefined } {
  const f = new PciFunction({
    arena,
    name: 'host-bridge',
    vendor: 0x8086,
    device: 0x29c0,
    classCode: 0x06_0000,
    subsystemVendor: 0x1af4,
    subsystem: 0x1100,
  });
  f.writable(pciexbar, [0x07, 0, 0, 0xfc, 0x0f, 0, 0, 0]);
  if (preset) f.preset(pciexbar, [1, 0, 0, ecamBase >>> 24]);
  f.writable(pamRegister.q35, pamWritable);
  // Kept for firmware, which notes there where RAM, graphics memory and TSEG begin and end; memory is not changed by them.
  for (const [at, bytes] of firmwareNotes) f.writable(at, new Array<number>(bytes).fill(0xff));
  const smramControl = smram && new SmramControl(f, 'q35', smram);
  f.onWrite((offset, size) => {
    if (offset < pamRegister.q35 + PAM_COUNT && offset + size > pamRegister.q35) pam((n) => f.read(pamRegister.q35 + n, 1));
    if (offset < pciexbar + 8 && offset + size > pciexbar) mmio.changed();
  });
  mmio.movable((map) => {
    const low = f.read(pciexbar, 4);
    const length = [0x1000_0000, 0x800_0000, 0x400_0000, 0][(low >>> 1) & 3]!;
    if ((low & 1) === 0 || length === 0) return;
    const base = f.read(pciexbar + 4, 4) * 2 ** 32 + Math.floor(low / length) * length;
    map({ base, length, name: 'pcie-mmcfg-mmio', handler: host.ecam });
  });
  host.add(f, 0, 0);
  return { f, smram: smramControl };
}

const pmBase = 0x40;
const pmConfiguration = 0xa0;
const smiLock = 0x10;
const acpiControl = 0x44;
const pirqA = 0x60;
const pirqE = 0x68;

export interface IsaBridgeOptions {
  readonly arena: Arena;
  readonly host: PciHost;
  readonly ports: AddressSpace;
  readonly pm: AcpiPm;
  /** ISA interrupt lines of the 8259As only, by number; those that PIRQs can go to. */
  readonly pic: (irq: number) => IrqLine;
  /** Sets PMBASE to 0x600 and routes PIRQA to PIRQH to interrupts 10 and 11, as firmware would. */
  readonly preset: boolean;
}

const routable = [3, 4, 5, 6, 7, 9, 10, 11, 12, 14, 15] as const;

/** The ISA bridge, 8086:2918, with the power management block at its PMBASE and the routing of PIRQs to the 8259As. */
export class IsaBridge {
  readonly f: PciFunction;
  readonly #host: PciHost;
  readonly #lines = new Map<number, IrqLine>();

  constructor(o: IsaBridgeOptions) {
    const f = new PciFunction({
      arena: o.arena,
      name: 'isa-bridge',
      vendor: 0x8086,
      device: 0x2918,
      revision: 2,
      classCode: 0x06_0100,
      subsystemVendor: 0x1af4,
      subsystem: 0x1100,
      multifunction: true,
    });
    this.f = f;
    f.preset(pmBase, [1]);
    f.writable(pmBase, [0x80, 0xff]);
    f.writable(acpiControl, [0x87]);
    for (const at of [pirqA, pirqE]) {
      f.preset(at, [0x80, 0x80, 0x80, 0x80]);
      f.writable(at, [0x8f, 0x8f, 0x8f, 0x8f]);
    }
    // SMI_LOCK of GEN_PMCON_1, which cannot be taken back.
    f.writable(pmConfiguration, [smiLock]);
    // Root complex base: kept, as firmware writes it; nothing is behind it.
    f.writable(0xf0, [0x01, 0xc0, 0xff, 0xff]);
    if (o.preset) {
      f.preset(pmBase, [(acpiPm.base & 0xff) | 1, acpiPm.base >>> 8]);
      f.preset(acpiControl, [0x80]);
      for (const at of [pirqA, pirqE]) f.preset(at, [10, 10, 11, 11]);
    }
    f.onWrite((offset, size) => {
      if (offset <= pmConfiguration && offset + size > pmConfiguration) {
        if (f.read(pmConfiguration, 1) & smiLock) o.pm.lockSmi();
        if (o.pm.s.smiLocked) f.poke(pmConfiguration, 1, f.read(pmConfiguration, 1) | smiLock);
      }
      if (offset < acpiControl + 1 && offset + size > pmBase) o.ports.changed();
      if (offset < pirqE + 4 && offset + size > pirqA) for (const irq of this.#lines.keys()) this.#drive(irq);
    });
    o.ports.movable((map) => {
      const base = f.read(pmBase, 2) & 0xff80;
      if (base !== 0 && f.read(acpiControl, 1) & 0x80)
        map({ base, length: acpiPm.length, name: 'acpi-pm', handler: o.pm.handler });
    });
    for (const irq of routable) this.#lines.set(irq, o.pic(irq));
    this.#host = o.host;
    o.host.add(f, 31, 0);
  }

  /** Called with a PIRQ's level, 0 (A) to 7 (H): passes it on to the 8259A input that it is routed to. */
  pirq(n: number): IrqLine {
    return {
      set: () => {
        const irq = this.#target(n);
        if (irq >= 0) this.#drive(irq);
      },
    };
  }

  #target(n: number): number {
    const route = this.f.read(n < 4 ? pirqA + n : pirqE + n - 4, 1);
    return route & 0x80 ? -1 : route & 15;
  }

  #drive(irq: number): void {
    let level: 0 | 1 = 0;
    for (let n = 0; n < 8; n++) if (this.#target(n) === irq && this.#host.pirqLevel(n)) level = 1;
    this.#lines.get(irq)?.set(level);
  }
}
