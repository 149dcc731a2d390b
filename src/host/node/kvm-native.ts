// The KVM accelerator's host on Linux (accel/kvm/host.ts): libc by koffi, synchronous, in whatever thread calls. open(2), ioctl(2),
// mmap(2), tgkill(2), timer_create(2), sigtimedwait(2), eventfd(2), epoll(7).

import { errno } from '../../accel/kvm/abi.ts';
import type { KvmHost } from '../../accel/kvm/host.ts';
import { loadKoffi } from './koffi.ts';

const O_RDWR_CLOEXEC = 0o2000002;
const PROT_READ_WRITE = 3;
const MAP_SHARED = 1;
const SIG_BLOCK = 0;
/** The signal that ends a run: one of the real-time range that neither libc nor V8 uses. */
const SIGNAL = 40;
const SIGSET_BYTES = 128;
const KERNEL_SIGSET_BYTES = 8;
const CLOCK_MONOTONIC = 1;
const SIGEV_THREAD_ID = 4;
const EPOLL_CLOEXEC = 0o2000000;
const EFD_CLOEXEC_NONBLOCK = 0o2004000;
const EPOLL_CTL_ADD = 1;
const EPOLLIN_ET = 0x8000_0001;
/** `struct epoll_event`, packed on x86-64: events, and 8 bytes of its owner. */
const EPOLL_EVENT_BYTES = 12;
const MAP_FAILED = 2n ** 64n - 1n;

type Func = (...args: unknown[]) => number;
interface Koffi {
  load(path: string): { func(signature: string): Func };
  errno(): number;
  address(value: unknown): bigint;
  view(pointer: unknown, length: number): ArrayBuffer;
}

let loaded: Koffi | string | undefined;
/** koffi, or why there is none. Looked up once for each thread. */
function koffi(): Koffi | string {
  if (loaded !== undefined) return loaded;
  try {
    loaded = loadKoffi<Koffi>();
  } catch (error) {
    loaded = error instanceof Error ? error.message.split('\n')[0]! : String(error);
  }
  return loaded;
}

/**
 * The calls of this Linux host.
 * @throws Error, one line, on other systems and where there is no binary of koffi
 */
