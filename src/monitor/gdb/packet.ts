// GDB's remote serial protocol: packets, acknowledgements, the interrupt byte. GDB manual, appendix "GDB Remote Serial Protocol",
// section "Overview".

export type GdbItem = { readonly packet: Uint8Array } | { readonly kind: 'interrupt' | 'ack' | 'nak' | 'bad' };

const DOLLAR = 0x24;
const HASH = 0x23;
const ESCAPE = 0x7d;
/** Bytes of one packet: what `qSupported` announces. */
export const PACKET_SIZE = 0x4000;

/** Cuts what comes from gdb into packets; their escapes are undone. */
export class PacketReader {
  #state: 'idle' | 'body' | 'sum1' | 'sum2' = 'idle';
  #body: number[] = [];
  #sum = 0;
  #digits = '';

  *push(bytes: Uint8Array): Generator<GdbItem> {
    for (const byte of bytes) {
      switch (this.#state) {
        case 'idle':
          if (byte === DOLLAR) this.#begin();
          else if (byte === 0x03) yield { kind: 'interrupt' };
          else if (byte === 0x2b) yield { kind: 'ack' };
          else if (byte === 0x2d) yield { kind: 'nak' };
          break;
        case 'body':
          if (byte === HASH) this.#state = 'sum1';
          else if (byte === DOLLAR) this.#begin();
          else if (this.#body.length >= 2 * PACKET_SIZE) {
            this.#state = 'idle';
            yield { kind: 'bad' };
          } else {
            this.#body.push(byte);
            this.#sum = (this.#sum + byte) & 0xff;
          }
          break;
        case 'sum1':
          this.#digits = String.fromCharCode(byte);
          this.#state = 'sum2';
          break;
        case 'sum2':
          this.#state = 'idle';
          if (Number.parseInt(this.#digits + String.fromCharCode(byte), 16) === this.#sum)
            yield { packet: unescaped(this.#body) };
          else yield { kind: 'bad' };
          break;
      }
    }
  }
  #begin(): void {
    this.#state = 'body';
    this.#body = [];
    this.#sum = 0;
  }
}

function unescaped(body: readonly number[]): Uint8Array {
  const out: number[] = [];
  for (let i = 0; i < body.length; i++) out.push(body[i] === ESCAPE ? (body[++i] ?? 0) ^ 0x20 : body[i]!);
  return Uint8Array.from(out);
}

/** A packet of these bytes, with escapes and checksum. */
export function packet(data: string | Uint8Array): Uint8Array {
  const bytes = typeof data === 'string' ? new TextEncoder().encode(data) : data;
  const out: number[] = [];
  for (const byte of bytes) {
    if (byte === DOLLAR || byte === HASH || byte === ESCAPE || byte === 0x2a) out.push(ESCAPE, byte ^ 0x20);
    else out.push(byte);
  }
  const sum = out.reduce((a, b) => (a + b) & 0xff, 0);
  return Uint8Array.from([DOLLAR, ...out, HASH, ...new TextEncoder().encode(sum.toString(16).padStart(2, '0'))]);
}

export const toHex = (bytes: Uint8Array): string => Array.from(bytes, (b) => b.toString(16).padStart(2, '0')).join('');
/** Bytes of hex digits; undefined for anything else. */
export function fromHex(text: string): Uint8Array | undefined {
  if (text.length % 2 !== 0 || !/^[\da-f]*$/i.test(text)) return undefined;
  return Uint8Array.from({ length: text.length / 2 }, (_, i) => Number.parseInt(text.slice(2 * i, 2 * i + 2), 16));
}
