// Fetching a file over HTTP(S), or from a file: URL, with a check of its hash: RFC 9110 as far as fetch() does not hide it.

import { readFile } from 'node:fs/promises';
import type { Report } from '../../images/report.ts';
import { sha256 } from './cache.ts';

/** What the bytes must be; all of it optional. */
export type Expected = { readonly size?: number; readonly sha256?: string };

const ATTEMPTS = 3;
/** Without a byte for so long, a connection is given up. Milliseconds. */
const IDLE = 30_000;

/**
 * The contents of a URL. Broken connections and server errors (5xx) are tried again, three times in all.
 * @throws Error (rejects) when it cannot be had, or is not what is expected
 */
export async function fetchFile(url: URL, expected: Expected = {}, report?: Report): Promise<Uint8Array> {
  const name = decodeURIComponent(url.pathname.slice(url.pathname.lastIndexOf('/') + 1));
  const bytes = url.protocol === 'file:' ? await readFile(url) : await download(url, name, expected, report);
  verify(name, bytes, expected);
  return bytes;
}

/**
 * Holds bytes against what an index says of them.
 * @throws Error that says what was found and what was expected
 */
export function verify(name: string, bytes: Uint8Array, expected: Expected): void {
  if (expected.size !== undefined && bytes.length !== expected.size) {
    throw new Error(`Cannot accept ${name}: ${bytes.length} bytes, the index says ${expected.size}`);
  }
  const found = expected.sha256 === undefined ? undefined : sha256(bytes);
  if (found !== expected.sha256) throw new Error(`Cannot accept ${name}: SHA-256 is ${found}, the index says ${expected.sha256}`);
}

async function download(url: URL, name: string, expected: Expected, report?: Report): Promise<Uint8Array> {
  for (let attempt = 1; ; attempt++) {
    const failure = await attemptDownload(url, name, expected, report);
    if (failure instanceof Uint8Array) return failure;
    if (!failure.again || attempt === ATTEMPTS) throw new Error(`Cannot fetch ${url.href}: ${failure.reason}`);
    await new Promise((resolve) => setTimeout(resolve, 200 * attempt));
  }
}

async function attemptDownload(
  url: URL,
  name: string,
  expected: Expected,
  report?: Report,
): Promise<Uint8Array | { reason: string; again: boolean }> {
  const abort = new AbortController();
  const idle = setTimeout(() => abort.abort(new Error(`no data for ${IDLE / 1000} s`)), IDLE);
  try {
    const response = await fetch(url, { signal: abort.signal });
    if (!response.ok || !response.body) {
      await response.body?.cancel();
      return { reason: `${response.status} ${response.statusText}`, again: response.status >= 500 };
    }
    const total = expected.size ?? (Number(response.headers.get('content-length')) || undefined);
    const chunks: Uint8Array[] = [];
    let done = 0;
    for await (const chunk of response.body) {
      idle.refresh();
      chunks.push(chunk);
      done += chunk.length;
      // An endless answer must not fill the memory.
      if (expected.size !== undefined && done > expected.size)
        return { reason: `more than the ${expected.size} bytes that the index says`, again: false };
      report?.({ label: `Fetching ${name}`, done, ...(total === undefined ? {} : { total }) });
    }
    return Buffer.concat(chunks);
  } catch (error) {
    const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
    return { reason: cause instanceof Error ? cause.message : String(cause), again: true };
  } finally {
    clearTimeout(idle);
  }
}
