// A file that a web server has, read in ranges when they are wanted. RFC 9110 "HTTP Semantics", sections 8.8 (validators), 14 (ranges).

import { type ByteFile, DiskError } from '../block.ts';
import type { HttpAnswer, HttpClient, HttpOptions } from './protocol.ts';

/** What is kept and asked for is whole pieces of so many bytes. */
const CHUNK = 64 << 10;
/** Most bytes that are kept. */
const CACHE = 64 << 20;
/** Most bytes of one request. */
const MAX_REQUEST = 4 << 20;
/** Most requests on their way at one time. */
const FLIGHTS = 8;
/** Tries without a byte before a read fails; waits between them double from the first. Milliseconds. */
const TRIES = 5;
const FIRST_WAIT = 100;
const READ_AHEAD = 256 << 10;
const TIMEOUT = 5;

/** What of an answer says that the file is the same. */
interface Version {
  readonly size: number;
  readonly etag: string | undefined;
  readonly modified: string | undefined;
}
/** Worth another try. */
class Transient extends Error {}

const reason = (error: unknown): string => (error instanceof Error ? error.message : String(error));

/** True for a name that `HttpFile` opens. */
export const isHttp = (name: string): boolean => /^https?:\/\//i.test(name);

/**
 * Reading only. The server has to answer ranges, and each answer has to be of the version that was opened (size, ETag, Last-Modified):
 * after another one, every read rejects. Broken connections and answers 408, 429 and 5xx are tried again from the byte that is missing.
 */
export class HttpFile implements ByteFile {
  readonly name: string;
  readonly readOnly = true;
  readonly #client: HttpClient;
  readonly #ask: Parameters<HttpClient['get']>[0];
  readonly #ahead: number;
  #version: Version = { size: 0, etag: undefined, modified: undefined };
  /** By number, the one that was used last at the end; those on their way, too. */
  readonly #chunks = new Map<number, Promise<Uint8Array>>();
  /** Where a reader that goes on would go on. */
  #next = 0;
  #flights = 0;
  readonly #waiting: (() => void)[] = [];
  readonly #answers = new Set<HttpAnswer>();
  #broken: string | undefined;

