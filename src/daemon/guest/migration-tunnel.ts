// Tunnelled migration: the guest's memory goes as a stream of the connection between the daemons, between two unix sockets of their emulators.
import type { RpcStream, StreamItem } from '../../rpc/stream.ts';
import type { ByteDuplex } from '../../rpc/transport.ts';
import type { Daemon } from '../daemon.ts';
import type { Run } from './guest.ts';

/** Where a run's emulator takes or gives its memory. */
export const tunnelPath = (run: Pick<Run, 'directory'>): string => `${run.directory}/migrate.sock`;

/** Zeros at a time, where the stream has a hole. */
const zeros = 65_536;

async function writeItem(to: ByteDuplex, item: StreamItem): Promise<void> {
  if (item instanceof Uint8Array) return to.write(item);
  for (let left = item.hole; left > 0n; left -= BigInt(zeros)) {
    await to.write(new Uint8Array(left < BigInt(zeros) ? Number(left) : zeros));
  }
}

/** Destination: from the stream into the emulator, until the stream ends. A stream that breaks ends the emulator's wait as well. */
export async function intoEmulator(daemon: Daemon, path: string, stream: RpcStream): Promise<void> {
  const emulator = await daemon.host.sockets.connect(path);
  try {
    for await (const item of stream) await writeItem(emulator, item);
  } finally {
    emulator.close();
  }
}

/** Source: from the emulator into the stream. */
export class Tunnel {
  readonly uri: string;
  /** Resolves when all that the emulator has given is on its way; rejects when the stream broke. */
  readonly done: Promise<void>;
  readonly #close: () => void;

  private constructor(path: string, done: Promise<void>, close: () => void) {
    this.uri = `unix:${path}`;
    this.done = done;
    this.#close = close;
    done.catch(() => {});
  }
  /** Listens for the emulator. @throws Error (rejects) when it can't */
  static async open(daemon: Daemon, run: Run, stream: RpcStream): Promise<Tunnel> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const path = tunnelPath(run);
    let emulator: ByteDuplex | undefined;
    const pump = async (duplex: ByteDuplex): Promise<void> => {
      emulator = duplex;
      try {
        for await (const bytes of duplex.input) await stream.write(bytes);
        resolve();
      } catch (error) {
        reject(error);
      } finally {
        duplex.close();
      }
    };
    const listener = await daemon.host.sockets.listen(path, 0o600, (duplex) => void pump(duplex));
    if (daemon.options.user) await daemon.host.files.change(path, daemon.options.user);
    // A stream that has ended before the emulator has: its connection ends too, and with it the migration.
    void stream.gone.then(() => emulator?.close());
    return new Tunnel(path, promise, () => {
      listener.close();
      emulator?.close();
    });
  }
  close(): void {
    this.#close();
  }
}
