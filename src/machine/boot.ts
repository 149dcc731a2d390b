// Puts a direct boot's registers into a vCPU.

import type { Vcpu } from '../accel/accel.ts';
import type { BootState, SegmentState } from '../firmware/target.ts';

/** The attributes of a segment as the slot `segAttr` holds them. */
const attributes = (s: SegmentState): number =>
  s.type | (s.s << 4) | (s.dpl << 5) | (s.present << 7) | (s.l << 13) | (s.db << 14) | (s.g << 15) | (s.present ? 0 : 0x10000);

/** What firmware leaves on all vCPUs, where there is none: MTRRs on, write-back by default. On a vCPU that was just reset. */
export function applyFirmwareState(vcpu: Vcpu): void {
  vcpu.set('mtrrDefault', 0xc06n);
}

/** Sets all registers that `state` names, on a vCPU that was just reset. */
export function applyBootState(vcpu: Vcpu, state: BootState): void {
  const set = (name: string, value: number): void => vcpu.set(name, BigInt(value));
  for (const name of ['rip', 'rax', 'rbx', 'rcx', 'rdx', 'rsi', 'rdi', 'rbp', 'rsp', 'cr0', 'cr3', 'cr4', 'efer'] as const)
    set(name, state[name]);
  set('sysFlags', state.rflags & ~0x8d7);
  for (const name of ['cs', 'ds', 'es', 'fs', 'gs', 'ss', 'tr'] as const) segment(name, state[name]);
  segment('ldtr', state.ldt);
  set('gdtr.base', state.gdt.base);
  set('gdtr.limit', state.gdt.limit);
  set('idtr.base', state.idt.base);
  set('idtr.limit', state.idt.limit);
  set('cpl', 0);
  vcpu.sync();

  function segment(name: string, s: SegmentState): void {
    set(`${name}.selector`, s.selector);
    set(`${name}.base`, s.base);
    set(`${name}.limit`, s.limit);
    set(`${name}.attr`, attributes(s));
  }
}
