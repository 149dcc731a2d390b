// CPU hot-plug by ACPI: the ports by which the DSDT's methods learn of CPUs that came or shall go. QEMU 7.2, docs/specs/acpi_cpu_hotplug.rst
// ("Modern CPU hotplug interface"); there is no bitmap of the legacy interface.
import type { Arena } from '../bits/arena.ts';
import { struct, type ViewOf } from '../bits/struct.ts';
import type { AddressSpace, Handler } from '../bus/space.ts';

/** vCPUs that the ports can tell of. */
const CPUS_MAX = 255;

export const cpuHotplugLayout = struct(
  {
    selector: 'u32',
    command: 'u32',
    inserting: ['u8', CPUS_MAX],
    removing: ['u8', CPUS_MAX],
    ejected: ['u8', CPUS_MAX],
    ostEvent: ['u32', CPUS_MAX],
  },
  { name: 'cpu-hotplug', version: 1 },
);
/** Ports by board, their number, and the general-purpose event that is raised. */
export const cpuHotplug = { base: { pc: 0xaf00, q35: 0x0cd8 }, length: 12, event: 2 } as const;

/** Values of the command register. */
const command = { nextWithEvent: 0, ostEvent: 1, ostStatus: 2, archId: 3 } as const;
/** Bits of the flags. */
const flag = { enabled: 1, inserting: 2, removing: 4, eject: 8 } as const;

export interface CpuHotplugOptions {
  readonly arena: Arena;
  /** Possible vCPUs. */
  readonly cpus: number;
  readonly present: (cpu: number) => boolean;
  /** Raises general-purpose event n. */
  readonly gpe: (n: number) => void;
  /** The guest has let go of a vCPU. */
  readonly eject: (cpu: number) => void;
  /** What the guest's `_OST` says of a vCPU; ACPI 6.4, section 6.3.5. */
  readonly ost?: (cpu: number, event: number, status: number) => void;
}

export class CpuHotplug {
  readonly s: ViewOf<typeof cpuHotplugLayout>;
  readonly #o: CpuHotplugOptions;

  constructor(o: CpuHotplugOptions) {
    this.#o = o;
    this.s = o.arena.alloc(cpuHotplugLayout);
  }

  reset(): void {
    const { s } = this;
    s.selector = 0;
    s.command = 0;
    for (const list of [s.inserting, s.removing, s.ejected, s.ostEvent]) list.fill(0);
  }

  map(ports: AddressSpace, base: number): void {
    ports.map(base, cpuHotplug.length, this.handler, 'acpi-cpu-hotplug');
  }

  /** A vCPU came. With the board's lock held, as what follows. */
  plugged(cpu: number): void {
    this.s.inserting[cpu] = 1;
    this.#o.gpe(cpuHotplug.event);
  }

  /** Asks the guest to let go of a vCPU. */
  request(cpu: number): void {
    this.s.removing[cpu] = 1;
    this.#o.gpe(cpuHotplug.event);
  }

  /** A vCPU is gone. */
  gone(cpu: number): void {
    this.s.inserting[cpu] = 0;
    this.s.removing[cpu] = 0;
    this.s.ejected[cpu] = 0;
  }

  /** Selector (4 bytes), flags, command, 2 bytes unused, data (4 bytes). */
  readonly handler: Handler = {
    max: 4,
    read: (offset) => {
      const { s } = this;
      const cpu = s.selector;
      if (cpu >= this.#o.cpus) return 0;
      if (offset === 4)
        return (
          (this.#o.present(cpu) && !s.ejected[cpu] ? flag.enabled : 0) |
          (s.inserting[cpu]! * flag.inserting) |
          (s.removing[cpu]! * flag.removing)
        );
      // An arch id is the APIC id, which is the vCPU's number.
      return offset === 8 && (s.command === command.nextWithEvent || s.command === command.archId) ? cpu : 0;
    },
    write: (offset, _, value) => {
      const { s } = this;
      if (offset === 0) s.selector = value;
      const cpu = s.selector;
      if (cpu >= this.#o.cpus) return;
      if (offset === 4) {
        if (value & flag.inserting) s.inserting[cpu] = 0;
        else if (value & flag.removing) s.removing[cpu] = 0;
        else if (value & flag.eject && cpu !== 0 && this.#o.present(cpu)) {
          // The guest looks at once whether it is gone; the machine takes it away a little later.
          s.ejected[cpu] = 1;
          this.#o.eject(cpu);
        }
      } else if (offset === 5) {
        s.command = value & 0xff;
        if (s.command === command.nextWithEvent) this.#next();
      } else if (offset === 8) {
        if (s.command === command.ostEvent) s.ostEvent[cpu] = value;
        else if (s.command === command.ostStatus) this.#o.ost?.(cpu, s.ostEvent[cpu]!, value);
      }
    },
  };

  /** Selects the next vCPU, from the selected one on, that has something to tell. */
  #next(): void {
    const { s } = this;
    const { cpus } = this.#o;
    for (let n = 0; n < cpus; n++) {
      const cpu = (s.selector + n) % cpus;
      if (s.inserting[cpu] || s.removing[cpu]) {
        s.selector = cpu;
        return;
      }
    }
  }
}
