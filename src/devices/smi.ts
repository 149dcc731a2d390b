// What firmware asks of SMIs through fw_cfg, and which vCPUs a command of the APM port interrupts. QEMU, hw/isa/lpc_ich9.c and OVMF's
// SmmControl2Dxe: `etc/smi/supported-features`, `etc/smi/requested-features` and `etc/smi/features-ok`.
import type { Arena } from '../bits/arena.ts';
import { struct, type ViewOf } from '../bits/struct.ts';
import { type FwCfgFile, le } from './fw-cfg.ts';

export const smiLayout = struct({ requested: ['u8', 8], ok: ['u8', 1], broadcast: 'u8' }, { name: 'smi', version: 1 });

/** Bit 0: a command interrupts all vCPUs, not the one alone that gave it. */
const feature = { broadcast: 1 } as const;

export class SmiFeatures {
  readonly s: ViewOf<typeof smiLayout>;

  constructor(arena: Arena) {
    this.s = arena.alloc(smiLayout);
  }

  reset(): void {
    this.s.requested.fill(0);
    this.s.ok[0] = 0;
    this.s.broadcast = 0;
  }

  /** True once firmware has asked for SMIs that reach all vCPUs. */
  get broadcast(): boolean {
    return this.s.broadcast !== 0;
  }

  /** Files of fw_cfg by their names. */
  files(): readonly (readonly [string, FwCfgFile])[] {
    const { s } = this;
    return [
      ['etc/smi/supported-features', { data: le(feature.broadcast, 8) }],
      ['etc/smi/requested-features', { data: s.requested, writable: true }],
      ['etc/smi/features-ok', { data: s.ok, selected: () => this.#settle() }],
    ];
  }

  /** Whoever looks whether its wishes are granted has them fixed until the next reset. */
  #settle(): void {
    const { s } = this;
    const [low, ...rest] = s.requested;
    if (s.ok[0] !== 0 || low! & ~feature.broadcast || rest.some((b) => b !== 0)) return;
    s.broadcast = low! & feature.broadcast;
    s.ok[0] = 1;
  }
}
