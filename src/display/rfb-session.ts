// One VNC client from its first byte to its last: handshake, what it asks for, what it is sent. RFC 6143, section 7; rfbproto.rst for the extensions.
import { type Deflater, Encoder, type EncodingName, encodings, type PixelRect, WIDTH_MAX } from '../rpc/rfb/encode.ts';
import { PixelWriter } from '../rpc/rfb/pixels.ts';
import {
  type ClientMessage,
  ClientMessages,
  COMPRESS_HIGH,
  COMPRESS_LOW,
  colourMap,
  Encoding,
  endOfContinuousUpdates,
  Fence,
  fence,
  isUsable,
  mappedFormat,
  message,
  QUALITY_HIGH,
  QUALITY_LOW,
  reason,
  rectHeader,
  Security,
  serverFormat,
  serverInit,
  updateHeader,
  VeNCrypt,
} from '../rpc/rfb/protocol.ts';
import { SCRAM, type ScramCrypto, type ScramExchange, type ScramUsers, scramFirst, scramLast } from '../rpc/scram.ts';
import { ABSOLUTE_MAX, type Button, type InputEvent, type InputSink } from './input.ts';
import { keyNumbered, keyOfKeysym } from './keys.ts';
import type { Screen } from './screen.ts';
import { Damage, type PointerShape, type Rect } from './surface.ts';

/** The bytes' way to the client. */
export interface RfbTransport {
  /** Resolves when the bytes are on their way and more may come; rejects, or resolves, when the connection is gone. */
  write(bytes: Uint8Array): Promise<void>;
  /**
   * Sends the last bytes as they are; all that follows, both ways, is under TLS. Absent where there is none, or it was made before. Rejects with
   * one line; resolves with the name in the client's certificate, where it has shown one.
   */
  secure?(last: Uint8Array): Promise<string | undefined>;
  /** Of a connection that is under TLS from its beginning: the name in the client's certificate, where one was asked for. */
  readonly dname?: string | undefined;
  close(): void;
}

/** Who may come in by SASL. */
export interface RfbSasl {
  readonly crypto: ScramCrypto;
  /** As they are now. @throws Error with one line where they cannot be read */
  readonly users: () => ScramUsers;
}

/** What a client finds behind its connection. */
export interface RfbService {
  readonly screen: Screen;
  readonly input: InputSink;
  readonly name: string;
  /** Asks for the password; its check of the answer to a challenge. Undefined where nobody is asked. */
  readonly password?: () => ((challenge: Uint8Array, answer: Uint8Array) => boolean) | undefined;
  /** Asks who it is, by SASL. */
  readonly sasl?: RfbSasl | undefined;
  readonly random: (bytes: number) => Uint8Array;
  readonly deflate?: (level: number) => Deflater;
  /** Whether a client may come in, by the name that SASL or its certificate has proven. */
  readonly authorized: (by: 'sasl' | 'tls', name: string | undefined) => boolean;
  /** What clients with TLS do under it. */
  readonly vencrypt: keyof typeof VeNCrypt | undefined;
  /** Clients that ask for a quality get JPEGs; what has stood still is sent again as it is. */
  readonly lossy: boolean;
  readonly after: (ms: number, f: () => void) => () => void;
  /** Input of the client is ignored. */
  readonly readOnly: boolean;
  /** The client is in. `shared`: it lets others stay. False sends it away. */
  readonly initialized: (shared: boolean) => boolean;
  /** Lines for the log. */
  readonly report: (message: string) => void;
}

type State =
  | 'version'
  | 'security'
  | 'vencrypt'
  | 'subtype'
  | 'tls'
  | 'answer'
  | 'mechanism'
  | 'start'
  | 'step'
  | 'init'
  | 'normal'
  /** It is told why, and nothing more is read. */
  | 'refused'
  | 'closed';

/** Pixels that one update carries at most, and one rectangle of it: a slow client is not sent old pictures for long. */
const UPDATE_PIXELS = 1 << 20;
const RECT_PIXELS = 1 << 16;

const VENCRYPT_VERSION = [0, 2] as const;

/** Bytes of a mechanism's name, and of one message of SASL. */
const MECHANISM_MAX = 100;
const SASL_MAX = 4096;

