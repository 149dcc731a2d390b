// The state of a local APIC and the positions of its local vectors. Intel SDM volume 3A (order 253668), table 11-1 and figure 11-8.
import { struct, type ViewOf } from '../bits/struct.ts';

/** Arrays of `i32` are changed by atomics, from any thread; the rest under the board's lock. Zeros mean nothing before `reset`. */
export const lapicLayout = struct(
  {
    irr: ['i32', 8],
    tmr: ['i32', 8],
    isr: ['i32', 8],
    /** What `takeEvents` gives. */
    events: ['i32', 1],
    /** Levels of LINT0 (bit 0) and LINT1 (bit 1). */
    lines: ['i32', 1],
    /** Errors since the last write to ESR. */
    errors: ['i32', 1],
    baseLow: 'u32',
    baseHigh: 'u32',
    id: 'u32',
    tpr: 'u32',
    ldr: 'u32',
    dfr: 'u32',
    svr: 'u32',
    esr: 'u32',
    icrLow: 'u32',
    icrHigh: 'u32',
    /** In the order of `lvt`. */
    lvt: ['u32', 6],
    initialCount: 'u32',
    divide: 'u32',
    /** When the timer fires, in ns; `Infinity` when it does not run. */
    expires: 'f64',
    /** IA32_TSC_DEADLINE; 0 when it does not run. */
    deadline: 'u64',
    /** Guest-physical address of the word of KVM's paravirtual EOI, 0 when off. */
    pvEoi: 'f64',
    /** 1 while that word tells the guest to clear it in place of an EOI. */
    pvEoiArmed: 'u32',
  },
  { name: 'lapic', version: 1 },
);
export type LapicState = ViewOf<typeof lapicLayout>;

/** Positions in `LapicState.lvt`. */
export const lvt = { timer: 0, thermal: 1, perf: 2, lint0: 3, lint1: 4, error: 5 } as const;
export const lvtMasked = 0x1_0000;
export const remoteIrr = 0x4000;
/** The upper bit of the timer's mode. */
export const timerTscDeadline = 0x4_0000;
/** Bits of each vector that can be written. */
export const lvtWritable = [0x7_00ff, 0x1_07ff, 0x1_07ff, 0x1_a7ff, 0x1_a7ff, 0x1_00ff] as const;
