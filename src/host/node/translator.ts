// The translator for the thread of a vCPU, which loads it when it is first needed: under KVM that may be never, and its tables of instructions
// take longer than all else of the thread's start.

export { createEngine, createVm, mainModule, prepareEngine } from '../../accel/dbt/dbt.ts';
export { REACH } from '../../accel/dbt/region.ts';
export { DbtVcpu } from '../../accel/dbt/vcpu.ts';
export { Kept, keptPath, likelyPath, noUses } from './kept-code.ts';
export { nativeCode } from './native-code.ts';
export { compileNative } from './prebuilt.ts';
export { regionMaker } from './region-maker.ts';
