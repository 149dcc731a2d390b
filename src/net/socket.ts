// Cables between emulators: frames over a TCP or unix stream, or one per UDP datagram. QEMU 7.2 system manual, `-netdev socket`, `stream` and `dgram`.
// On a stream each frame has its length before it, 4 bytes in network order.
import { formatMac, parseAddress, sameAddress } from './address.ts';
import { maxFrame, type NetBackend } from './backend.ts';
import { get32, put32 } from './bytes.ts';
import type { HostAddress, HostListener, HostSockets, HostStream, HostUdp, StreamEvents } from './host.ts';

/** Largest length that is believed; QEMU's own limit. A stream that says more is no stream of frames. */
const maxLength = 65_536 + 4096;
/** Bytes that may wait for the host; frames beyond are lost, as on any busy cable. */
const maxUnsent = 1 << 20;
/** Shortest frame: an Ethernet header. */
const minFrame = 14;
/** Addresses of guests behind this end of a bus that are remembered. */
const maxOwn = 64;

/** Cuts a stream of bytes into frames. */
export class FrameReader {
  readonly #frame: (frame: Uint8Array) => void;
  readonly #head = new Uint8Array(4);
  #headLength = 0;
  #body: Uint8Array | undefined;
  #bodyLength = 0;

  /** `frame` gets each frame, which is its own only until it returns. */
  constructor(frame: (frame: Uint8Array) => void) {
    this.#frame = frame;
  }