/** Quality of JPEGs by the level that a client asks for: QEMU's. */
const qualities = [5, 10, 15, 25, 37, 50, 60, 70, 75, 80] as const;
/** ms without a change after which what was lost is sent. */
const SETTLED_MS = 500;

/** Updates that nobody asked for may be on their way to a client, by what its answers to fences tell. */
const UNASKED_MAX = 4;
/** What the fence behind such an update holds. */
const UNASKED = 1;

/** Bytes of answers that may wait. */
const UNREAD_MAX = 1 << 18;

/** Buttons by the bits of a pointer event. */
const wire: readonly Button[] = ['left', 'middle', 'right', 'wheel-up', 'wheel-down', 'wheel-left', 'wheel-right', 'side'];

export class RfbSession {
  readonly #o: RfbService;
  readonly #t: RfbTransport;
  readonly #in = new ClientMessages();
  readonly #encoder: Encoder;
  readonly #damage: Damage;
  /** What the client has as a JPEG. */
  readonly #lossy: Damage;
  readonly #undo: (() => void)[] = [];
  #state: State = 'version';
  #minor = 8;
  #challenge = new Uint8Array(0);
  #check: ((challenge: Uint8Array, answer: Uint8Array) => boolean) | undefined;
  #counted: number | undefined;
  /** What the client's first message of SASL has led to. */
  #exchange: ScramExchange | undefined;
  #user: string | undefined;
  #dname: string | undefined;
  #writing: Promise<unknown> = Promise.resolve();
  /** Bytes that `#writing` has not got rid of. */
  #unread = 0;

  // What the client can do.
  #encoding: EncodingName = 'raw';
  #quality: number | undefined;
  #supports = new Set<number>();
  // What it asked for, and what it has been told.
  #wants: Rect | undefined;
  /** Changes in here are sent without being asked for. */
  #continuous: Rect | undefined;
  /** Updates of this kind that the client has not come to. */
  #unasked = 0;
  #updating = false;
  #width: number;
  #height: number;
  #sizeReason: { by: number; status: number } | undefined;
  #absolute: boolean | undefined;
  #pointer: PointerShape | undefined | null = null;
  #ledsTold = -1;
  #extendedKeyTold = false;
  // The pointer as it was.
  #buttons = 0;
  #last: { x: number; y: number } | undefined;
  readonly #keysDown = new Set<ReturnType<typeof keyNumbered>>();

  constructor(transport: RfbTransport, service: RfbService) {
    this.#t = transport;
    this.#o = service;
    this.#dname = transport.dname;
    const { surface } = service.screen;
    this.#width = surface.width;
    this.#height = surface.height;
    this.#damage = new Damage(surface.width, surface.height);
    this.#lossy = new Damage(surface.width, surface.height);
    this.#encoder = new Encoder(new PixelWriter(serverFormat), service.deflate);
    this.#send(new TextEncoder().encode('RFB 003.008\n'));
  }

  get state(): State {
    return this.#state;
  }

  /** Who the client is, where it was asked by SASL. */
  get user(): string | undefined {
    return this.#user;
  }

  /** The name in its certificate, where TLS has asked for one. */
  get dname(): string | undefined {
    return this.#dname;
  }

