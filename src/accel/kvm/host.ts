// What the KVM accelerator needs of its host: the device, ioctls, mappings, and a way to interrupt a thread that runs a guest.

/** Calls of the host. All of them are synchronous; descriptors are the process's, so every thread may use them. */
export interface KvmHost {
  /**
   * Opens /dev/kvm.
   * @throws Error, one line on what is missing and what to do
   */
  open(): number;
  /** The result of ioctl(2), or minus the error number. Bytes are passed by address and may be changed. */
  ioctl(fd: number, request: number, argument: number | bigint | Uint8Array): number;
  /** Maps `length` bytes of a descriptor from `offset` on, shared, for reading and writing. */
  map(fd: number, length: number, offset?: number): ArrayBuffer;
  /** Takes a mapping back: nobody may look at it afterwards. */
  unmap(area: ArrayBuffer): void;
  close(fd: number): void;
  /** Address of bytes in this process. They must stay alive while the kernel uses it. */
  address(bytes: Uint8Array): bigint;
  /** The bytes of a signal set in which every signal but the one that `interrupt` sends is blocked as this thread has it. */
  runMask(): Uint8Array;
  /** This thread's id. Blocks the signal of `interrupt` in it, so that it only ever ends a run of the guest. */
  prepareThread(): number;
  /** This thread's timer, for `freeTimer` on another one once this is gone. */
  timer(): number;
  /** Takes back what `prepareThread` has made but the blocking of the signal. */
  endThread(): void;
  freeTimer(timer: number): void;
  /** Takes mapped memory back by its address, as `unmap` does. */
  unmapAt(address: bigint, length: number): void;
  /** Makes the thread leave the guest, now or at its next entry. */
  interrupt(tid: number): void;
  /** Forgets an interruption of this thread that has been seen. */
  clearInterrupt(): void;
  /** A set of eventfds for a thread to wait for. */
  waitSet(): number;
  /** A new eventfd in a set, told apart by `tag`; a negative error. */
  eventfd(set: number, tag: number): number;
  signal(eventfd: number): void;
  /** Waits until eventfds of the set were signalled, or `ms`; how many `tags` of them there are. Each signal is told once. */
  wait(set: number, tags: Uint32Array, ms: number): number;
  /** Interrupts this thread after `ns`; a former request is replaced. `Infinity` takes it back. */
  interruptIn(ns: number): void;
}