  /** Takes the next bytes. False where they can't be frames: the stream is of no more use. */
  push(bytes: Uint8Array): boolean {
    let at = 0;
    while (at < bytes.length) {
      if (this.#body === undefined) {
        while (this.#headLength < 4 && at < bytes.length) this.#head[this.#headLength++] = bytes[at++];
        if (this.#headLength < 4) return true;
        this.#headLength = 0;
        const length = get32(this.#head, 0);
        if (length > maxLength) return false;
        if (bytes.length - at >= length) {
          this.#emit(bytes.subarray(at, at + length));
          at += length;
          continue;
        }
        this.#body = new Uint8Array(length);
        this.#bodyLength = 0;
      }
      const n = Math.min(this.#body.length - this.#bodyLength, bytes.length - at);
      this.#body.set(bytes.subarray(at, at + n), this.#bodyLength);
      this.#bodyLength += n;
      at += n;
      if (this.#bodyLength < this.#body.length) return true;
      const whole = this.#body;
      this.#body = undefined;
      this.#emit(whole);
    }
    return true;
  }

  #emit(frame: Uint8Array): void {
    if (frame.length >= minFrame) this.#frame(frame);
  }
}

/** A frame with its length before it. */
export function framed(frame: Uint8Array): Uint8Array {
  const b = new Uint8Array(4 + frame.length);
  put32(b, 0, frame.length);
  b.set(frame, 4);
  return b;
}

/** A stream that carries frames. `lost`: it ended, or what came was no frame. */
export class FramePipe {
  readonly events: StreamEvents;
  #stream: HostStream | undefined;
  #unsent = 0;

  constructor(receive: (frame: Uint8Array) => void, connected: () => void, lost: () => void) {
    const reader = new FrameReader(receive);
    const end = (): void => {
      const stream = this.#stream;
      if (stream === undefined) return;
      this.#stream = undefined;
      stream.reset();
      lost();
    };
    this.events = {
      connected,
      data: (bytes) => {
        if (this.#stream !== undefined && !reader.push(bytes)) end();
      },
      written: (count) => {
        this.#unsent -= count;
      },
      end,
      closed: end,
    };
  }

  /** The stream, as soon as the host has given it. */
  attach(stream: HostStream): void {
    this.#stream = stream;
    stream.resume();
  }

  send(frame: Uint8Array): void {
    if (this.#stream === undefined || frame.length < minFrame || frame.length > maxFrame || this.#unsent > maxUnsent) return;
    const b = framed(frame);
    this.#unsent += b.length;
    this.#stream.write(b);
  }

  /** Ends the stream; `lost` is not called. */
  close(): void {
    const stream = this.#stream;
    this.#stream = undefined;
    stream?.reset();
  }
}

export interface StreamNetOptions {
  readonly address: HostAddress;
  /** Waits for the other end instead of connecting to it. */
  readonly server: boolean;
  /** ms after which a lost connection is tried again; without it a client stays unconnected. */
  readonly reconnect?: number;
}

export interface SocketNet extends NetBackend {
  /** Whether the other end is there. */
  readonly connected: boolean;
  /** The socket is bound, for a server; at once for a client. Rejects with what the host refused. Gives the bound port. */
  readonly ready: Promise<number>;
}

/** `-netdev stream` and `-netdev socket,listen=|connect=`: a cable to one other end. A server takes one at a time, and the next when that is gone. */
export function createStreamNet(options: StreamNetOptions, host: HostSockets): SocketNet {
  return new StreamNet(options, host);
}

class StreamNet implements SocketNet {
  receive: (frame: Uint8Array) => void = () => {};
  connected = false;
  readonly ready: Promise<number>;
  readonly #o: StreamNetOptions;
  readonly #host: HostSockets;
  #pipe: FramePipe | undefined;
  #listener: HostListener | undefined;
  #retry: (() => void) | undefined;
  #closed = false;

  constructor(options: StreamNetOptions, host: HostSockets) {
    this.#o = options;
    this.#host = host;
    this.ready = options.server ? this.#listen() : Promise.resolve(0);
    this.ready.catch(() => {});
    if (!options.server) this.#connect();
  }

  send(frame: Uint8Array): void {
    if (this.connected) this.#pipe?.send(frame);
  }

  #newPipe(): FramePipe {
    const pipe: FramePipe = new FramePipe(
      (frame) => this.receive(frame),
      () => {
        this.connected = true;
      },
      () => {
        this.connected = false;
        if (this.#pipe === pipe) this.#pipe = undefined;
        if (this.#closed || this.#o.server || this.#o.reconnect === undefined) return;
        this.#retry = this.#host.after(this.#o.reconnect, () => this.#connect());
      },
    );
    this.#pipe = pipe;
    return pipe;
  }

  #connect(): void {
    const pipe = this.#newPipe();
    pipe.attach(this.#host.connect(this.#o.address, pipe.events));
  }

  async #listen(): Promise<number> {
    const listener = await this.#host.listen(this.#o.address, (stream) => {
      if (this.#pipe !== undefined || this.#closed) return undefined;
      const pipe = this.#newPipe();
      this.connected = true;
      pipe.attach(stream);
      return pipe.events;
    });
    if (this.#closed) listener.close();
    this.#listener = listener;
    return listener.port;
  }

  close(): void {
    this.#closed = true;
    this.connected = false;
    this.#retry?.();
    this.#pipe?.close();
    this.#listener?.close();
  }
}

export interface DgramNetOptions {
  /** Where datagrams come in; for a bus, the group's port. */
  readonly local?: { readonly host: string; readonly port: number };
  /** Where frames go, numeric; a multicast address makes a bus of all that join it. */
  readonly remote: { readonly host: string; readonly port: number };
  readonly multicast?: boolean;
}

/** `-netdev dgram` and `-netdev socket,mcast=|udp=`: one frame per datagram. */
export function createDgramNet(options: DgramNetOptions, host: HostSockets): NetBackend & { readonly ready: Promise<number> } {
  const { local, remote, multicast = false } = options;
  const to = parseAddress(remote.host);
  if (to === undefined) throw new Error(`Cannot send frames to ${remote.host}: a numeric address is accepted`);
  // A bus gives back one's own frames; only the sender's MAC tells them.
  const own = new Set<string>();
  let socket: HostUdp | undefined;
  let bound: (port: number) => void = () => {};
  let refused: (e: Error) => void = () => {};
  const ready = new Promise<number>((resolve, reject) => {
    bound = resolve;
    refused = reject;
  });
  ready.catch(() => {});
  const net = {
    receive: (_: Uint8Array): void => {},
    ready,
    send(frame: Uint8Array): void {
      if (frame.length < minFrame || frame.length > 65_507) return;
      if (multicast) {
        const mac = formatMac(frame.subarray(6, 12));
        own.delete(mac);
        own.add(mac);
        if (own.size > maxOwn) own.delete(own.values().next().value!);
      }
      socket?.send(frame.slice(), remote.host, remote.port);
    },
    close(): void {
      socket?.close();
      socket = undefined;
    },
  };
  socket = host.udp(
    {
      family: to.length === 4 ? 4 : 6,
      address: multicast ? undefined : local?.host,
      port: multicast ? remote.port : local?.port,
      ...(multicast ? { multicast: remote.host, interface: local?.host } : {}),
    },
    {
      bound: (port) => bound(port),
      failed: (message) => refused(new Error(`Cannot open the UDP socket for ${remote.host}:${remote.port}: ${message}`)),
      message(frame, address, port) {
        if (frame.length < minFrame || socket === undefined) return;
        if (multicast) {
          if (!own.has(formatMac(frame.subarray(6, 12)))) net.receive(frame);
          return;
        }
        const from = parseAddress(address);
        if (from !== undefined && port === remote.port && sameAddress(from, to)) net.receive(frame);
      },
    },
  );
  return net;
}
