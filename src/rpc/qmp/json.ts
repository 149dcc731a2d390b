// JSON as QMP speaks it, from a byte stream: 64-bit integers kept exact, strings in single quotes accepted, 0xFF starts anew.
// RFC 8259; QEMU "QMP Protocol Specification", section 2.1 (QEMU 7.2).

export type Json = null | boolean | number | bigint | string | readonly Json[] | { readonly [name: string]: Json };

/** What a stream brings: a value, or why a piece of it is none. */
export type JsonItem = { readonly value: Json } | { readonly error: string };

const maxDepth = 1024;
const code = (c: string): number => c.charCodeAt(0);
const open = new Set([...'{['].map(code));
const shut = new Set([...'}]'].map(code));
const space = new Set([...' \t\r\n'].map(code));
/** What ends a word at the top level. */
const structural = new Set([...'{}[],:"\' \t\r\n'].map(code));
const quotes = new Set([code('"'), code("'")]);
const backslash = code('\\');
const newline = code('\n');
/** No byte of UTF-8: senders put it in front to end whatever was begun. */
const restart = 0xff;

/** Cuts bytes, in chunks of any size, into JSON values. */
export class JsonStream {
  readonly #limit: number;
  #parts: Uint8Array[] = [];
  #length = 0;
  #depth = 0;
  #quote = 0;
  #escaped = false;
  #word = false;
  #skipping = false;

