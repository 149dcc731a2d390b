// The host's end of a session with the images' /init: lines on the control channel (ttyS3), a command's input in pieces (ttyS1).
// The guest's end is in images/init.sh.ts.

/** The serial ports of a session, as images/overlay.ts names them for the guest. */
export const PORT = { console: 0, out: 1, err: 2, control: 3 } as const;

/** Bytes of one piece of input: what a Linux terminal's input buffer holds for sure. */
const PIECE = 2048;

export interface ControlActions {
  /** Userspace is there. */
  readonly ready: () => void;
  /** The command has ended, and all that it wrote was sent. */
  readonly exit: (code: number) => void;
  /** Bytes for a serial port. */
  readonly send: (port: number, bytes: Uint8Array) => void;
}

/** Follows one guest's control channel from its start. */
export class Control {
  readonly #actions: ControlActions;
  readonly #encoder = new TextEncoder();
  #line = '';
  #asked = false;
  #ended = false;
  readonly #input: Uint8Array[] = [];
  #waiting: (() => void) | undefined;

  constructor(actions: ControlActions) {
    this.#actions = actions;
  }

  /** Bytes from the control channel. */
  receive(bytes: Uint8Array): void {
    for (const byte of bytes) {
      if (byte === 0x0a) {
        this.#said(this.#line);
        this.#line = '';
      } else if (this.#line.length < 100) this.#line += String.fromCharCode(byte);
    }
  }
  #said(line: string): void {
    const exit = /^exit (\d{1,3})$/.exec(line);
    if (line === 'ready') this.#actions.ready();
    else if (exit) this.#actions.exit(Number(exit[1]));
    else if (line === 'stdin') {
      this.#asked = true;
      this.#answer();
    }
  }

  /** Bytes for the command's standard input; resolves when they are all on their way. */
  async input(bytes: Uint8Array): Promise<void> {
    if (bytes.length === 0 || this.#ended) return;
    this.#input.push(bytes);
    this.#answer();
    if (this.#input.length > 0) {
      await new Promise<void>((resolve) => {
        this.#waiting = resolve;
      });
    }
  }
  /** The standard input has ended. */
  end(): void {
    this.#ended = true;
    this.#answer();
  }
  #answer(): void {
    if (!this.#asked || (this.#input.length === 0 && !this.#ended)) return;
    this.#asked = false;
    const [first] = this.#input;
    const piece = first?.subarray(0, PIECE) ?? new Uint8Array(0);
    if (first && first.length > PIECE) this.#input[0] = first.subarray(PIECE);
    else this.#input.shift();
    this.#tell(`stdin ${piece.length}`);
    if (piece.length > 0) this.#actions.send(PORT.out, piece);
    if (this.#input.length === 0) {
      this.#waiting?.();
      this.#waiting = undefined;
    }
  }

  /** The terminal has changed its size. */
  resize(rows: number, cols: number): void {
    this.#tell(`winsize ${rows} ${cols}`);
  }
  #tell(line: string): void {
    this.#actions.send(PORT.control, this.#encoder.encode(`${line}\n`));
  }
}
