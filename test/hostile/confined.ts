// A process that confines itself and then tries what it was refused, on this thread and on one that was there before. Its one line of
// output is JSON: for each attempt, the error's number or 0. Usage: node confined.ts KEPT-AS-JSON

import { createRequire } from 'node:module';
import { isMainThread, parentPort, Worker } from 'node:worker_threads';
import type { Sandbox } from '../../src/cli/sandbox.ts';
import { confine, isRestarted, restart } from '../../src/host/node/confine.ts';

interface Koffi {
  load(path: string): { func(signature: string): (...args: unknown[]) => number };
  errno(): number;
}
const koffi = createRequire(import.meta.url)('koffi') as Koffi;
const c = koffi.load('libc.so.6');
const syscall = c.func('int64_t syscall(int64_t number, int64_t a, int64_t b, int64_t c, int64_t d)');

/** x86-64's numbers. Arguments are such that a call that gets through does no harm. */
const attempts: Readonly<Record<string, readonly [number, ...number[]]>> = {
  getpid: [39],
  fork: [57],
  vfork: [58],
  // A child that shares nothing; were it made, it would be this program a second time.
  clone: [56, 0],
  clone3: [435, 0, 0],
  execve: [59, 0, 0, 0],
  execveat: [322, -1, 0, 0],
  setuid: [105, 0],
  setsid: [112],
  setpriority: [141, 0, 0, 0],
  sched_setaffinity: [203, 0, 0, 0],
  prlimit64: [302, 0, 7, 0],
  prlimit64_set: [302, 0, 7, 1],
  ptrace: [101, 16, 1],
  process_vm_readv: [310, 1, 0, 0],
  mount: [165, 0, 0, 0],
  unshare: [272, 0],
  bpf: [321, 0, 0, 0],
  io_uring_setup: [425, 0, 0],
  kill_other: [62, 1, 0],
  kill_group: [62, 0, 0],
  kill_self: [62, process.pid, 0],
  socket_unix: [41, 1, 1, 0],
  socket_inet: [41, 2, 1, 0],
  socket_inet6: [41, 10, 2, 0],
  socket_packet: [41, 17, 3, 0],
  tiocsti: [16, -1, 0x5412, 0],
  tiocsti_high: [16, -1, 2 ** 32 + 0x5412, 0],
  personality: [135, 0xffffffff],
  x32_getpid: [0x40000000 + 39],
};

function tryAll(): Record<string, number> {
  const found: Record<string, number> = {};
  for (const [name, [number, ...args]] of Object.entries(attempts)) {
    // A process that is born here after all leaves at once, and the parent tells of it.
    const got = Number(syscall(number, args[0] ?? 0, args[1] ?? 0, args[2] ?? 0, args[3] ?? 0));
    if (got === 0 && /^(v?fork|clone)$/.test(name)) process.reallyExit(0);
    found[name] = got < 0 ? koffi.errno() : 0;
  }
  return found;
}

declare global {
  namespace NodeJS {
    interface Process {
      reallyExit(code: number): never;
    }
  }
}

if (isMainThread) {
  if (!isRestarted()) restart(undefined);
  const kept = JSON.parse(process.argv[2]!) as Sandbox;
  const worker = new Worker(new URL(import.meta.url));
  await new Promise((resolve) => worker.once('message', resolve));
  confine(kept);
  const main = tryAll();
  const earlier = await new Promise((resolve) => {
    worker.once('message', resolve);
    worker.postMessage('now');
  });
  // Threads can still be made, and work.
  const later = new Worker(new URL(import.meta.url));
  const lateResult = await new Promise((resolve) => {
    later.on('message', (m) => (m === 'ready' ? later.postMessage('now') : resolve(m)));
  });
  console.log(JSON.stringify({ main, earlier, later: lateResult }));
  process.exit();
} else {
  parentPort!.on('message', () => parentPort!.postMessage(tryAll()));
  parentPort!.postMessage('ready');
}
