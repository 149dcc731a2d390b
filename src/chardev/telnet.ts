// The little of Telnet that a serial line over `telnet=on` needs: RFC 854, 856 (binary), 857 (echo), 858 (suppress go-ahead).

const IAC = 255;
const DONT = 254;
const DO = 253;
const WILL = 251;
const SB = 250;
const SE = 240;
const BREAK = 243;

/** What a server says first: the client sends single characters and does not echo them. */
export const telnetGreeting: readonly number[] = [IAC, WILL, 1, IAC, WILL, 3, IAC, WILL, 0, IAC, DO, 0];

/** Takes the protocol out of what a client sends; commands may be split over pieces. */
export class TelnetInput {
  #state: 'data' | 'iac' | 'option' | 'sub' | 'subIac' = 'data';
  readonly #break: () => void;

  constructor(onBreak: () => void = () => {}) {
    this.#break = onBreak;
  }
  push(bytes: Uint8Array): Uint8Array {
    const out: number[] = [];
    for (const byte of bytes) {
      switch (this.#state) {
        case 'data':
          if (byte === IAC) this.#state = 'iac';
          else out.push(byte);
          break;
        case 'iac':
          this.#state = byte >= WILL && byte <= DONT ? 'option' : byte === SB ? 'sub' : 'data';
          if (byte === IAC) out.push(byte);
          if (byte === BREAK) this.#break();
          break;
        case 'option':
          this.#state = 'data';
          break;
        case 'sub':
          if (byte === IAC) this.#state = 'subIac';
          break;
        case 'subIac':
          this.#state = byte === SE ? 'data' : 'sub';
          break;
      }
    }
    return Uint8Array.from(out);
  }
}

/** Doubles IAC in what goes to the client. */
export function telnetOutput(bytes: Uint8Array): Uint8Array {
  return bytes.includes(IAC) ? Uint8Array.from([...bytes].flatMap((b) => (b === IAC ? [b, b] : [b]))) : bytes;
}
