// The monitor for people on a character device: prompt, line editing with history, and answers. QEMU 7.2's keys.

import type { Chardev, CharPort } from '../../chardev/chardev.ts';
import { type Emulator, QEMU_VERSION } from '../emulator.ts';
import { commands, runHmp } from './commands.ts';
import { infos } from './info.ts';

const PROMPT = '(qemu) ';
const MAX_HISTORY = 64;
/** Bytes of one line. */
const MAX_LINE = 4095;

/** Serves a character device as a monitor, from now on. @throws Error when it is in use */
export function serveHmp(e: Emulator, chardev: Chardev): CharPort {
  const encoder = new TextEncoder();
  const write = (text: string): void => void port.write(encoder.encode(text));
  const editor = new LineEditor(write, (line) => runHmp(e, line), complete);
  let greeted = false;
  const open = (): void => {
    if (!greeted)
      write(
        `QEMU ${QEMU_VERSION.major}.${QEMU_VERSION.minor}.${QEMU_VERSION.micro} monitor - type 'help' for more information\r\n`,
      );
    greeted = true;
    editor.prompt();
  };
  const { mux } = chardev.options;
  const port: CharPort = chardev.take(
    {
      receive: (bytes) => editor.input(bytes),
      connected(is) {
        if (!is) greeted = false;
        else if (!mux) void Promise.resolve().then(open);
      },
      focus(is) {
        if (!mux) return;
        void Promise.resolve().then(() => (is ? open() : write('\r\n')));
      },
    },
    true,
  );
  return port;
}

/** Words that a line could go on with. */
function complete(line: string): readonly string[] {
  const info = /^\s*info\s+(\S*)$/.exec(line);
  const word = info ? info[1]! : /^\s*(\S*)$/.exec(line)?.[1];
  if (word === undefined) return [];
  return (info ? infos : commands)
    .map((c) => c.names[0]!)
    .filter((name) => name.startsWith(word))
    .map((name) => name.slice(word.length));
}

/** One line at a time; what comes while a command runs waits. */
export class LineEditor {
  readonly #write: (text: string) => void;
  readonly #run: (line: string) => Promise<string>;
  readonly #complete: (line: string) => readonly string[];
  readonly #history: string[] = [];
  #line = '';
  #cursor = 0;
  #at = 0;
  #escape = '';
  #work: Promise<void> = Promise.resolve();

  constructor(
    write: (text: string) => void,
    run: (line: string) => Promise<string>,
    completions: (line: string) => readonly string[],
  ) {
    this.#write = write;
    this.#run = run;
    this.#complete = completions;
  }
  prompt(): void {
    this.#line = '';
    this.#cursor = 0;
    this.#at = this.#history.length;
    this.#write(PROMPT);
  }
  /** Keys as a terminal sends them. Resolves when the commands among them are done. */
  input(bytes: Uint8Array): Promise<void> {
    return (this.#work = this.#work.then(async () => {
      for (const byte of bytes) await this.#key(byte);
    }));
  }
  async #key(byte: number): Promise<void> {
    if (this.#escape !== '') {
      this.#escape += String.fromCharCode(byte);
      if (this.#escape === '\x1b[' || this.#escape === '\x1bO' || /^\x1b\[\d+$/.test(this.#escape)) return;
      const keys = this.#escape;
      this.#escape = '';
      return this.#special(keys);
    }
    switch (byte) {
      case 0x1b:
        this.#escape = '\x1b';
        return;
      case 0x0d:
      case 0x0a:
        return this.#enter();
      case 0x7f:
      case 0x08:
        return this.#delete(this.#cursor - 1);
      case 0x01:
        return this.#move(0);
      case 0x05:
        return this.#move(this.#line.length);
      case 0x04:
        return this.#delete(this.#cursor);
      case 0x15:
        return this.#replace('');
      case 0x09:
        return this.#tab();
      case 0x10:
        return this.#recall(-1);
      case 0x0e:
        return this.#recall(1);
    }
    if (byte < 0x20 || this.#line.length >= MAX_LINE) return;
    const c = String.fromCharCode(byte);
    const rest = this.#line.slice(this.#cursor);
    this.#line = this.#line.slice(0, this.#cursor) + c + rest;
    this.#cursor++;
    this.#write(c + rest + '\b'.repeat(rest.length));
  }
  #special(keys: string): void {
    switch (keys.slice(-1)) {
      case 'A':
        return this.#recall(-1);
      case 'B':
        return this.#recall(1);
      case 'C':
        return this.#move(this.#cursor + 1);
      case 'D':
        return this.#move(this.#cursor - 1);
      case 'H':
        return this.#move(0);
      case 'F':
        return this.#move(this.#line.length);
      case '~':
        if (keys === '\x1b[3~') this.#delete(this.#cursor);
    }
  }
  #move(to: number): void {
    if (to < 0 || to > this.#line.length) return;
    this.#write(to < this.#cursor ? '\b'.repeat(this.#cursor - to) : this.#line.slice(this.#cursor, to));
    this.#cursor = to;
  }
  #delete(at: number): void {
    if (at < 0 || at >= this.#line.length) return;
    this.#move(at);
    this.#line = this.#line.slice(0, at) + this.#line.slice(at + 1);
    const rest = `${this.#line.slice(at)} `;
    this.#write(rest + '\b'.repeat(rest.length));
  }
  #replace(line: string): void {
    this.#move(0);
    const blank = Math.max(this.#line.length - line.length, 0);
    this.#line = line;
    this.#cursor = line.length;
    this.#write(line + ' '.repeat(blank) + '\b'.repeat(blank));
  }
  #recall(step: number): void {
    const to = this.#at + step;
    if (to < 0 || to > this.#history.length) return;
    this.#at = to;
    this.#replace(this.#history[to] ?? '');
  }
  #tab(): void {
    const found = this.#complete(this.#line);
    if (found.length !== 1) return;
    const more = `${found[0]} `;
    this.#line += more;
    this.#cursor = this.#line.length;
    this.#write(more);
  }
  async #enter(): Promise<void> {
    const line = this.#line;
    this.#write('\r\n');
    if (line.trim() !== '' && this.#history.at(-1) !== line) this.#history.push(line);
    if (this.#history.length > MAX_HISTORY) this.#history.shift();
    this.#line = '';
    this.#cursor = 0;
    const answer = await this.#run(line);
    if (answer !== '') this.#write(answer);
    if (!/^\s*q(uit)?\s*$/.test(line)) this.prompt();
  }
}