  /** Bytes of the client. */
  receive(bytes: Uint8Array): void {
    if (this.#state === 'closed' || this.#state === 'refused') return;
    this.#in.push(bytes);
    try {
      while (this.#state !== ('closed' as State) && this.#step());
    } catch (error) {
      this.#o.report(error instanceof Error ? error.message : String(error));
      this.close();
    }
  }

  /** Ends the session; harmless when it has ended. */
  close(): void {
    if (this.#state === 'closed') return;
    this.#state = 'closed';
    for (const f of this.#undo) f();
    this.#encoder.close();
    for (const key of this.#keysDown) if (key) this.#o.input.key(key, false);
    this.#t.close();
  }

  /** One step of the handshake, or one message; false while bytes are missing. */
  #step(): boolean {
    switch (this.#state) {
      case 'version':
        return this.#version();
      case 'security':
        return this.#security();
      case 'vencrypt':
        return this.#vencrypt();
      case 'subtype':
        return this.#subtype();
      case 'tls':
        return false;
      case 'answer':
        return this.#answer();
      case 'mechanism':
        return this.#mechanism();
      case 'start':
        return this.#start();
      case 'step':
        return this.#saslStep();
      case 'init':
        return this.#init();
      case 'normal': {
        const m = this.#in.next();
        if (m === undefined) return false;
        this.#handle(m);
        return true;
      }
      case 'refused':
      case 'closed':
        return false;
    }
  }

  // ── Handshake ──

  #version(): boolean {
    const bytes = this.#in.take(12);
    if (bytes === undefined) return false;
    const found = /^RFB (\d{3})\.(\d{3})\n$/.exec(String.fromCharCode(...bytes));
    if (found === null || Number(found[1]) < 3) throw new Error('Cannot talk RFB: the client does not begin with its version');
    const minor = Number(found[1]) > 3 ? 8 : Number(found[2]);
    this.#minor = minor >= 8 ? 8 : minor === 7 ? 7 : 3;
    this.#check = this.#o.password?.();
    const type = this.#offer;
    if (this.#minor === 3) {
      if (type === Security.veNCrypt) throw new Error('Cannot talk RFB 3.3: TLS is asked for, which it has not');
      if (type === Security.sasl) throw new Error('Cannot talk RFB 3.3: SASL is asked for, which it has not');
      this.#send(message([4, type]));
      this.#chosen(type);
    } else {
      this.#send(Uint8Array.of(1, type));
      this.#state = 'security';
    }
    return true;
  }

  /** What is asked of the client, under TLS where there is one. */
  get #inner(): number {
    return this.#o.password ? Security.vnc : this.#o.sasl ? Security.sasl : Security.none;
  }
  get #offer(): number {
    return this.#t.secure ? Security.veNCrypt : this.#inner;
  }

  #security(): boolean {
    const bytes = this.#in.take(1);
    if (bytes === undefined) return false;
    if (bytes[0] !== this.#offer) this.#refuse('Unsupported security type');
    else if (this.#offer === Security.veNCrypt) {
      this.#send(Uint8Array.of(...VENCRYPT_VERSION));
      this.#state = 'vencrypt';
    } else this.#chosen(this.#inner);
    return true;
  }

  /** The client's version of VeNCrypt. */
  #vencrypt(): boolean {
    const bytes = this.#in.take(2);
    if (bytes === undefined) return false;
    if (bytes[0] !== VENCRYPT_VERSION[0] || bytes[1] !== VENCRYPT_VERSION[1]) {
      this.#send(Uint8Array.of(1));
      this.#end();
      return false;
    }
    this.#send(message([1, 0], [1, 1], [4, this.#subtypeOffered]));
    this.#state = 'subtype';
    return true;
  }
  get #subtypeOffered(): number {
    return VeNCrypt[this.#o.vencrypt!];
  }
  #subtype(): boolean {
    const bytes = this.#in.take(4);
    if (bytes === undefined) return false;
    const chosen = new DataView(bytes.buffer, bytes.byteOffset, 4).getUint32(0);
    if (chosen !== this.#subtypeOffered) {
      this.#send(Uint8Array.of(0));
      this.#end();
      return false;
    }
    this.#state = 'tls';
    if (this.#in.waiting > 0) throw new Error('Cannot make TLS: the client did not wait for it');
    this.#writing = this.#writing
      .then(() => this.#t.secure!(Uint8Array.of(1)))
      .then((dname) => {
        if (this.#state !== 'tls') return;
        this.#dname = dname;
        if (!this.#o.authorized('tls', dname)) throw new Error(`Cannot let the client in: ${dname} is not authorized`);
        if (this.#in.waiting > 0) throw new Error('Cannot make TLS: the client did not wait for it');
        this.#chosen(this.#inner);
      })
      .catch((error: Error) => {
        if (this.#state !== 'closed') this.#o.report(error.message);
        this.close();
      });
    return false;
  }

  #chosen(type: number): void {
    if (type === Security.none) {
      if (this.#minor === 8) this.#send(message([4, 0]));
      this.#state = 'init';
      return;
    }
    if (type === Security.sasl) {
      const list = new TextEncoder().encode(SCRAM);
      this.#send(message([4, list.length], list));
      this.#state = 'mechanism';
      return;
    }
    this.#challenge = Uint8Array.from(this.#o.random(16));
    this.#send(this.#challenge);
    this.#state = 'answer';
  }

  #answer(): boolean {
    const answer = this.#in.take(16);
    if (answer === undefined) return false;
    if (this.#check?.(this.#challenge, answer)) {
      this.#send(message([4, 0]));
      this.#state = 'init';
    } else this.#refuse('Authentication failed');
    return true;
  }

  #refuse(why: string): void {
    this.#send(this.#minor === 8 ? message([4, 1], reason(why)) : message([4, 1]));
    this.#end();
  }
  /** Nothing more is read, and the connection closed when the client has what was said. */
  #end(): void {
    this.#state = 'refused';
    void this.#writing.then(() => this.close());
  }

  // SASL. rfbproto.rst, "SASL Authentication"; what is counted ends with a NUL that counts, and what is not there has no bytes.

  /** Bytes behind their number; undefined while some are missing. */
  #bytes(most: number): Uint8Array | undefined {
    if (this.#counted === undefined) {
      const head = this.#in.take(4);
      if (head === undefined) return undefined;
      const count = new DataView(head.buffer, head.byteOffset, 4).getUint32(0);
      if (count > most) throw new Error(`Cannot read SASL: ${count} bytes in one piece, accepted are ${most} at most`);
      this.#counted = count;
    }
    const bytes = this.#in.take(this.#counted);
    if (bytes !== undefined) this.#counted = undefined;
    return bytes;
  }
  #say(text: string | undefined, complete: boolean): void {
    const bytes = text === undefined ? new Uint8Array(0) : new TextEncoder().encode(`${text}\0`);
    this.#send(message([4, bytes.length], bytes, [1, complete ? 1 : 0]));
  }

