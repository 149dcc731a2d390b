// What the probe says of KVMs of several kinds, and that it has said it in time, whatever they do. They are fakes with a clock of their own: what takes time
// moves it on.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { errno, exitReasons, type IoctlName, ioctls, RUN_UNION, runIoLayout, runLayout } from './abi.ts';
import type { KvmHost } from './host.ts';
import { probeKvm, TRIAL_MS } from './probe.ts';

/** Names of calls by their numbers. */
const names = new Map(Object.entries(ioctls).map(([name, { request }]) => [request, name as IoctlName]));
/** Ports and values as the probe's program has them, in order; and how long it takes to each, in ms. */
interface Guest {
  readonly result?: number;
  readonly first: number;
  readonly loop: number;
}
interface FakeOptions {
  /** Time that a call takes, in ms; 0.01 where it does not say. */
  readonly call?: (name: string) => number;
  readonly guest?: Guest;
  /** In place of a guest: what KVM_RUN does. */
  readonly run?: (fake: Fake) => number;
  /** Another answer to a call. */
  readonly answer?: (name: string) => number | undefined;
}

/** A KVM of this kind: what it was asked, and what of it is still held. */
class Fake {
  now = 1000;
  /** When the thread's timer ends a run. */
  timer = Number.POSITIVE_INFINITY;
  readonly held = new Set<string>();
  readonly calls: string[] = [];
  readonly #area = new ArrayBuffer(4096);
  readonly #o: FakeOptions;
  #descriptors = 2;
  #outs = 0;
  /** What is left of the way to the guest's next exit, in ms. */
  #left: number | undefined;

