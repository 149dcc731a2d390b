// Packets of libvirt's RPC: a length, a header of six words, a body. libvirt "RPC protocol" (docs/kbase/internals/rpc), libvirt 9.0.
import { enumeration, int, struct, unsigned, type ValueOf, XdrReader, XdrWriter } from './xdr.ts';

/** Program numbers on the wire. */
export const programNumbers = {
  remote: 0x2000_8086,
  qemu: 0x2000_8087,
  lxc: 0x2000_8088,
  keepalive: 0x6b65_6570,
  admin: 0x0690_0690,
} as const;

const header = struct({
  program: unsigned,
  version: unsigned,
  procedure: int,
  type: enumeration({ call: 0, reply: 1, message: 2, stream: 3, callWithFds: 4, replyWithFds: 5, streamHole: 6 }),
  serial: unsigned,
  status: enumeration({ ok: 0, error: 1, continue: 2 }),
});
export type Header = ValueOf<typeof header>;
export type PacketType = Header['type'];
export type PacketStatus = Header['status'];

export interface Packet extends Header {
  /** How many file descriptors the sender announced: 0 to 32. They themselves are the transport's matter. */
  readonly fds: number;
  /** May share memory with the chunk that it came in. */
  readonly body: Uint8Array;
}

const lengthBytes = 4;
const headerBytes = 24;
const smallChunk = 16_384;
/** Bytes of header and body together. */
export const maxMessage = 33_554_432;
/** Bytes of a body. */
export const maxBody = maxMessage - headerBytes;
/** Bytes of a stream's data packet that every client takes, old ones included. */
export const maxStreamData = 262_120;
/** File descriptors with one packet. */
export const maxFds = 32;

/** Bytes that can't be a packet; the connection has no way to go on. */
export class PacketError extends Error {}

/**
 * The bytes of one packet; `body` writes what follows the header.
 * @throws {XdrError} for a value that the body's codec refuses. @throws {PacketError} for a body over `maxBody`.
 */
export function encodePacket(head: Header, body: (w: XdrWriter) => void): Uint8Array<ArrayBuffer> {
  const w = new XdrWriter();
  w.u32(0);
  header.encode(w, head);
  body(w);
  if (w.length - lengthBytes > maxMessage) {
    throw new PacketError(`Cannot send packet: ${w.length - lengthBytes} bytes, at most ${maxMessage} accepted`);
  }
  w.patch(0, w.length);
  return w.take();
}

/** Cuts a byte stream, in chunks of any size, into packets. After a PacketError it must not be used again. */
export class PacketParser {
  /** Bytes of header and body that are accepted now; lower it for peers that are not trusted yet. */
  limit: number;
  #chunks: Uint8Array[] = [];
  #have = 0;

  constructor(limit = maxMessage) {
    this.limit = limit;
  }
  push(chunk: Uint8Array): void {
    if (chunk.length === 0) return;
    this.#have += chunk.length;
    let last = chunk;
    // Many tiny chunks would cost far more than their bytes: they are joined in pairs of a size.
    for (let before = this.#chunks.at(-1); before !== undefined; before = this.#chunks.at(-1)) {
      if (before.length >= smallChunk || before.length > 2 * last.length) break;
      const joined = new Uint8Array(before.length + last.length);
      joined.set(before);
      joined.set(last, before.length);
      last = joined;
      this.#chunks.pop();
    }
    this.#chunks.push(last);
  }
  /** The next whole packet, if it has come. @throws {PacketError} */
  next(): Packet | undefined {
    if (this.#have < lengthBytes) return undefined;
    const length = new XdrReader(this.#front(lengthBytes)).u32();
    const payload = length - lengthBytes;
    if (payload < headerBytes || payload > this.limit) {
      throw new PacketError(
        `Cannot read packet: length ${length}, ${headerBytes + lengthBytes} to ${this.limit + lengthBytes} accepted`,
      );
    }
    if (this.#have < length) return undefined;
    const r = new XdrReader(this.#front(length).subarray(lengthBytes, length));
    const head = this.#header(r);
    let fds = 0;
    if (head.type === 'callWithFds' || head.type === 'replyWithFds') {
      if (r.left < 4) throw new PacketError('Cannot read packet: no count of file descriptors');
      fds = r.u32();
      if (fds > maxFds) throw new PacketError(`Cannot read packet: ${fds} file descriptors, at most ${maxFds} accepted`);
    }
    // Each descriptor travels with one byte of its own behind the packet.
    if (this.#have < length + fds) return undefined;
    const body = r.rest();
    this.#drop(length + fds);
    return { ...head, fds, body };
  }
  #header(r: XdrReader): Header {
    try {
      return header.decode(r);
    } catch (error) {
      throw new PacketError(`Cannot read packet: ${(error as Error).message}`);
    }
  }
  /** The first chunk, after joining as many as `length` bytes take. */
  #front(length: number): Uint8Array {
    const first = this.#chunks[0]!;
    if (first.length >= length) return first;
    const joined = new Uint8Array(this.#have);
    let at = 0;
    for (const chunk of this.#chunks) {
      joined.set(chunk, at);
      at += chunk.length;
    }
    this.#chunks = [joined];
    return joined;
  }
  #drop(length: number): void {
    let left = length;
    while (left > 0) {
      const first = this.#chunks[0]!;
      if (first.length > left) {
        this.#chunks[0] = first.subarray(left);
        break;
      }
      this.#chunks.shift();
      left -= first.length;
    }
    this.#have -= length;
  }
}