  /** `limit`: bytes of one value; longer ones are skipped to the end of their line. */
  constructor(limit = 64 * 1024 * 1024) {
    this.#limit = limit;
  }
  *push(chunk: Uint8Array): Generator<JsonItem> {
    let from = 0;
    for (let i = 0; i < chunk.length; i++) {
      const byte = chunk[i]!;
      if (byte === restart) {
        this.#reset();
        from = i + 1;
      } else if (this.#skipping) {
        if (byte === newline) this.#skipping = false;
        from = i + 1;
      } else if (this.#quote !== 0) {
        if (this.#escaped) this.#escaped = false;
        else if (byte === backslash) this.#escaped = true;
        else if (byte === this.#quote) {
          this.#quote = 0;
          if (this.#depth === 0) {
            yield this.#take(chunk.subarray(from, i + 1));
            from = i + 1;
          }
        }
      } else if (this.#word && structural.has(byte)) {
        yield this.#take(chunk.subarray(from, i));
        from = i--;
      } else if (this.#word) {
        // The word goes on.
      } else if (quotes.has(byte)) this.#quote = byte;
      else if (open.has(byte)) this.#depth++;
      else if (shut.has(byte)) {
        if (this.#depth === 0) {
          yield { error: 'JSON parse error, expecting value' };
          from = i + 1;
        } else if (--this.#depth === 0) {
          yield this.#take(chunk.subarray(from, i + 1));
          from = i + 1;
        }
      } else if (this.#depth === 0) {
        if (space.has(byte)) from = i + 1;
        else this.#word = true;
      }
      if (this.#length + i - from >= this.#limit || this.#depth > maxDepth) {
        yield { error: this.#depth > maxDepth ? 'JSON nesting depth limit exceeded' : 'JSON token size limit exceeded' };
        this.#reset();
        this.#skipping = byte !== newline;
        from = i + 1;
      }
    }
    if (from < chunk.length) {
      this.#parts.push(chunk.slice(from));
      this.#length += chunk.length - from;
    }
  }
  #reset(): void {
    this.#parts = [];
    this.#length = 0;
    this.#depth = 0;
    this.#quote = 0;
    this.#escaped = false;
    this.#word = false;
    this.#skipping = false;
  }
  #take(last: Uint8Array): JsonItem {
    const bytes = new Uint8Array(this.#length + last.length);
    let at = 0;
    for (const part of [...this.#parts, last]) {
      bytes.set(part, at);
      at += part.length;
    }
    this.#reset();
    try {
      return { value: parseJson(new TextDecoder('utf-8', { fatal: true }).decode(bytes)) };
    } catch (error) {
      if (error instanceof JsonError) return { error: error.message };
      return { error: 'JSON parse error, invalid UTF-8 sequence' };
    }
  }
}

/** A text that is not JSON; the words are QEMU's. */
export class JsonError extends Error {}

const escapes: Readonly<Record<string, string>> = {
  '"': '"',
  "'": "'",
  '\\': '\\',
  '/': '/',
  b: '\b',
  f: '\f',
  n: '\n',
  r: '\r',
  t: '\t',
};
const numberPattern = /-?(?:0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?/y;
const wordPattern = /[^\s{}[\],:"']+/y;
const plainPattern = /[^"'\\\u0000-\u001f]*/y;
const maxU64 = (1n << 64n) - 1n;
const minI64 = -(1n << 63n);

/** @throws {JsonError} Integers beyond 2^53 become bigints as long as they have 64 bits, numbers otherwise. */
export function parseJson(text: string): Json {
  let at = 0;
  const fail = (what: string): never => {
    throw new JsonError(`JSON parse error, ${what}`);
  };
  const match = (pattern: RegExp): RegExpExecArray | null => {
    pattern.lastIndex = at;
    const m = pattern.exec(text);
    if (m !== null) at += m[0].length;
    return m;
  };
  const blank = (): void => {
    while (at < text.length && space.has(text.charCodeAt(at))) at++;
  };
  const string = (): string => {
    const quote = text[at++]!;
    let value = '';
    for (;;) {
      value += match(plainPattern)![0];
      const c = text[at++];
      if (c === undefined || c < ' ') return fail('invalid character in string');
      if (c === quote) return value;
      if (c !== '\\') value += c;
      else if (text[at] === 'u') {
        const digits = text.slice(at + 1, at + 5);
        if (!/^[0-9a-fA-F]{4}$/.test(digits)) return fail('invalid hex escape in string');
        value += String.fromCharCode(Number.parseInt(digits, 16));
        at += 5;
      } else value += escapes[text[at++] ?? ''] ?? fail('invalid escape sequence in string');
    }
  };
  const number = (): Json => {
    const m = match(numberPattern);
    if (m === null) return fail('invalid number');
    if (m[1] !== undefined || m[2] !== undefined) return Number(m[0]);
    const value = Number(m[0]);
    if (Number.isSafeInteger(value)) return value;
    const exact = BigInt(m[0]);
    return exact >= minI64 && exact <= maxU64 ? exact : value;
  };
  const list = (): Json[] => {
    const values: Json[] = [];
    at++;
    blank();
    if (text[at] === ']') {
      at++;
      return values;
    }
    for (;;) {
      values.push(any());
      blank();
      const c = text[at++];
      if (c === ']') return values;
      if (c !== ',') return fail('expected separator in list');
    }
  };
  const object = (): Json => {
    const value: Record<string, Json> = {};
    at++;
    blank();
    if (text[at] === '}') {
      at++;
      return value;
    }
    for (;;) {
      blank();
      if (text[at] !== '"' && text[at] !== "'")
        return fail(text[at] === '}' ? 'expecting value' : 'key is not a string in object');
      const key = string();
      blank();
      if (text[at++] !== ':') return fail('missing : in object pair');
      if (Object.hasOwn(value, key)) return fail('duplicate key');
      // A plain assignment to `__proto__` would not make a member.
      Object.defineProperty(value, key, { value: any(), enumerable: true, configurable: true, writable: true });
      blank();
      const c = text[at++];
      if (c === '}') return value;
      if (c !== ',') return fail('expected separator in dict');
    }
  };
  const any = (): Json => {
    blank();
    const c = text[at];
    if (c === '{') return object();
    if (c === '[') return list();
    if (c === '"' || c === "'") return string();
    if (c !== undefined && /[-0-9]/.test(c)) return number();
    const word = match(wordPattern)?.[0];
    if (word === undefined) return fail('expecting value');
    if (word === 'true') return true;
    if (word === 'false') return false;
    if (word === 'null') return null;
    return fail(`invalid keyword '${word}'`);
  };
  const value = any();
  blank();
  if (at < text.length) fail('expecting end of input');
  return value;
}

const printString = (text: string): string =>
  JSON.stringify(text).replace(/[\u007f-\uffff]/g, (c) => `\\u${c.charCodeAt(0).toString(16).toUpperCase().padStart(4, '0')}`);

/** The value in ASCII on one line, spaced as QEMU does. Members that are undefined are left out. @throws {JsonError} for a number that is not finite. */
export function printJson(value: Json | undefined): string {
  if (value === null || value === undefined) return 'null';
  if (typeof value === 'string') return printString(value);
  if (typeof value === 'number') {
    if (!Number.isFinite(value)) throw new JsonError(`Cannot print number: ${value}, finite ones accepted`);
    return String(value);
  }
  if (typeof value === 'boolean' || typeof value === 'bigint') return String(value);
  if (Array.isArray(value)) return `[${value.map(printJson).join(', ')}]`;
  const members = Object.entries(value).filter(([, v]) => v !== undefined);
  return `{${members.map(([name, v]) => `${printString(name)}: ${printJson(v)}`).join(', ')}}`;
}

/** A value as a line of bytes, ended as QEMU does. */
export const jsonLine = (value: Json): Uint8Array => new TextEncoder().encode(`${printJson(value)}\r\n`);

export const isObject = (value: Json | undefined): value is { readonly [name: string]: Json } =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
