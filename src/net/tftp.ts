// The TFTP server of the virtual network, which only reads: RFC 1350; options blksize and tsize of RFC 2347 to 2349.

import { type Address, flowKey } from './address.ts';
import { get16, put16 } from './bytes.ts';
import type { HostFile, HostSockets } from './host.ts';
import type { Link } from './link.ts';
import { Timer } from './timer.ts';
import { type Datagram, sendUdp } from './udp.ts';

export const TFTP_PORT = 69;
const op = { read: 1, write: 2, data: 3, ack: 4, error: 5, options: 6 } as const;
const code = { other: 0, notFound: 1, denied: 2, illegal: 4 } as const;
/** Transfers at once; the oldest ends for one more. */
const TRANSFERS = 20;
const BLOCK = 512;
const SMALLEST = 8;
const HEADERS = 32;
/** ms until a packet is sent again, and how often. */
const AGAIN = 1000;
const TRIES = 8;
const LONGEST_NAME = 512;

interface Transfer {
  readonly guest: Address;
  readonly port: number;
  readonly server: Address;
  readonly file: HostFile;
  readonly block: number;
  /** Blocks that the guest has, and what was sent last. */
  got: number;
  last: Uint8Array;
  ended: boolean;
  reading: boolean;
  tries: number;
  readonly timer: Timer;
}

export class TftpServer {
  readonly #root: string;
  readonly #link: Link;
  readonly #host: HostSockets;
  readonly #mtu: number;
  readonly #transfers = new Map<string, Transfer>();
  /** Files that are being opened. */
  #opening = 0;
  #closed = false;

  constructor(root: string, mtu: number, link: Link, host: HostSockets) {
    this.#root = root;
    this.#mtu = mtu;
    this.#link = link;
    this.#host = host;
  }
  close(): void {
    this.#closed = true;
    for (const key of [...this.#transfers.keys()]) this.#end(key);
  }

  /** Takes a datagram for the server's port. */
  input(d: Datagram): void {
    const b = d.data;
    if (b.length < 4) return;
    const key = flowKey(d.src, d.srcPort, d.src, 0);
    switch (get16(b, 0)) {
      case op.read:
        this.#end(key);
        return void this.#begin(key, { ...d, src: d.src.slice(), dst: d.dst.slice(), data: b.slice() });
      case op.ack:
        return this.#acknowledged(key, get16(b, 2));
      case op.error:
        return this.#end(key);
      case op.write:
        return this.#refuse(d, code.denied, 'Access violation');
      default:
        return this.#refuse(d, code.illegal, 'Illegal TFTP operation');
    }
  }

  async #begin(key: string, d: Datagram): Promise<void> {
    const words = texts(d.data.subarray(2));
    const [name = '', mode = ''] = words;
    if (!['octet', 'netascii'].includes(mode.toLowerCase())) return this.#refuse(d, code.illegal, 'Unsupported transfer mode');
    const parts = name
      .replaceAll('\\', '/')
      .split('/')
      .filter((p) => p !== '' && p !== '.');
    const bad = name.length > LONGEST_NAME || parts.length === 0 || parts.includes('..');
    // Who asks for more at once will ask again.
    if (this.#opening >= TRANSFERS) return;
    this.#opening++;
    const file = bad ? undefined : await this.#host.file?.(this.#root, parts);
    this.#opening--;
    if (this.#closed) return void file?.close();
    if (!file) return this.#refuse(d, bad ? code.denied : code.notFound, bad ? 'Access violation' : 'File not found');
    // Two requests may have come meanwhile.
    this.#end(key);
    const answers: string[] = [];
    let block = BLOCK;
    for (let n = 2; n + 1 < words.length; n += 2) {
      const [option, value] = [words[n]!.toLowerCase(), Number(words[n + 1])];
      if (option === 'blksize' && value >= SMALLEST) {
        block = Math.min(Math.floor(value), this.#mtu - HEADERS);
        answers.push('blksize', String(block));
      } else if (option === 'tsize') answers.push('tsize', String(file.size));
    }
    const t: Transfer = {
      ...{ guest: d.src, port: d.srcPort, server: d.dst, file, block },
      ...{ got: 0, last: new Uint8Array(0), ended: false, reading: false, tries: 0 },
      timer: new Timer(this.#host, () => this.#retry(key)),
    };
    this.#transfers.set(key, t);
    if (this.#transfers.size > TRANSFERS) this.#end(this.#transfers.keys().next().value!);
    if (answers.length === 0) return this.#next(key, t);
    const text = new TextEncoder().encode(`${answers.join('\0')}\0`);
    const packet = new Uint8Array(2 + text.length);
    put16(packet, 0, op.options);
    packet.set(text, 2);
    t.got = -1;
    this.#say(t, packet);
  }

  #acknowledged(key: string, block: number): void {
    const t = this.#transfers.get(key);
    if (!t || t.reading || block !== ((t.got + 1) & 0xffff)) return;
    t.got++;
    t.tries = 0;
    if (t.ended) this.#end(key);
    else void this.#next(key, t);
  }
  /** Sends the block behind those that the guest has. */
  async #next(key: string, t: Transfer): Promise<void> {
    t.reading = true;
    const data = new Uint8Array(t.block);
    let length = 0;
    try {
      for (let n = 1; n > 0 && length < t.block; length += n)
        n = await t.file.read(t.got * t.block + length, data.subarray(length));
    } catch {
      if (this.#transfers.get(key) !== t) return;
      this.#refuse(
        { src: t.guest, srcPort: t.port, dst: t.server, dstPort: TFTP_PORT, data },
        code.other,
        'Cannot read the file',
      );
      return this.#end(key);
    }
    if (this.#transfers.get(key) !== t) return;
    t.reading = false;
    t.ended = length < t.block;
    const packet = new Uint8Array(4 + length);
    put16(packet, 0, op.data);
    put16(packet, 2, (t.got + 1) & 0xffff);
    packet.set(data.subarray(0, length), 4);
    this.#say(t, packet);
  }
  #say(t: Transfer, packet: Uint8Array): void {
    t.last = packet;
    t.timer.set(AGAIN);
    sendUdp(this.#link, { src: t.server, srcPort: TFTP_PORT, dst: t.guest, dstPort: t.port, data: packet });
  }
  #retry(key: string): void {
    const t = this.#transfers.get(key);
    if (!t) return;
    if (++t.tries > TRIES) this.#end(key);
    else if (!t.reading) this.#say(t, t.last);
  }
  #end(key: string): void {
    const t = this.#transfers.get(key);
    if (!t) return;
    this.#transfers.delete(key);
    t.timer.close();
    void t.file.close().catch(() => {});
  }
  #refuse(d: Datagram, error: number, text: string): void {
    const message = new TextEncoder().encode(`${text}\0`);
    const data = new Uint8Array(4 + message.length);
    put16(data, 0, op.error);
    put16(data, 2, error);
    data.set(message, 4);
    sendUdp(this.#link, { src: d.dst.slice(), srcPort: TFTP_PORT, dst: d.src.slice(), dstPort: d.srcPort, data });
  }
}

/** Words that a 0 ends each. */
function texts(b: Uint8Array): string[] {
  const out: string[] = [];
  for (let at = 0; at < b.length; ) {
    const end = b.indexOf(0, at);
    if (end < 0) break;
    out.push(new TextDecoder().decode(b.subarray(at, end)));
    at = end + 1;
  }
  return out;
}
