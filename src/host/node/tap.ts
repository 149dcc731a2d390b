// Tap devices of the host: each read is a frame for the guest, each write one from it. Linux: Documentation/networking/tuntap.rst.
// A thread waits for frames, since Node cannot wait for a character device; frames to the host are written in place, which never blocks for long.

import { closeSync, openSync, writevSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import { maxFrame, type NetBackend } from '../../net/backend.ts';
import { type Libc, libc } from './libc.ts';
import { sibling } from './sibling.ts';
import type { TapFrames, TapWork } from './tap-worker.ts';

const WORKER = sibling('tap-worker', import.meta.url);

export const TUN = '/dev/net/tun';
// include/uapi/linux/if_tun.h
const TUNSETIFF = 0x400454ca;
const TUNGETIFF = 0x800454d2;
const TUNSETOFFLOAD = 0x400454d0;
const TUNGETVNETHDRSZ = 0x800454d7;
const IFF_TAP = 0x0002;
const IFF_NO_PI = 0x1000;
const IFF_VNET_HDR = 0x4000;
/** struct ifreq: the name, then the flags. */
const ifreqSize = 40;
const nameSize = 16;

/** Opens the host's device of that name, or makes one that ends with this process; `tap%d` chooses a free name. */
function openDevice(c: Libc, ifname: string, given: number | undefined): number {
  if (ifname.length >= nameSize)
    throw new Error(`could not configure tap device ${ifname}: names have up to ${nameSize - 1} characters`);
  let fd: number;
  try {
    fd = given ?? openSync(TUN, 'r+');
  } catch (error) {
    throw new Error(`could not open /dev/net/tun: ${(error as Error).message}`);
  }
  const request = new Uint8Array(ifreqSize);
  request.set(Buffer.from(ifname, 'latin1'));
  new DataView(request.buffer).setUint16(nameSize, IFF_TAP | IFF_NO_PI, true);
  const error = c.ioctl(fd, TUNSETIFF, request);
  if (error === 0) return fd;
  closeSync(fd);
  throw new Error(`could not configure /dev/net/tun (${ifname}): ${reasons[error] ?? `error ${error}`}`);
}
const reasons: Readonly<Record<number, string>> = {
  1: 'not permitted',
  16: 'device in use',
  22: 'not a tap device of one queue',
};

/** Bytes before each frame of a device that came as a descriptor: it may be of a kind that speaks of offloads (`virtio_net_hdr`). */
function headerOf(c: Libc, fd: number): number {
  const request = new Uint8Array(ifreqSize);
  if (c.ioctl(fd, TUNGETIFF, request) !== 0) throw new Error(`descriptor ${fd} is no tap device`);
  const flags = new DataView(request.buffer).getUint16(nameSize, true);
  if ((flags & IFF_TAP) === 0 || (flags & IFF_NO_PI) === 0)
    throw new Error(`descriptor ${fd} is a tun device or has packet information: accepted is IFF_TAP with IFF_NO_PI`);
  // Whole frames with their checksums, whatever its last user took.
  c.ioctl(fd, TUNSETOFFLOAD, 0);
  if ((flags & IFF_VNET_HDR) === 0) return 0;
  const size = new Uint8Array(4);
  return c.ioctl(fd, TUNGETVNETHDRSZ, size) === 0 ? new DataView(size.buffer).getInt32(0, true) : 10;
}

/** `admitted` gives the device of all taps, open, where this process may not open it. @throws {Error} in one line, when the host has no such device or does not let it be used */
export function openTap(
  { fd: given, ifname }: { readonly fd?: number; readonly ifname?: string },
  admitted?: () => number | undefined,
): NetBackend {
  const c = libc();
  if (!c) throw new Error('this host has no tap devices');
  const fd = given ?? openDevice(c, ifname ?? 'tap%d', admitted?.());
  const header = given === undefined ? 0 : headerOf(c, fd);
  const blank = new Uint8Array(header);
  const [ended, end] = c.pipe();
  // A word that holds the reader back while frames wait here.
  const gate = new Int32Array(new SharedArrayBuffer(4));
  const workerData: TapWork = { fd, ended, header, gate, size: header + maxFrame };
  const worker = new Worker(WORKER, { workerData, stdin: false });
  worker.unref();
  let open = true;
  // A thread that blocks in a call keeps the process from ending.
  const stop = (): void => {
    if (!open) return;
    open = false;
    closeSync(end);
    Atomics.store(gate, 0, 0);
    Atomics.notify(gate, 0);
  };
  process.once('exit', stop);
  worker.once('exit', () => {
    stop();
    process.off('exit', stop);
    closeSync(fd);
    closeSync(ended);
  });
  const backend: NetBackend = {
    send(frame) {
      if (!open) return;
      try {
        if (header === 0) writevSync(fd, [frame]);
        else writevSync(fd, [blank, frame]);
      } catch {
        // The device is down or its queue is full: the frame is lost, as on a cable.
      }
    },
    receive: () => {},
    close: stop,
  };
  worker.on('message', ({ bytes, lengths }: TapFrames) => {
    let at = 0;
    for (const length of lengths) {
      if (open) backend.receive(bytes.subarray(at, at + length));
      at += length;
    }
    Atomics.sub(gate, 0, 1);
    Atomics.notify(gate, 0);
  });
  worker.on('error', () => {});
  return backend;
}