  constructor(o: FakeOptions) {
    this.#o = o;
  }
  /** The guest runs for `ms`, or to the end of the timer: whether that long. */
  runFor(ms: number): boolean {
    const whole = this.now + ms <= this.timer;
    if (!whole && this.timer === Number.POSITIVE_INFINITY) throw new Error('nobody will ever end this run');
    this.now = whole ? this.now + ms : Math.max(this.now, this.timer);
    return whole;
  }
  interrupted(ms: number): number {
    this.runFor(ms);
    return -errno.EINTR;
  }
  exit(reason: number, ms = 0): 0 {
    this.runFor(ms);
    runLayout.view(this.#area, 0).exitReason = reason;
    return 0;
  }
  #run(): number {
    const { guest, run } = this.#o;
    if (run) return run(this);
    const { first, loop, result = 65 } = guest!;
    this.#left ??= this.#outs === 0 ? first : loop;
    const before = this.now;
    if (!this.runFor(this.#left)) {
      this.#left -= this.now - before;
      return -errno.EINTR;
    }
    this.#left = undefined;
    const io = runIoLayout.view(this.#area, RUN_UNION);
    io.port = this.#outs === 0 ? 0x80 : 0x81;
    io.dataOffset = 2048;
    new DataView(this.#area).setUint32(2048, this.#outs++ === 0 ? result : 0, true);
    return this.exit(exitReasons.indexOf('io'));
  }
  #descriptor(): number {
    const fd = ++this.#descriptors;
    this.held.add(`descriptor ${fd}`);
    return fd;
  }
  readonly host: KvmHost = (() => {
    const took = (name: string): void => {
      this.calls.push(name);
      this.now += this.#o.call?.(name) ?? 0.01;
    };
    const none = (): never => assert.fail('the probe does not need this');
    return {
      open: () => {
        took('open');
        return this.#descriptor();
      },
      ioctl: (_, request, argument) => {
        const name = names.get(request)!;
        took(name);
        const answer = this.#o.answer?.(name);
        if (answer !== undefined) return answer;
        if (name === 'getApiVersion') return 12;
        if (name === 'checkExtension') return 1;
        if (name === 'getVcpuMmapSize') return this.#area.byteLength;
        if (name === 'createVm' || name === 'createVcpu') return this.#descriptor();
        if (name === 'getSupportedCpuid') new DataView((argument as Uint8Array).buffer).setUint32(0, 0, true);
        if (name === 'getTscKhz') return 2_000_000;
        return name === 'run' ? this.#run() : 0;
      },
      map: () => {
        took('map');
        this.held.add('mapping');
        return this.#area;
      },
      unmap: () => void this.held.delete('mapping'),
      close: (fd) => {
        took('close');
        assert.ok(this.held.delete(`descriptor ${fd}`), 'a descriptor is closed once');
      },
      address: () => 0x10000n,
      runMask: () => new Uint8Array(12),
      prepareThread: () => {
        this.held.add('timer');
        return 1;
      },
      endThread: () => void this.held.delete('timer'),
      clearInterrupt: () => {
        this.timer = Number.POSITIVE_INFINITY;
      },
      interruptIn: (ns) => {
        this.timer = this.now + ns / 1e6;
      },
      ...{ timer: none, freeTimer: none, unmapAt: none, interrupt: none, waitSet: none, eventfd: none, signal: none, wait: none },
    };
  })();
}

/** What the probe says of such a KVM, after how many ms, and that nothing is held any more. */
function probed(o: FakeOptions, trial = true) {
  const fake = new Fake(o);
  const start = fake.now;
  const found = probeKvm(fake.host, trial, () => fake.now);
  assert.deepEqual([...fake.held], []);
  return { found, ms: fake.now - start, calls: fake.calls };
}
const good: Guest = { first: 0.2, loop: 0.1 };
const late = `this /dev/kvm is slow: a short program in ring 0 was not over after ${TRIAL_MS} ms`;

test('a KVM that computes rightly and fast is good', () => {
  const { found, ms } = probed({ guest: good });
  assert.deepEqual(found, { usable: true, why: undefined, tscKhz: 2_000_000, tscControl: true });
  assert.ok(ms < 2, `${ms} ms`);
});

test('one that computes wrongly, fails, or leaves its guest for another reason is not', () => {
  const of = (o: FakeOptions): string | undefined => probed(o).found.why;
  assert.equal(of({ guest: { ...good, result: 64 } }), 'this /dev/kvm computes wrongly in ring 0 (64 for 65)');
  const fails = (reason: (typeof exitReasons)[number]): FakeOptions => ({
    run: (fake) => fake.exit(exitReasons.indexOf(reason)),
  });
  assert.match(of(fails('internalError'))!, /fails a short program in ring 0 \(it cannot emulate an instruction\)/);
  assert.match(of(fails('shutdown'))!, /the guest is left with reason 8, shutdown/);
  assert.match(of({ run: () => -errno.EINVAL })!, /it cannot be run: error 22/);
});

test('one whose every loop is slow is slow, and the best of three tries counts', () => {
  assert.match(probed({ guest: { first: 1, loop: 8 } }).found.why!, /slow in ring 0: less than 33 million instructions a second/);
  let n = 0;
  const busy: Guest = { first: 1, get loop() { return n++ < 2 ? 20 : 0.1; } }; // biome-ignore format: one line
  assert.equal(probed({ guest: busy }).found.why, undefined);
});

// Each would take for ever, or far longer than whoever waits.
const stalls: readonly (readonly [string, FakeOptions])[] = [
  ['never leaves its guest', { guest: { first: Number.POSITIVE_INFINITY, loop: 0 } }],
  ['never comes back from a loop', { guest: { first: 1, loop: Number.POSITIVE_INFINITY } }],
  ['takes nearly the whole time for each part', { guest: { first: 60, loop: 59 } }],
  ['takes long for every call', { call: (name) => (name === 'close' ? 5 : 25), guest: good }],
  ['is interrupted over and over', { run: (fake) => fake.interrupted(0.1) }],
  ['is left for a signal over and over', { run: (fake) => fake.exit(exitReasons.indexOf('intr'), 1) }],
];
for (const [what, o] of stalls) {
  test(`of a KVM that ${what} the answer comes within 200 ms`, () => {
    const { found, ms } = probed(o);
    assert.equal(found.why, late);
    assert.ok(ms >= TRIAL_MS && ms < 200, `${ms} ms`);
  });
}

test('one that never makes a machine is given up in time, too', () => {
  const { found, ms } = probed({ answer: (name) => (name === 'createVm' ? -errno.EINTR : undefined) });
  assert.deepEqual(found, { usable: false, why: late, tscKhz: 0, tscControl: false });
  assert.ok(ms >= TRIAL_MS && ms < 200, `${ms} ms`);
});

test('where KVM is used as it is, no guest runs, and its slow calls are waited for', () => {
  const { found, calls } = probed({ call: () => 25, guest: good }, false);
  assert.deepEqual(found, { usable: true, why: undefined, tscKhz: 2_000_000, tscControl: true });
  assert.ok(!calls.includes('run'));
});
