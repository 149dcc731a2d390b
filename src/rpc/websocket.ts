// The server's side of WebSocket over any byte stream: opening handshake and frames. RFC 6455.

/** Longest message that is put together, and longest request of a handshake. */
const HEAD_MAX = 16 << 10;
const GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';

const Opcode = { continuation: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 } as const;

export interface WebSocketOptions {
  /** SHA-1 in base64. */
  readonly sha1: (text: string) => string;
  /** Subprotocols that are spoken, best first; one of the client's is chosen where it names any. */
  readonly protocols: readonly string[];
  /** Payload of the client, as it comes. */
  readonly data: (bytes: Uint8Array) => void;
  /** Bytes for the client. */
  readonly send: (bytes: Uint8Array) => void;
  /** The conversation is over, for this reason. */
  readonly end: (why: string) => void;
}

/** One connection. Frames' payloads are passed on in pieces: nothing but a frame's head is ever kept. */
export class WebSocketServer {
  readonly #o: WebSocketOptions;
  #held: Uint8Array = new Uint8Array(0);
  #open = false;
  #ended = false;
  // The frame that is being read.
  #left = 0;
  #opcode = 0;
  #mask = new Uint8Array(4);
  #at = 0;
  #control: number[] = [];

  constructor(o: WebSocketOptions) {
    this.#o = o;
  }

  /** Whether the handshake is done. */
  get open(): boolean {
    return this.#open;
  }

  /** Bytes of the client. */
  receive(bytes: Uint8Array): void {
    if (this.#ended) return;
    const joined = new Uint8Array(this.#held.length + bytes.length);
    joined.set(this.#held);
    joined.set(bytes, this.#held.length);
    this.#held = joined;
    if (!this.#open && !this.#handshake()) return;
    while (!this.#ended && this.#frame());
  }

  /** A frame with payload for the client. */
  static frame(payload: Uint8Array, opcode: number = Opcode.binary): Uint8Array<ArrayBuffer> {
    const n = payload.length;
    const head = n < 126 ? 2 : n < 0x10000 ? 4 : 10;
    const out = new Uint8Array(head + n);
    const view = new DataView(out.buffer);
    out[0] = 0x80 | opcode;
    if (head === 2) out[1] = n;
    else if (head === 4) {
      out[1] = 126;
      view.setUint16(2, n);
    } else {
      out[1] = 127;
      view.setBigUint64(2, BigInt(n));
    }
    out.set(payload, head);
    return out;
  }

  #end(why: string): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#held = new Uint8Array(0);
    this.#o.end(why);
  }

  // ── Opening handshake, section 4.2 ──

  #handshake(): boolean {
    const text = new TextDecoder('latin1').decode(this.#held.subarray(0, HEAD_MAX));
    const end = text.indexOf('\r\n\r\n');
    if (end < 0) {
      if (this.#held.length >= HEAD_MAX) this.#reject('400 Bad Request', 'the request has no end');
      return false;
    }
    this.#held = this.#held.subarray(end + 4);
    const [request = '', ...lines] = text.slice(0, end).split('\r\n');
    const headers = new Map(
      lines.map((line) => {
        const colon = line.indexOf(':');
        return [line.slice(0, colon).trim().toLowerCase(), line.slice(colon + 1).trim()] as const;
      }),
    );
    const key = headers.get('sec-websocket-key');
    const upgrades = /\bwebsocket\b/i.test(headers.get('upgrade') ?? '');
    if (
      !/^GET \S+ HTTP\/1\.1$/.test(request) ||
      !upgrades ||
      key === undefined ||
      headers.get('sec-websocket-version') !== '13'
    ) {
      this.#reject('426 Upgrade Required', 'no WebSocket was asked for');
      return false;
    }
    const offered = (headers.get('sec-websocket-protocol') ?? '').split(',').map((p) => p.trim());
    const chosen = this.#o.protocols.find((p) => offered.includes(p));
    const answer = [
      'HTTP/1.1 101 Switching Protocols',
      'Upgrade: websocket',
      'Connection: Upgrade',
      `Sec-WebSocket-Accept: ${this.#o.sha1(key + GUID)}`,
      ...(chosen === undefined ? [] : [`Sec-WebSocket-Protocol: ${chosen}`]),
    ];
    this.#o.send(new TextEncoder().encode(`${answer.join('\r\n')}\r\n\r\n`));
    this.#open = true;
    return true;
  }

  #reject(status: string, why: string): void {
    this.#o.send(
      new TextEncoder().encode(`HTTP/1.1 ${status}\r\nUpgrade: websocket\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`),
    );
    this.#end(why);
  }

  // ── Frames, section 5.2 ──

  /** Reads a head, or payload; false while bytes are missing. */
  #frame(): boolean {
    return this.#left > 0 ? this.#payload() : this.#head();
  }

  #head(): boolean {
    const b = this.#held;
    if (b.length < 2) return false;
    const short = b[1]! & 0x7f;
    const size = short === 126 ? 4 : short === 127 ? 10 : 2;
    if (b[0]! & 0x70 || !(b[1]! & 0x80)) return this.#fail('a frame is not masked, or uses extensions');
    if (b.length < size + 4) return false;
    const opcode = b[0]! & 15;
    const view = new DataView(b.buffer, b.byteOffset);
    const length = short === 126 ? view.getUint16(2) : short === 127 ? Number(view.getBigUint64(2)) : short;
    if (opcode >= 8 && (length > 125 || !(b[0]! & 0x80))) return this.#fail('a control frame is too long, or in pieces');
    if (opcode > 2 && opcode < 8) return this.#fail(`a frame has opcode ${opcode}`);
    if (!Number.isSafeInteger(length)) return this.#fail('a frame is too long');
    this.#mask = b.slice(size, size + 4);
    this.#held = b.subarray(size + 4);
    this.#opcode = opcode;
    this.#left = length;
    this.#at = 0;
    this.#control = [];
    if (length === 0) this.#finish();
    return true;
  }

  #payload(): boolean {
    const n = Math.min(this.#left, this.#held.length);
    if (n === 0) return false;
    const bytes = this.#held.slice(0, n);
    for (let i = 0; i < n; i++) bytes[i]! ^= this.#mask[(this.#at + i) & 3]!;
    this.#held = this.#held.subarray(n);
    this.#left -= n;
    this.#at += n;
    if (this.#opcode < 8) this.#o.data(bytes);
    else this.#control.push(...bytes);
    if (this.#left === 0) this.#finish();
    return true;
  }

  #finish(): void {
    const payload = Uint8Array.from(this.#control);
    if (this.#opcode === Opcode.ping) this.#o.send(WebSocketServer.frame(payload, Opcode.pong));
    else if (this.#opcode === Opcode.close) {
      this.#o.send(WebSocketServer.frame(payload.subarray(0, 2), Opcode.close));
      this.#end('the client closed');
    }
  }

  #fail(why: string): false {
    // 1002: protocol error.
    this.#o.send(WebSocketServer.frame(Uint8Array.of(0x03, 0xea), Opcode.close));
    this.#end(why);
    return false;
  }
}
