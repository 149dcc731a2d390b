// The Node process as `nonroot` and `nonrootd` see it (cli/host.ts): images, networks, the daemon and the page.

import { basename } from 'node:path';
import type { BootFiles, CliHost, ImageLine } from '../../cli/host.ts';
import { extractVmlinux } from '../../firmware/payload.ts';
import { isBzImage } from '../../firmware/setup-header.ts';
import type { KernelFiles } from '../../machine/running.ts';
import { createUserNet } from '../../net/user.ts';
import { parseUserNet } from '../../net/user-options.ts';
import { cached, type Manifest, userCache } from './cache.ts';
import { decompress } from './decompress.ts';
import { type Image, listImages, openImage, pullImage } from './fetch-image.ts';
import { openImageFile, writeSparse } from './image-file.ts';
import { nodeSockets } from './net.ts';
import { programHost, readWhole } from './program-host.ts';
import type { ThreadAhead } from './vcpu-thread.ts';
import { serveDisplay } from './web-display.ts';

/** What the guest sent before it ended a connection has so long to leave after the guest's end. Milliseconds. */
const DRAIN = 2000;

/** The host of this process. `version` is the package's. */
export function nodeHost(version: string, ahead?: ThreadAhead): CliHost {
  return {
    ...programHost(version, ahead),
    image: async (name, report) => bootFiles(await openImage(name, { report })),
    pull: async (name, report) => line((await pullImage(name, { report })).row, (await openImage(name)).manifest),
    // What few commands need is loaded by them.
    libvirt: async (uri) => (await import('./daemon-main.ts')).connectDaemon(uri),
    daemon: async (settings, argv) => (await import('./daemon-main.ts')).runDaemon(settings, argv, version),
    web: async (settings) => (await import('./web-main.ts')).serveWeb(settings),
    images: async () => (await listImages()).map(({ row, manifest }) => line(row, manifest)),
    async userNet(forwards) {
      const sockets = nodeSockets();
      const net = createUserNet(parseUserNet(forwards.map((rule) => ['hostfwd', rule] as const)), sockets);
      await net.ready.catch((error: unknown) => {
        net.close();
        throw error;
      });
      const close = async (): Promise<void> => {
        net.close();
        await sockets.drained(DRAIN);
      };
      return { port: net, close };
    },
    webDisplay: serveDisplay,
  };
}

/**
 * Reads an image's decompressed kernel from the cache, where it is put now if it is not there: decompressing takes ten times as long. `hash` is its SHA-256.
 * Kernels that users bring are not kept: who builds kernels would fill the cache.
 */
async function vmlinux(kernel: Uint8Array, hash: string): Promise<KernelFiles['vmlinux']> {
  if (!isBzImage(kernel)) return undefined;
  try {
    const key = `vmlinux-${hash}`;
    const path = await cached(
      userCache(),
      key,
      () => {
        const found = extractVmlinux(kernel, decompress);
        if (!found) throw new Error('Cannot decompress kernel: its format is not known');
        return found;
      },
      writeSparse,
    );
    return () => {
      try {
        return openImageFile(path);
      } catch {
        // Somebody has emptied the cache meanwhile.
        return undefined;
      }
    };
  } catch {
    // The loader says what is wrong with it, or leaves it to the guest.
    return undefined;
  }
}

async function bootFiles(image: Image): Promise<BootFiles> {
  const [kernel, initrd] = await Promise.all([readWhole(image.kernel), readWhole(image.initrd)]);
  const hash = image.manifest.files['kernel']!.sha256;
  return { kernel, initrd, vmlinux: await vmlinux(kernel, hash), name: basename(image.kernel), append: image.append };
}

const line = (row: Image['row'], manifest?: Manifest): ImageLine => ({
  name: row.name,
  description: row.description,
  arch: row.arch,
  ...(manifest ? { packages: manifest.packages.map((entry) => `${entry.name} ${entry.version}`) } : {}),
});