export function kvmHost(device = '/dev/kvm'): KvmHost {
  if (process.platform !== 'linux') throw new Error(`Cannot use KVM on ${process.platform}: accepted is Linux; use -accel dbt`);
  const ffi = koffi();
  if (typeof ffi === 'string') {
    throw new Error(
      `Cannot use KVM: the package koffi has no binary for ${process.platform} ${process.arch} (${ffi}); use -accel dbt`,
    );
  }
  const libc = ffi.load('libc.so.6');
  const open = libc.func('int open(const char *path, int flags)');
  const close = libc.func('int close(int fd)');
  const ioctl = libc.func('int ioctl(int fd, unsigned long request, uint64_t argument)');
  const ioctlBytes = libc.func('int ioctl(int fd, unsigned long request, void *argument)');
  const mmap = libc.func('void *mmap(uint64_t at, size_t length, int protection, int flags, int fd, int64_t offset)');
  const munmap = libc.func('int munmap(uint64_t at, size_t length)');
  const timerDelete = libc.func('int timer_delete(uint64_t timer)');
  const gettid = libc.func('int gettid()');
  const tgkill = libc.func('int tgkill(int pid, int tid, int signal)');
  const sigmask = libc.func('int pthread_sigmask(int how, const void *set, void *old)');
  const sigtimedwait = libc.func('int sigtimedwait(const void *set, void *info, const void *timeout)');
  const timerCreate = libc.func('int timer_create(int clock, const void *event, void *timer)');
  const timerSettime = libc.func('int timer_settime(uint64_t timer, int flags, const void *value, void *old)');

  const epollCreate = libc.func('int epoll_create1(int flags)');
  const epollCtl = libc.func('int epoll_ctl(int set, int what, int fd, const void *event)');
  const epollWait = libc.func('int epoll_wait(int set, void *events, int most, int ms)');
  const eventfd = libc.func('int eventfd(unsigned int initial, int flags)');
  const eventfdWrite = libc.func('int eventfd_write(int fd, uint64_t value)');

  const only = new Uint8Array(SIGSET_BYTES);
  only[(SIGNAL - 1) >> 3] = 1 << ((SIGNAL - 1) & 7);
  const noTime = new Uint8Array(16);
  const timer = new BigUint64Array(1);
  let hasTimer = false;
  const timerValue = new BigInt64Array(4);
  let armed = false;
  const failed = (result: number): number => (result < 0 ? -ffi.errno() : result);

  return {
    open() {
      const fd = failed(open(device, O_RDWR_CLOEXEC));
      if (fd >= 0) return fd;
      const why =
        fd === -errno.ENOENT
          ? 'there is no such device; load the module kvm_intel or kvm_amd, or use -accel dbt'
          : fd === -errno.EACCES
            ? 'permission denied; add your user to the group kvm, or use -accel dbt'
            : `error ${-fd}; use -accel dbt`;
      throw new Error(`Cannot open ${device}: ${why}`);
    },
    ioctl: (fd, request, argument) =>
      failed(argument instanceof Uint8Array ? ioctlBytes(fd, request, argument) : ioctl(fd, request, argument)),
    map(fd, length, offset = 0) {
      const pointer: unknown = mmap(0, length, PROT_READ_WRITE, MAP_SHARED, fd, offset);
      if (ffi.address(pointer) === MAP_FAILED)
        throw new Error(`Cannot map ${length} bytes of a KVM descriptor: error ${ffi.errno()}`);
      return ffi.view(pointer, length);
    },
    unmap: (area) => void munmap(ffi.address(new Uint8Array(area)), area.byteLength),
    unmapAt: (address, length) => void munmap(address, length),
    close: (fd) => void close(fd),
    address: (bytes) => ffi.address(bytes),
    runMask() {
      const current = new Uint8Array(SIGSET_BYTES);
      sigmask(SIG_BLOCK, null, current);
      const mask = new Uint8Array(4 + KERNEL_SIGSET_BYTES);
      new DataView(mask.buffer).setUint32(0, KERNEL_SIGSET_BYTES, true);
      mask.set(current.subarray(0, KERNEL_SIGSET_BYTES), 4);
      mask[4 + ((SIGNAL - 1) >> 3)]! &= ~(1 << ((SIGNAL - 1) & 7));
      return mask;
    },
    prepareThread() {
      sigmask(SIG_BLOCK, only, null);
      const tid = gettid();
      if (!hasTimer) {
        const event = new DataView(new ArrayBuffer(64));
        event.setInt32(8, SIGNAL, true);
        event.setInt32(12, SIGEV_THREAD_ID, true);
        event.setInt32(16, tid, true);
        hasTimer = timerCreate(CLOCK_MONOTONIC, new Uint8Array(event.buffer), timer) === 0;
        if (!hasTimer) throw new Error(`Cannot make a timer for a KVM vCPU: error ${ffi.errno()}`);
      }
      return tid;
    },
    timer: () => (hasTimer ? Number(timer[0]) : -1),
    endThread() {
      if (hasTimer) timerDelete(timer[0]!);
      hasTimer = false;
      armed = false;
    },
    freeTimer: (id) => void timerDelete(id),
    interrupt: (tid) => void tgkill(process.pid, tid, SIGNAL),
    clearInterrupt() {
      while (sigtimedwait(only, null, noTime) === SIGNAL);
    },
    waitSet: () => failed(epollCreate(EPOLL_CLOEXEC)),
    eventfd(set, tag) {
      const fd = failed(eventfd(0, EFD_CLOEXEC_NONBLOCK));
      if (fd < 0) return fd;
      const event = new DataView(new ArrayBuffer(EPOLL_EVENT_BYTES));
      // Edges: nobody has to read an eventfd for the next signal to be told.
      event.setUint32(0, EPOLLIN_ET, true);
      event.setUint32(4, tag, true);
      if (epollCtl(set, EPOLL_CTL_ADD, fd, new Uint8Array(event.buffer)) === 0) return fd;
      const error = -ffi.errno();
      close(fd);
      return error;
    },
    signal: (fd) => void eventfdWrite(fd, 1),
    wait(set, tags, ms) {
      const events = new Uint8Array(tags.length * EPOLL_EVENT_BYTES);
      const count = Math.max(0, epollWait(set, events, tags.length, ms));
      const view = new DataView(events.buffer);
      for (let n = 0; n < count; n++) tags[n] = view.getUint32(n * EPOLL_EVENT_BYTES + 4, true);
      return count;
    },
    interruptIn(ns) {
      const finite = Number.isFinite(ns);
      if (!finite && !armed) return;
      armed = finite;
      const wait = finite ? BigInt(Math.max(1, Math.ceil(ns))) : 0n;
      timerValue[2] = wait / 1_000_000_000n;
      timerValue[3] = wait % 1_000_000_000n;
      timerSettime(timer[0]!, 0, timerValue, null);
    },
  };
}