  private constructor(client: HttpClient, o: HttpOptions) {
    const { url, user } = withoutUser(o.url);
    this.name = url;
    this.#client = client;
    this.#ahead = o.readAhead ?? READ_AHEAD;
    const login = o.username === undefined ? user : `${o.username}:${o.password ?? ''}`;
    this.#ask = {
      url,
      headers: { 'accept-encoding': 'identity', ...(o.cookie === undefined ? {} : { cookie: o.cookie }) },
      login,
      timeout: (o.timeout ?? TIMEOUT) * 1000,
      verify: o.verify ?? true,
    };
  }

  /** Opens the file behind a URL. @throws DiskError (rejects) with one line */
  static async open(client: HttpClient, o: HttpOptions, how: { readonly readOnly: boolean }): Promise<HttpFile> {
    const file = new HttpFile(client, o);
    if (!how.readOnly)
      throw new DiskError(
        `Cannot open ${file.name} for writing: a web server's files are read-only, accepted is an overlay over it`,
      );
    if (file.#ahead % 512 !== 0) throw new DiskError(`Cannot use readahead=${file.#ahead}: accepted are multiples of 512`);
    try {
      await file.#retried(async () => {
        const answer = await file.#get(0, CHUNK - 1);
        try {
          file.#version = await firstVersion(answer);
          if (answer.status === 206) await file.#keepFirst(answer);
        } finally {
          file.#end(answer);
        }
      });
    } catch (error) {
      throw new DiskError(`Cannot open ${file.name}: ${reason(error)}`);
    }
    return file;
  }

  async size(): Promise<number> {
    return this.#version.size;
  }
  async allocated(): Promise<undefined> {
    return undefined;
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    const end = Math.max(0, Math.min(into.length, this.#version.size - offset));
    into.fill(0, end);
    const goesOn = offset === this.#next;
    this.#next = offset + end;
    for (let at = 0; at < end; ) {
      // Longer reads hold what they wait for, not all of it at once.
      const stop = Math.min(end, at + 4 * MAX_REQUEST);
      const [first, last] = [Math.floor((offset + at) / CHUNK), Math.floor((offset + stop - 1) / CHUNK)];
      const chunks = this.#want(first, last, goesOn);
      for (let n = 0; n < chunks.length; n++) {
        const chunk = await chunks[n]!;
        const from = offset + at - (first + n) * CHUNK;
        const part = chunk.subarray(from, Math.min(chunk.length, from + stop - at));
        into.set(part, at);
        at += part.length;
      }
    }
  }
  write(): Promise<void> {
    return Promise.reject(new DiskError(`Cannot write ${this.name}: it is open for reading only`));
  }
  async flush(): Promise<void> {}
  truncate(): Promise<void> {
    return this.write();
  }
  async punch(): Promise<boolean> {
    return false;
  }
  async nextData(offset: number): Promise<number> {
    return offset;
  }
  async close(): Promise<void> {
    this.#break('it is closed');
    this.#chunks.clear();
  }

  // -- chunks

  /** Chunks from `first` to `last`; asks for those that are missing, and for what a reader that goes on wants next. */
  #want(first: number, last: number, goesOn: boolean): Promise<Uint8Array>[] {
    if (this.#broken !== undefined) return [Promise.reject(new DiskError(`Cannot read ${this.name}: ${this.#broken}`))];
    const count = Math.ceil(this.#version.size / CHUNK);
    const missing = (n: number): boolean => !this.#chunks.has(n);
    const ahead = Math.ceil(this.#ahead / CHUNK);
    let misses = false;
    for (let n = first; n <= last; n++) misses ||= missing(n);
    // The next piece is asked for when half of what was read ahead is used up.
    const early = goesOn && missing(Math.min(count - 1, last + (ahead >> 1)));
    const end = Math.min(count - 1, misses || early ? last + ahead : last);
    for (let n = first; n <= end; n++) {
      if (!missing(n)) continue;
      let length = 1;
      while (n + length <= end && missing(n + length) && length < MAX_REQUEST / CHUNK) length++;
      this.#fetch(n, length);
      n += length - 1;
    }
    const wanted: Promise<Uint8Array>[] = [];
    for (let n = first; n <= last; n++) {
      const chunk = this.#chunks.get(n)!;
      this.#chunks.delete(n);
      this.#chunks.set(n, chunk);
      wanted.push(chunk);
    }
    for (const n of this.#chunks.keys()) {
      if (this.#chunks.size <= CACHE / CHUNK) break;
      this.#chunks.delete(n);
    }
    return wanted;
  }
  #lengthOf(n: number): number {
    return Math.min(CHUNK, this.#version.size - n * CHUNK);
  }
  /** Asks for some chunks; each can be read as soon as it is there. */
  #fetch(first: number, count: number): void {
    const results = Array.from({ length: count }, () => Promise.withResolvers<Uint8Array>());
    for (const [i, { promise }] of results.entries()) {
      promise.catch(() => {});
      this.#chunks.set(first + i, promise);
    }
    let n = 0;
    let chunk = new Uint8Array(this.#lengthOf(first));
    let filled = 0;
    const take = (bytes: Uint8Array): void => {
      for (let at = 0; at < bytes.length; ) {
        const part = bytes.subarray(at, at + chunk.length - filled);
        chunk.set(part, filled);
        at += part.length;
        filled += part.length;
        if (filled < chunk.length) continue;
        results[n++]!.resolve(chunk);
        filled = 0;
        if (n < count) chunk = new Uint8Array(this.#lengthOf(first + n));
      }
    };
    const end = Math.min(this.#version.size, (first + count) * CHUNK);
    this.#transfer(first * CHUNK, end, take).catch((error: unknown) => {
      const failure = new DiskError(`Cannot read ${this.name}: ${reason(error)}`);
      for (let i = n; i < count; i++) {
        if (this.#chunks.get(first + i) === results[i]!.promise) this.#chunks.delete(first + i);
        results[i]!.reject(failure);
      }
    });
  }
  /** The first chunk came with the answer that told the size. */
  async #keepFirst(answer: HttpAnswer): Promise<void> {
    const chunk = new Uint8Array(this.#lengthOf(0));
    let filled = 0;
    for await (const bytes of answer.body) {
      if (filled + bytes.length > chunk.length) throw new DiskError('the server sent more than was asked');
      chunk.set(bytes, filled);
      filled += bytes.length;
    }
    if (filled < chunk.length) throw new Transient('the connection was closed early');
    this.#chunks.set(0, Promise.resolve(chunk));
  }

  // -- requests

  /** The bytes from `at` to before `end`, in order. */
  async #transfer(at: number, end: number, take: (bytes: Uint8Array) => void): Promise<void> {
    if (this.#flights >= FLIGHTS) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    else this.#flights++;
    try {
      await this.#retried(async (came) => {
        const answer = await this.#get(at, end - 1);
        try {
          this.#check(answer, at);
          for await (const bytes of answer.body) {
            if (this.#broken !== undefined) throw new DiskError(this.#broken);
            if (at + bytes.length > end) throw new DiskError('the server sent more than was asked');
            take(bytes);
            at += bytes.length;
            came();
          }
          if (at < end) throw new Transient('the connection was closed early');
        } finally {
          this.#end(answer);
        }
      });
    } finally {
      const next = this.#waiting.shift();
      if (next) next();
      else this.#flights--;
    }
  }
  /** Carries out `action` again while what it throws may pass; `came` says that it got on. */
  async #retried(action: (came: () => void) => Promise<void>): Promise<void> {
    let tries = 0;
    const came = (): void => {
      tries = 0;
    };
    for (;;) {
      if (this.#broken !== undefined) throw new DiskError(this.#broken);
      try {
        return await action(came);
      } catch (error) {
        if (error instanceof DiskError) throw error;
        if (this.#broken !== undefined) throw new DiskError(this.#broken);
        if (++tries >= TRIES) throw new DiskError(`${reason(error)}, ${TRIES} times`);
        await this.#client.wait(FIRST_WAIT * 2 ** (tries - 1));
      }
    }
  }
  /** Asks for the bytes from `from` to `to`. Rejects with DiskError for what will not pass. */
  async #get(from: number, to: number): Promise<HttpAnswer> {
    const { headers } = this.#ask;
    const answer = await this.#client.get({ ...this.#ask, headers: { ...headers, range: `bytes=${from}-${to}` } });
    this.#answers.add(answer);
    const { status } = answer;
    if (status === 206 || status === 200 || status === 416) return answer;
    this.#end(answer);
    const text = `the server answered ${status} ${answer.reason}`.trimEnd();
    throw status >= 500 || status === 429 || status === 408 ? new Transient(text) : new DiskError(text);
  }
  #end(answer: HttpAnswer): void {
    this.#answers.delete(answer);
    answer.close();
  }
  /** Throws unless an answer has bytes from `at` on, of the version that was opened. */
  #check(answer: HttpAnswer, at: number): void {
    const opened = this.#version;
    const now = versionOf(answer);
    const differs = (['size', 'etag', 'modified'] as const).find((k) => now[k] !== opened[k]);
    if (answer.status === 416 || differs !== undefined) {
      const [was, is] = differs === undefined ? [opened.size, 'less'] : [opened[differs], now[differs]];
      const label = { size: 'size', etag: 'ETag', modified: 'Last-Modified' }[differs ?? 'size'];
      this.#break(`the server changed it (its ${label} was ${was ?? 'not given'} and is ${is ?? 'not given'})`);
      throw new DiskError(this.#broken!);
    }
    if (answer.status === 200) throw new DiskError('the server answers no ranges any more');
    if (rangeOf(answer)?.first !== at) throw new DiskError('the server answered another range than was asked');
  }
  #break(why: string): void {
    this.#broken ??= why;
    for (const answer of this.#answers) answer.close();
  }
}

/** `bytes FIRST-LAST/TOTAL`, or `bytes STAR/TOTAL` where a range could not be had (RFC 9110, 14.4). */
function rangeOf(answer: HttpAnswer): { readonly first: number | undefined; readonly total: number } | undefined {
  const found = /^bytes (?:(\d+)-\d+|\*)\/(\d+)$/.exec(answer.header('content-range') ?? '');
  return found ? { first: found[1] === undefined ? undefined : Number(found[1]), total: Number(found[2]) } : undefined;
}
const versionOf = (answer: HttpAnswer): Version => ({
  size: rangeOf(answer)?.total ?? Number(answer.header('content-length') ?? -1),
  etag: answer.header('etag'),
  modified: answer.header('last-modified'),
});

/** The version in the answer to the first request. @throws DiskError for a server that cannot serve a disk */
async function firstVersion(answer: HttpAnswer): Promise<Version> {
  const coding = answer.header('content-encoding') ?? 'identity';
  if (coding !== 'identity') throw new DiskError(`the server sends it as ${coding}, accepted is identity`);
  const range = rangeOf(answer);
  if (answer.status === 416 && range?.total === 0) return versionOf(answer);
  if (answer.status === 200 && answer.header('content-length') === '0') return versionOf(answer);
  if (answer.status === 200) throw new DiskError("the server does not support 'range' (byte ranges)");
  if (range?.first !== 0 || !Number.isSafeInteger(range.total))
    throw new DiskError(`the server does not tell its size (Content-Range: ${answer.header('content-range') ?? 'none'})`);
  return versionOf(answer);
}

/** A URL without its `user:password@`, and that, decoded. */
function withoutUser(url: string): { readonly url: string; readonly user: string | undefined } {
  const found = /^(https?:\/\/)([^/?#]*)@(.*)$/i.exec(url);
  if (!found) return { url, user: undefined };
  const [, scheme = '', user = '', rest = ''] = found;
  const plain = user.replace(/%([\da-f]{2})/gi, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));
  return { url: `${scheme}${rest}`, user: plain.includes(':') ? plain : `${plain}:` };
}