  #mechanism(): boolean {
    const name = this.#bytes(MECHANISM_MAX);
    if (name === undefined) return false;
    const text = String.fromCharCode(...name);
    if (text !== SCRAM) throw new Error(`Cannot use SASL's ${JSON.stringify(text)}: accepted is ${SCRAM}`);
    this.#state = 'start';
    return true;
  }
  #start(): boolean {
    const data = this.#bytes(SASL_MAX);
    if (data === undefined) return false;
    this.#state = 'step';
    // A client that names its mechanism alone begins with its next message.
    if (data.length === 0) this.#say(undefined, false);
    else this.#first(data);
    return true;
  }
  #saslStep(): boolean {
    const data = this.#bytes(SASL_MAX);
    if (data === undefined) return false;
    if (!this.#exchange) {
      this.#first(data);
      return true;
    }
    const done = scramLast(this.#o.sasl!.crypto, this.#exchange, data.subarray(0, -1));
    if (!done) throw new Error('Cannot let the client in: SASL does not know it');
    this.#user = done.name;
    this.#say(done.signature, true);
    if (!this.#o.authorized('sasl', done.name)) {
      this.#o.report(`Cannot let the client in: ${done.name} is not authorized`);
      this.#refuse('Authentication failed');
      return false;
    }
    this.#send(message([4, 0]));
    this.#state = 'init';
    return true;
  }
  #first(data: Uint8Array): void {
    const { crypto, users } = this.#o.sasl!;
    this.#exchange = scramFirst(crypto, users(), data.subarray(0, -1));
    if (!this.#exchange) throw new Error(`Cannot let the client in: what it says is not ${SCRAM}`);
    this.#say(this.#exchange.serverFirst, false);
  }

  #init(): boolean {
    const bytes = this.#in.take(1);
    if (bytes === undefined) return false;
    if (!this.#o.initialized(bytes[0] !== 0)) {
      this.close();
      return true;
    }
    const { screen, input, name } = this.#o;
    screen.refresh();
    this.#width = screen.surface.width;
    this.#height = screen.surface.height;
    this.#damage.resize(this.#width, this.#height);
    this.#lossy.resize(this.#width, this.#height);
    this.#send(serverInit(this.#width, this.#height, name));
    this.#undo.push(
      screen.surface.watch({
        changed: (x, y, width, height) => this.#damage.add(x, y, width, height),
        resized: (width, height) => {
          this.#damage.resize(width, height);
          this.#lossy.resize(width, height);
        },
      }),
      screen.look(() => this.#update()),
      input.onChange(() => this.#update()),
      () => this.#unsettle(),
    );
    this.#state = 'normal';
    return true;
  }

  // ── Messages ──

  #handle(m: ClientMessage): void {
    switch (m.kind) {
      case 'pixelFormat': {
        if (!isUsable(m.format))
          throw new Error(`Cannot send pixels of ${m.format.bits} bits: the client's format is not usable`);
        if (!m.format.trueColour) this.#send(colourMap());
        this.#encoder.writer = new PixelWriter(m.format.trueColour ? m.format : mappedFormat);
        return;
      }
      case 'encodings':
        this.#offered(m.list);
        return;
      case 'update': {
        if (m.incremental && this.#continuous) return;
        this.#wants = m;
        if (!m.incremental) this.#damage.add(m.x, m.y, m.width, m.height);
        this.#update();
        return;
      }
      case 'continuous': {
        const was = this.#continuous;
        this.#continuous = m.on ? m : undefined;
        if (was && !m.on) this.#send(endOfContinuousUpdates());
        this.#update();
        return;
      }
      case 'fence': {
        // What came before is done when it is read, all but the update under way, which the answer waits for.
        if (m.flags >>> 31) this.#send(fence(m.flags & (Fence.blockBefore | Fence.blockAfter), m.payload));
        else if (m.payload.length === 1 && m.payload[0] === UNASKED && this.#unasked > 0) {
          this.#unasked--;
          this.#update();
        }
        return;
      }
      case 'key':
        this.#key(m.keysym, m.number, m.down);
        return;
      case 'pointer':
        this.#move(m.x, m.y, m.buttons);
        return;
      case 'desktopSize': {
        const heard = m.width > 0 && m.height > 0 && (this.#o.screen.device.wish?.(m.width, m.height) ?? false);
        // Reason 1: this client asked; status 0: granted as soon as the guest follows, 1: prohibited.
        this.#sizeReason = { by: 1, status: heard ? 4 : 1 };
        this.#update();
        return;
      }
      case 'ignored':
        return;
    }
  }

  #offered(list: readonly number[]): void {
    const before = this.#supports;
    this.#supports = new Set(list);
    const begins = (e: number): boolean => this.#supports.has(e) && !before.has(e);
    // So a client learns that the server has them.
    if (begins(Encoding.fence)) this.#send(fence(Fence.request, new Uint8Array(0)));
    if (begins(Encoding.continuousUpdates)) this.#send(endOfContinuousUpdates());
    const level = list.find((e) => e >= COMPRESS_LOW && e <= COMPRESS_HIGH);
    if (level !== undefined) this.#encoder.level = Math.max(1, Math.min(9, level - COMPRESS_LOW));
    const quality = this.#o.lossy ? list.find((e) => e >= QUALITY_LOW && e <= QUALITY_HIGH) : undefined;
    this.#quality = quality === undefined ? undefined : qualities[quality - QUALITY_LOW];
    const known = list.find((e) => encodings.some((name) => Encoding[name] === e && this.#encoder.supports(name)));
    this.#encoding = encodings.find((name) => Encoding[name] === known) ?? 'raw';
    this.#absolute = undefined;
    this.#pointer = null;
    this.#ledsTold = -1;
    this.#sizeReason = this.#supports.has(Encoding.extendedDesktopSize) ? { by: 0, status: 0 } : undefined;
  }

  #key(keysym: number, number: number, down: boolean): void {
    const key = (number !== 0 ? keyNumbered(number) : undefined) ?? keyOfKeysym(keysym);
    if (key === undefined || this.#o.readOnly) return;
    if (down) this.#keysDown.add(key);
    else this.#keysDown.delete(key);
    this.#o.input.key(key, down);
    this.#o.screen.hurry();
  }

  #move(x: number, y: number, mask: number): void {
    if (this.#o.readOnly) return;
    const events: InputEvent[] = [];
    if (this.#o.input.absolute) {
      const scale = (v: number, size: number): number =>
        Math.min(ABSOLUTE_MAX, Math.round((v * ABSOLUTE_MAX) / Math.max(1, size - 1)));
      events.push(
        { kind: 'absolute', axis: 'x', value: scale(x, this.#width) },
        { kind: 'absolute', axis: 'y', value: scale(y, this.#height) },
      );
    } else {
      // Clients that know of it send movements around the middle of the range.
      const from = this.#supports.has(Encoding.pointerChange) ? { x: 0x7fff, y: 0x7fff } : this.#last;
      if (from !== undefined) {
        if (x !== from.x) events.push({ kind: 'relative', axis: 'x', value: x - from.x });
        if (y !== from.y) events.push({ kind: 'relative', axis: 'y', value: y - from.y });
      }
    }
    this.#last = { x, y };
    const changed = mask ^ this.#buttons;
    this.#buttons = mask;
    for (const [i, button] of wire.entries())
      if (changed & (1 << i)) events.push({ kind: 'button', button, down: (mask & (1 << i)) !== 0 });
    if (events.length > 0) this.#o.input.send(events);
    this.#o.screen.hurry();
  }

  // ── Updates ──

  /** Bytes behind all that is on its way, an update included. */
  #send(bytes: Uint8Array): void {
    this.#unread += bytes.length;
    // A client that asks for answers and does not read them is not served.
    if (this.#unread > UNREAD_MAX) return this.close();
    this.#write(async () => {
      await this.#t.write(bytes);
      this.#unread -= bytes.length;
    });
  }
  #write(task: () => Promise<void>): void {
    this.#writing = this.#writing.then(() => (this.#state === 'closed' ? undefined : task())).catch(() => this.close());
  }

  /** Sends what has changed, if the client waits for it. One update is on its way at a time. */
  #update(): void {
    if (this.#state !== 'normal' || this.#updating) return;
    const area = this.#wants ?? (this.#unasked < UNASKED_MAX ? this.#continuous : undefined);
    if (area === undefined) return;
    const rects: Uint8Array[] = this.#news();
    const { surface } = this.#o.screen;
    const resized = this.#width !== surface.width || this.#height !== surface.height;
    // A client that was told of a new size asks for the whole of it.
    const dirty = resized && !this.#canResize ? this.#clip(area) : area;
    let pixels = this.#damage.any ? this.#cut(dirty, this.#damage) : [];
    const exact = pixels.length === 0 && this.#settled && this.#lossy.any;
    if (exact) pixels = this.#cut(dirty, this.#lossy);
    if (rects.length === 0 && pixels.length === 0) return;
    const paced = this.#wants === undefined && this.#supports.has(Encoding.fence);
    this.#wants = undefined;
    this.#updating = true;
    this.#write(() => this.#deliver(rects, pixels, exact ? undefined : this.#quality));
    if (paced) {
      this.#unasked++;
      this.#send(fence((Fence.request | Fence.blockBefore) >>> 0, Uint8Array.of(UNASKED)));
    }
    this.#write(async () => {
      this.#updating = false;
      this.#update();
    });
  }

  async #deliver(rects: readonly Uint8Array[], pixels: readonly PixelRect[], quality: number | undefined): Promise<void> {
    await this.#t.write(message(updateHeader(rects.length + pixels.length), ...rects));
    for (const r of pixels) {
      const parts = await this.#encoder.rect(r, this.#encoding, quality);
      if (this.#encoder.lossy) this.#lossy.add(r.x, r.y, r.width, r.height);
      for (const bytes of parts) {
        if (this.#state === 'closed') return;
        await this.#t.write(bytes);
      }
    }
    if (quality === undefined || !this.#lossy.any) return;
    this.#unsettle();
    this.#waits = this.#o.after(SETTLED_MS, () => {
      this.#settled = true;
      this.#update();
    });
  }
  /** Nothing was sent with a loss for a while. */
  #settled = false;
  #waits: (() => void) | undefined;
  #unsettle(): void {
    this.#settled = false;
    this.#waits?.();
    this.#waits = undefined;
  }

  get #canResize(): boolean {
    return this.#supports.has(Encoding.extendedDesktopSize) || this.#supports.has(Encoding.desktopSize);
  }

  /** What a client that keeps its size can show of an area. */
  #clip(a: Rect): Rect {
    return { ...a, width: Math.min(a.width, this.#width - a.x), height: Math.min(a.height, this.#height - a.y) };
  }

  /** Copies of an area's pixels that are marked. */
  #cut(area: Rect, marked: Damage): PixelRect[] {
    const { surface } = this.#o.screen;
    const out: PixelRect[] = [];
    for (const r of marked.take(area, RECT_PIXELS, UPDATE_PIXELS)) {
      this.#lossy.take(r);
      // Where a client keeps its size, tiles may reach over it.
      const [width, height] = [Math.min(r.width, this.#width - r.x), Math.min(r.height, this.#height - r.y)];
      for (let x = 0; x < width; x += WIDTH_MAX) {
        const w = Math.min(WIDTH_MAX, width - x);
        const pixels = new Uint32Array(w * height);
        for (let y = 0; y < height; y++) {
          const from = (r.y + y) * surface.width + r.x + x;
          pixels.set(surface.pixels.subarray(from, from + w), y * w);
        }
        out.push({ x: r.x + x, y: r.y, width: w, height, pixels });
      }
    }
    return out;
  }

  /** Pseudo-rectangles: size, pointer, kinds of events, LEDs. */
  #news(): Uint8Array[] {
    const out: Uint8Array[] = [];
    const has = (e: number): boolean => this.#supports.has(e);
    const { screen, input } = this.#o;
    const { surface } = screen;
    const resized = surface.width !== this.#width || surface.height !== this.#height;
    if ((resized || this.#sizeReason !== undefined) && this.#canResize) {
      this.#width = surface.width;
      this.#height = surface.height;
      const { by, status } = this.#sizeReason ?? { by: 0, status: 0 };
      this.#sizeReason = undefined;
      if (has(Encoding.extendedDesktopSize)) {
        out.push(
          message(
            rectHeader(by, status === 4 ? 0 : status, this.#width, this.#height, Encoding.extendedDesktopSize),
            Uint8Array.of(1, 0, 0, 0),
            [4, 0],
            [2, 0],
            [2, 0],
            [2, this.#width],
            [2, this.#height],
            [4, 0],
          ),
        );
      } else if (resized) out.push(rectHeader(0, 0, this.#width, this.#height, Encoding.desktopSize));
    }
    if (has(Encoding.extendedKey) && !this.#extendedKeyTold) {
      this.#extendedKeyTold = true;
      out.push(rectHeader(0, 0, this.#width, this.#height, Encoding.extendedKey));
    }
    if (has(Encoding.pointerChange) && this.#absolute !== input.absolute) {
      this.#absolute = input.absolute;
      out.push(rectHeader(this.#absolute ? 1 : 0, 0, this.#width, this.#height, Encoding.pointerChange));
    }
    if (has(Encoding.ledState)) {
      const leds = input.leds;
      const bits = leds === undefined ? -1 : (leds.scroll ? 1 : 0) | (leds.num ? 2 : 0) | (leds.caps ? 4 : 0);
      if (bits >= 0 && bits !== this.#ledsTold)
        out.push(message(rectHeader(0, 0, this.#width, this.#height, Encoding.ledState), [1, bits]));
      this.#ledsTold = bits;
    }
    if (has(Encoding.cursor)) {
      const shape = screen.device.pointer?.();
      if (shape !== this.#pointer && (shape !== undefined || this.#pointer)) out.push(this.#cursor(shape));
      this.#pointer = shape;
    }
    return out;
  }

  #cursor(shape: PointerShape | undefined): Uint8Array {
    if (shape === undefined) return rectHeader(0, 0, 0, 0, Encoding.cursor);
    const { width, height, hotX, hotY, pixels } = shape;
    return message(rectHeader(hotX, hotY, width, height, Encoding.cursor), this.#encoder.cursor(pixels), cursorMask(shape));
  }
}

/** A bit for each pixel that is not transparent. */
function cursorMask({ width, height, pixels }: PointerShape): Uint8Array {
  const line = Math.ceil(width / 8);
  const out = new Uint8Array(line * height);
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) if (pixels[y * width + x]! >>> 31) out[y * line + (x >>> 3)]! |= 0x80 >>> (x & 7);
  return out;
}
