// Descriptors over unix sockets, which Node has not: sendmsg with SCM_RIGHTS through koffi. unix(7), cmsg(3), Linux with 64-bit pointers.

import { loadKoffi } from './koffi.ts';

interface Koffi {
  load(path: string): { func(signature: string): (...args: unknown[]) => number };
  address(value: Uint8Array): bigint;
}

const F_SETFL = 4;
const O_RDWR = 2;
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
/** `struct msghdr`, `struct iovec` and a control message with one descriptor. */
const sizes = { message: 56, vector: 16, control: 24 } as const;
const controlLength = 20;

/** Sends one byte with a descriptor; false when the socket takes nothing now. Undefined where this can't be done. */
export function fdPasser(): ((socket: number, fd: number, carrier: number) => boolean) | undefined {
  if (process.platform !== 'linux' || !['x64', 'arm64', 'riscv64', 'ppc64'].includes(process.arch)) return undefined;
  let koffi: Koffi;
  let sendmsg: (...args: unknown[]) => number;
  let fcntl: (...args: unknown[]) => number;
  try {
    koffi = loadKoffi<Koffi>();
    const libc = koffi.load('libc.so.6');
    sendmsg = libc.func('long sendmsg(int fd, void *message, int flags)');
    fcntl = libc.func('int fcntl(int fd, int command, int value)');
  } catch {
    return undefined;
  }
  const native = new DataView(new Uint32Array([1]).buffer).getUint8(0) === 1;
  // Memory that does not move: each has a buffer of its own.
  const area = (bytes: number) => {
    const array = new Uint8Array(new ArrayBuffer(bytes));
    return { array, view: new DataView(array.buffer), address: koffi.address(array) };
  };
  return (socket, fd, carrier) => {
    if (socket < 0) throw new Error('the connection is closed');
    // Node's descriptors do not wait; whoever gets this one may expect that it does.
    fcntl(fd, F_SETFL, O_RDWR);
    const byte = area(1);
    byte.array[0] = carrier;
    const vector = area(sizes.vector);
    vector.view.setBigUint64(0, byte.address, native);
    vector.view.setBigUint64(8, 1n, native);
    const control = area(sizes.control);
    control.view.setBigUint64(0, BigInt(controlLength), native);
    control.view.setInt32(8, SOL_SOCKET, native);
    control.view.setInt32(12, SCM_RIGHTS, native);
    control.view.setInt32(16, fd, native);
    const message = area(sizes.message);
    message.view.setBigUint64(16, vector.address, native);
    message.view.setBigUint64(24, 1n, native);
    message.view.setBigUint64(32, control.address, native);
    message.view.setBigUint64(40, BigInt(sizes.control), native);
    const sent = Number(sendmsg(socket, message.array, MSG_DONTWAIT | MSG_NOSIGNAL));
    // The areas must live until here.
    return sent === 1 && byte.array.length + vector.array.length + control.array.length > 0;
  };
}
