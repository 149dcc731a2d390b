// A vCPU's registers out of its state block in shared memory (isa/x86/state.ts), for a monitor on another thread.

import { readRflags } from '../../isa/x86/rflags.ts';
import * as st from '../../isa/x86/state.ts';

const SEGMENTS = ['es', 'cs', 'ss', 'ds', 'fs', 'gs', 'ldtr', 'tr'] as const;
const NAMES = [
  ...Object.keys(st.R),
  ...['rip', 'cr0', 'cr2', 'cr3', 'cr4', 'efer', 'gdtr.base', 'gdtr.limit', 'idtr.base', 'idtr.limit', 'cpl', 'smm'],
  ...['dr0', 'dr1', 'dr2', 'dr3', 'dr6', 'dr7', 'mxcsr', 'fpCw'],
  ...SEGMENTS.flatMap((s) => [`${s}.selector`, `${s}.base`, `${s}.limit`, `${s}.attr`]),
] as const;

/** Registers by name, as unsigned numbers, with `rflags` put together. */
export function vcpuRegisters(state: DataView): Record<string, bigint> {
  const read = (name: string): bigint => {
    const slot = st.stateSlots[name]!;
    return slot.access.bits === 64 ? state.getBigUint64(slot.offset, true) : BigInt(state.getUint32(slot.offset, true));
  };
  const registers = Object.fromEntries(NAMES.map((name) => [name, read(name)]));
  registers['rflags'] = readRflags(state, 0);
  return registers;
}
