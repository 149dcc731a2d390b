// The chips that every `pc` board has on PCI: host bridge at 0.0, ISA bridge at 1.0 and power management at 1.3.
// Intel 440FX datasheet (290549), section 3.2; PIIX3 datasheet (290550), section 2.2; PIIX4 datasheet (290562), chapter 7.
import type { Arena } from '../bits/arena.ts';
import type { IrqLine } from '../bus/irq.ts';
import type { Handler } from '../bus/space.ts';
import { type AcpiPm, acpiPm } from './acpi-pm.ts';
import { PAM_COUNT, pamRegister, pamWritable } from './pam.ts';
import { PciFunction } from './pci-function.ts';
import type { PciHost } from './pci-host.ts';
import { SmramControl, type SmramOptions } from './smram.ts';

const ids = { vendor: 0x8086, subsystemVendor: 0x1af4, subsystem: 0x1100 } as const;

/** INTA to INTD (1 to 4) of a slot of bus 0: its PIRQ, 0 (A) to 3 (D). */
export const i440fxPirq = (slot: number, pin: number): number => (slot - 1 + pin - 1) & 3;

/** The host bridge, 8086:1237. `pam` is told of writes to the attribute map. */
export function i440fxBridge(
  arena: Arena,
  host: PciHost,
  pam: (register: (n: number) => number) => void,
  smram: SmramOptions,
): { readonly f: PciFunction; readonly smram: SmramControl } {
  const f = new PciFunction({ arena, name: 'i440fx', ...ids, device: 0x1237, revision: 2, classCode: 0x06_0000 });
  f.writable(pamRegister.i440fx, pamWritable);
  f.onWrite((offset, size) => {
    if (offset < pamRegister.i440fx + PAM_COUNT && offset + size > pamRegister.i440fx)
      pam((n) => f.read(pamRegister.i440fx + n, 1));
  });
  host.add(f, 0, 0);
  return { f, smram: new SmramControl(f, 'i440fx', smram) };
}

const pirqRoute = 0x60;
const routable = [3, 4, 5, 6, 7, 9, 10, 11, 12, 14, 15] as const;

/** The ISA bridge, 8086:7000, which routes PIRQA to PIRQD to ISA interrupts. */
export class Piix3 {
  readonly f: PciFunction;
  readonly #host: PciHost;
  readonly #lines = new Map<number, IrqLine>();

  /** `preset` routes the PIRQs to interrupts 10, 10, 11, 11, as firmware does. */
  constructor(o: {
    readonly arena: Arena;
    readonly host: PciHost;
    readonly isa: (irq: number) => IrqLine;
    readonly preset: boolean;
  }) {
    const f = new PciFunction({
      ...{ arena: o.arena, name: 'piix3', ...ids, device: 0x7000, classCode: 0x06_0100, multifunction: true },
    });
    this.f = f;
    this.#host = o.host;
    f.preset(pirqRoute, o.preset ? [10, 10, 11, 11] : [0x80, 0x80, 0x80, 0x80]);
    f.writable(pirqRoute, [0x8f, 0x8f, 0x8f, 0x8f]);
    // Registers that are kept and have no effect: I/O recovery, BIOS enable, MBIRQ, DMA, SMI.
    f.preset(0x4c, [0x4d]);
    f.preset(0x4e, [0x03]);
    for (const at of [0x4c, 0x4e, 0x4f, 0x69, 0x6a, 0x70, 0x71, 0x76, 0x77, 0x78, 0x79, 0x80, 0x82, 0xa0]) f.writable(at, [0xff]);
    f.onWrite((offset, size) => {
      if (offset < pirqRoute + 4 && offset + size > pirqRoute) for (const irq of this.#lines.keys()) this.#drive(irq);
    });
    for (const irq of routable) this.#lines.set(irq, o.isa(irq));
    o.host.add(f, 1, 0);
  }

  /** Called with a PIRQ's level, 0 (A) to 3 (D). */
  pirq(n: number): IrqLine {
    return {
      set: () => {
        const irq = this.#target(n);
        if (irq >= 0) this.#drive(irq);
      },
    };
  }

  #target(n: number): number {
    const route = this.f.read(pirqRoute + n, 1);
    return route & 0x80 ? -1 : route & 15;
  }

  #drive(irq: number): void {
    let level: 0 | 1 = 0;
    for (let n = 0; n < 4; n++) if (this.#target(n) === irq && this.#host.pirqLevel(n)) level = 1;
    this.#lines.get(irq)?.set(level);
  }
}

const pm = { base: 0x40, misc: 0x80, smbBase: 0x90, smbConfig: 0xd2 } as const;
/** Power management registers in port space: events, control, timer. */
const pmLength = 0x40;

/** In DEVACTB: a command of the APM port interrupts. */
export const apmEnable = { register: 0x5b, bit: 2 } as const;

/** Power management and SMBus, 8086:7113. Its general-purpose events are at fixed ports, see `AcpiPm.mapGpe`. */
export function piix4Pm(o: {
  readonly arena: Arena;
  readonly host: PciHost;
  readonly ports: {
    movable: (mapper: (map: (r: { base: number; length: number; name: string; handler: Handler }) => void) => void) => void;
    changed(): void;
  };
  readonly pm: AcpiPm;
  readonly smbus: Handler;
  readonly preset: boolean;
  /** There is system management mode. */
  readonly smm: boolean;
}): PciFunction {
  const f = new PciFunction({
    ...{ arena: o.arena, name: 'piix4-pm', ...ids, device: 0x7113, revision: 3, classCode: 0x06_8000, interruptPin: 1 },
  });
  f.preset(pm.base, [1]);
  f.writable(pm.base, [0xc0, 0xff]);
  f.preset(pm.smbBase, [1]);
  f.writable(pm.smbBase, [0xf0, 0xff]);
  f.preset(0x5f, [0x90]);
  for (const at of [pm.misc, pm.smbConfig]) f.writable(at, [0xff]);
  f.writable(0x58, [0xff, 0xff, 0xff, 0xff]);
  // APMC_EN of DEVACTB says that system management is set up already where there is no such mode.
  if (!o.smm) f.preset(apmEnable.register, [apmEnable.bit]);
  if (o.preset) {
    f.preset(pm.base, [(acpiPm.base & 0xff) | 1, acpiPm.base >>> 8]);
    f.preset(pm.misc, [1]);
    f.preset(pm.smbBase, [1, 7]);
    f.preset(pm.smbConfig, [9]);
  }
  f.onWrite((offset, size) => {
    if (offset + size > pm.base && offset < pm.smbConfig + 1) o.ports.changed();
  });
  o.ports.movable((map) => {
    const base = f.read(pm.base, 2) & 0xffc0;
    if (base !== 0 && f.read(pm.misc, 1) & 1) map({ base, length: pmLength, name: 'acpi-pm', handler: o.pm.handler });
    const smb = f.read(pm.smbBase, 2) & 0xfff0;
    if (smb !== 0 && f.read(pm.smbConfig, 1) & 1) map({ base: smb, length: 0x10, name: 'pm-smbus', handler: o.smbus });
  });
  o.host.add(f, 1, 3);
  return f;
}
