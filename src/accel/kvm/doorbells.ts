// ioeventfds: writes of the guest that only ring a doorbell end in the kernel, which signals an eventfd; a thread that waits for all of them
// rings in the guest's place. The vCPU does not leave the guest. Linux 6.1, Documentation/virt/kvm/api.rst, KVM_IOEVENTFD.

import { struct, type ViewOf } from '../../bits/struct.ts';
import { ringWords } from '../../bus/doorbell.ts';
import { Lock, lockLayout } from '../../bus/lock.ts';
import type { PlacedBell } from '../../bus/space.ts';
import type { MemoryLayout } from '../accel.ts';
import { block, ioctls, ioeventfdFlag, ioeventfdLayout } from './abi.ts';
import type { KvmHost } from './host.ts';
import type { KvmVm } from './vm.ts';

/** Doorbells that the kernel takes; further ones leave the guest as other accesses do. */
const BELLS_MAX = 256;
/** The tag of the eventfd by which the thread that waits is told to look up. */
const CLOSE = BELLS_MAX;
/** Longest sleep of that thread, in ms: so long may the process's end take. */
const LOOK_MS = 500;
/** Its sleep, in ms, after it woke for what had been rung already: a guest that rings without end costs little. */
const PAUSE_MS = 1;
/** In `match`: any value. */
const ANY = -1;

const entryLayout = struct({
  address: 'f64',
  match: 'f64',
  /** Places of the words (`BellWords`) in the machine's memory. */
  kicked: 'u32',
  flag: 'u32',
  rung: 'u32',
  /** The eventfd; 0 for a free entry. */
  fd: 'u32',
  ports: 'u8',
  size: 'u8',
});
type Entry = ViewOf<typeof entryLayout>;
/** What is installed. Every thread of the machine sees it; changes need `lock`, and the board's. */
export const doorbellsLayout = struct({
  lock: lockLayout,
  closed: ['i32', 1],
  /** 1 from `open` to `close`: the kernel takes none before. */
  heard: ['i32', 1],
  closer: 'u32',
  entries: [entryLayout, BELLS_MAX],
});

/** What tells two doorbells apart. */
const keyOf = (e: { address: number; match: number; kicked: number; ports: number; size: number }): string =>
  `${e.ports} ${e.address} ${e.size} ${e.match} ${e.kicked}`;

export class KvmDoorbells {
  readonly #vm: Pick<KvmVm, 'host' | 'share'>;
  readonly #buffer: SharedArrayBuffer;
  readonly #s: ViewOf<typeof doorbellsLayout>;
  readonly #lock: Lock;

  /** `thread` is a number of this thread, from 1, that no other thread of the process has. */
  constructor(vm: Pick<KvmVm, 'host' | 'share'>, buffer: SharedArrayBuffer, layout: MemoryLayout, thread: number) {
    this.#vm = vm;
    this.#buffer = buffer;
    this.#s = doorbellsLayout.view(buffer, layout.doorbells);
    this.#lock = new Lock(this.#s.lock, thread);
  }
  get #host(): KvmHost {
    return this.#vm.host;
  }

  /** Somebody hears them: without, there is nothing to update. */
  get heard(): boolean {
    return Atomics.load(this.#s.heard, 0) !== 0;
  }
  /** Has the kernel take the writes that are listed, and no others, while somebody hears them; whether it takes new ones since. With the board's lock held. */
  update(wanted: readonly PlacedBell[]): boolean {
    const { waits } = this.#vm.share;
    if (waits === undefined || !this.heard) return false;
    let more = false;
    const missing = new Map(
      wanted.slice(0, BELLS_MAX).map(({ space, address, size, match, words }) => {
        const [kicked, flag, rung] = [words.kicked.byteOffset, words.flag.byteOffset, words.rung.byteOffset];
        const row = { address, match: match ?? ANY, kicked, flag, rung, ports: space === 'ports' ? 1 : 0, size };
        return [keyOf(row), row] as const;
      }),
    );
    this.#lock.run(() => {
      for (const e of this.#s.entries) {
        if (e.fd === 0 || missing.delete(keyOf(e))) continue;
        this.#tell(e, ioeventfdFlag.deassign);
        this.#host.close(e.fd);
        e.fd = 0;
      }
      for (const row of missing.values()) {
        const tag = this.#s.entries.findIndex((e) => e.fd === 0);
        if (tag < 0) return;
        const fd = this.#host.eventfd(waits, tag);
        if (fd <= 0) return;
        const e = Object.assign(this.#s.entries[tag]!, row, { fd });
        if (this.#tell(e, 0) >= 0) more = true;
        else {
          // The kernel has room for no more: this one leaves the guest.
          this.#host.close(fd);
          e.fd = 0;
        }
      }
    });
    return more;
  }
  #tell(e: Entry, flags: number): number {
    const { bytes, view } = block(ioeventfdLayout);
    view.addr = BigInt(e.address);
    view.len = e.size;
    view.fd = e.fd;
    view.datamatch = e.match === ANY ? 0n : BigInt(e.match);
    view.flags = flags | (e.match === ANY ? 0 : ioeventfdFlag.datamatch) | (e.ports ? ioeventfdFlag.pio : 0);
    return this.#host.ioctl(this.#vm.share.vm, ioctls.ioeventfd.request, bytes);
  }

  /** Doorbells that the kernel takes now. */
  get count(): number {
    return this.#s.entries.filter((e) => e.fd !== 0).length;
  }

  /** Waits for doorbells and rings them until `close`. Only on a thread that does nothing else. */
  serve(): void {
    const { waits } = this.#vm.share;
    const { closed } = this.#s;
    if (waits === undefined) return;
    const tags = new Uint32Array(64);
    while (Atomics.load(closed, 0) === 0) {
      const count = this.#host.wait(waits, tags, LOOK_MS);
      if (count > 0 && !this.#ring(tags.subarray(0, count))) Atomics.wait(closed, 0, 0, PAUSE_MS);
    }
  }
  /** False where all of them had been rung before. */
  #ring(tags: Uint32Array): boolean {
    return this.#lock.run(() => {
      let fresh = false;
      for (const tag of tags) {
        const e = this.#s.entries[tag];
        // It may have gone since.
        if (!e || e.fd === 0) continue;
        const word = (at: number): Int32Array => new Int32Array(this.#buffer, at, 1);
        fresh = ringWords({ kicked: word(e.kicked), flag: word(e.flag), rung: word(e.rung) }) || fresh;
      }
      return fresh;
    });
  }
  /** Before `serve` on another thread. */
  open(): void {
    const { waits } = this.#vm.share;
    if (waits === undefined) return;
    Atomics.store(this.#s.closed, 0, 0);
    Atomics.store(this.#s.heard, 0, 1);
    this.#s.closer = Math.max(0, this.#host.eventfd(waits, CLOSE));
  }
  /** Ends `serve`, and takes all from the kernel. */
  close(): void {
    this.update([]);
    Atomics.store(this.#s.heard, 0, 0);
    Atomics.store(this.#s.closed, 0, 1);
    Atomics.notify(this.#s.closed, 0);
    if (this.#s.closer === 0) return;
    this.#host.signal(this.#s.closer);
    this.#host.close(this.#s.closer);
    this.#s.closer = 0;
  }
}
