// What instructions ask of the world outside the vCPU: ports, time, identification, foreign registers. The accelerator's host
// provides a function for each name.

import { host } from './sub.ts';

/** Reads 1, 2 or 4 bytes at a port; zero-extended. Parameters: port (0–65535), bytes. */
export const portIn = host('portIn', ['i32', 'i32'], 'i32');
/** Writes the low `bytes` of the value to a port. Parameters: port, value, bytes. */
export const portOut = host('portOut', ['i32', 'i32', 'i32'], null);
/** CR8, 0 to 15: the upper four bits of the local APIC's task priority register. */
export const tprRead = host('tprRead', [], 'i32');
export const tprWrite = host('tprWrite', ['i32'], null);
/** The time-stamp counter before the slot `tscOffset` is added: a whole number below 2^53, which crosses over faster than an i64. */
export const tsc = host('tsc', [], 'f64');
/** The slot `tscOffset` has another value. */
export const tscChanged = host('tscChanged', [], null);
/** Writes EAX, EBX, ECX, EDX of a CPUID leaf to the slots `cpuidResult`; may read CR4 and XCR0. Parameters: leaf, subleaf. */
export const cpuid = host('cpuid', ['i32', 'i32'], null);
/** A model-specific register that msr.ts has no slot for. Where there is none, `exc` and `excError` are left as #GP(0). With `pmAsked` set, the value comes by `Exit.pmc`. */
export const rdmsr = host('rdmsr', ['i32'], 'i64', { faults: true });
export const wrmsr = host('wrmsr', ['i32', 'i64'], null, { faults: true });
/** RDPMC's counter, by number: #GP(0) is left pending where there is none. The value comes when the vCPU is left by `Exit.pmc`. */
export const rdpmc = host('rdpmc', ['i32'], null, { faults: true });
/** The vCPU is left before the next instruction. */
export const leaveSoon = host('leaveSoon', [], null);
/** VMCALL and VMMCALL: reads arguments from and writes the result to the general registers, or leaves #UD pending. */
export const hypercall = host('hypercall', [], null, { faults: true });
/** 1 where the instruction at `rip` reaches the linear address (not canonical) through SS: see stack-access.ts. */
export const usesStack = host('usesStack', ['i64'], 'i32');
/** A data breakpoint was met: decoded code goes no further than the running instruction. */
export const stopSoon = host('stopSoon', [], null);
/** The breakpoints in DR7 changed; the parameter is 1 where one of them watches loads. */
export const watchChanged = host('watchChanged', ['i32'], null);
/** 64 random bits fit for cryptography. */
export const random = host('random', [], 'i64');
