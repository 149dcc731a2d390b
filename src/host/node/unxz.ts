// Decompression of what Debian packages hold: xz by the npm package xz-decompress (WebAssembly), zstd and gzip by Node's zlib.

import { createRequire } from 'node:module';
import { promisify } from 'node:util';
import { gunzip, zstdDecompress } from 'node:zlib';
import type { Compression } from '../../images/deb.ts';

/**
 * Decompresses a whole stream.
 * @throws Error (rejects) when the bytes are damaged or not of that format
 */
export async function decompressPackage(format: Compression, bytes: Uint8Array): Promise<Uint8Array> {
  try {
    if (format === 'gzip') return await promisify(gunzip)(bytes);
    if (format === 'zstd') return await promisify(zstdDecompress)(bytes);
    return await unxz(bytes);
  } catch (error) {
    throw new Error(
      `Cannot decompress ${format} data of ${bytes.length} bytes: ${error instanceof Error ? error.message : error}`,
    );
  }
}

async function unxz(bytes: Uint8Array): Promise<Uint8Array> {
  // In the bundle, an import at run time would have Node warn of an experiment.
  const xz = createRequire(import.meta.url)('xz-decompress') as typeof import('xz-decompress');
  const compressed = new ReadableStream<Uint8Array>({
    start(controller) {
      controller.enqueue(bytes);
      controller.close();
    },
  });
  // The stream compiles its WebAssembly on threads of V8, for which Node keeps no process alive that waits for nothing else.
  const alive = setInterval(() => {}, 60_000);
  try {
    const chunks: Uint8Array[] = [];
    for await (const chunk of new xz.XzReadableStream(compressed)) chunks.push(chunk);
    return Buffer.concat(chunks);
  } finally {
    clearInterval(alive);
  }
}
