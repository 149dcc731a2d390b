// What a vCPU on the translator counts, in its part of the shared memory: any thread may look.

import { Exit } from '../../isa/x86/state.ts';

/** Counters in their order in memory, with what they count. */
export const counterNames = {
  instructions: 'instructions retired',
  inRegions: 'of these in translated regions',
  blocks: 'blocks decoded for tier 0',
  decoded: 'instructions decoded for tier 0',
  handlerModules: 'modules with handlers that were not made ahead',
  invalidated: 'blocks lost to writes',
  flushes: 'times that all decoded code was dropped',
  regions: 'regions made',
  kept: 'of these from earlier runs',
  regionInstructions: 'instructions translated in them',
  modules: 'modules with regions',
  released: 'regions given up',
  regionMs: "milliseconds of the vCPU's thread spent on regions",
  tlbMisses: 'TLB misses',
  slowAccesses: 'memory accesses off the fast path',
  pageFlushes: 'pages flushed from the TLB',
  fullFlushes: 'full TLB flushes',
  regionEntries: 'times that tier 0 entered a region',
  resolve: 'calls of the host: blocks to find or decode',
  codeWrite: 'calls of the host: writes to decoded code',
  mmio: 'calls of the host: MMIO',
  ports: 'calls of the host: ports',
  msr: 'calls of the host: MSRs',
  tsc: 'calls of the host: time-stamp counter',
  other: 'calls of the host: other',
  budget: 'exits: slice over',
  kick: 'exits: kicked',
  hlt: 'exits: halted',
  wait: 'exits: MWAIT',
  hot: 'exits: hot block',
  mode: 'exits: change of mode',
  pmc: 'exits: performance counters',
  rsm: 'exits: end of system management mode',
  shutdown: 'exits: shutdown',
} as const;

export type CounterName = keyof typeof counterNames;
const names = Object.keys(counterNames) as CounterName[];
const place = Object.fromEntries(names.map((name, i) => [name, i])) as Record<CounterName, number>;

/** Bytes of a vCPU's counters. */
export const COUNTER_BYTES = names.length * 8;

const exits: Readonly<Record<number, CounterName>> = {
  [Exit.budget]: 'budget',
  [Exit.kick]: 'kick',
  [Exit.hlt]: 'hlt',
  [Exit.wait]: 'wait',
  [Exit.hot]: 'hot',
  [Exit.mode]: 'mode',
  [Exit.pmc]: 'pmc',
  [Exit.rsm]: 'rsm',
  [Exit.shutdown]: 'shutdown',
};

/** The counters of one vCPU. */
export class Counters {
  readonly #values: Float64Array;

  constructor(buffer: ArrayBufferLike, offset: number) {
    this.#values = new Float64Array(buffer, offset, names.length);
  }
  set(name: CounterName, value: number): void {
    this.#values[place[name]] = value;
  }
  /** Counts one exit of the loop, by its reason. */
  exit(reason: number): void {
    const name = exits[reason];
    if (name) this.add(name);
  }
  add(name: CounterName, value = 1): void {
    this.#values[place[name]] += value;
  }
  read(): Readonly<Record<CounterName, number>> {
    return Object.fromEntries(names.map((name, i) => [name, this.#values[i]])) as Record<CounterName, number>;
  }
}

/** Counters as text, one a line. */
export const countersText = (values: Readonly<Record<CounterName, number>>): string =>
  names.map((name) => `${String(Math.round(values[name])).padStart(14)} ${counterNames[name]}`).join('\n');
