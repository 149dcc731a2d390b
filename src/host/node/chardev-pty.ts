// A character device on a pseudo-terminal: pts(4). Whoever opens its path is the far side; while nobody does, output is dropped.

import { ReadStream } from 'node:tty';
import type { CharBackend, CharEvents } from '../../chardev/chardev.ts';
import { libc } from './libc.ts';

/** How often, in ms, a terminal that nobody has open is looked at. */
const LOOK = 100;

export async function openPty(events: CharEvents): Promise<CharBackend> {
  const c = libc();
  const pty = c?.openPty();
  if (!c || !pty) throw new Error('this host has no pseudo-terminals');
  let stream: ReadStream | undefined;
  let timer: NodeJS.Timeout | undefined;
  let open = true;

  const look = (): void => {
    if (!open) return;
    if (stream === undefined && !c.hungUp(pty.fd)) begin();
    timer = setTimeout(look, LOOK).unref();
  };
  const begin = (): void => {
    // The stream closes its descriptor when the far side hangs up; the terminal itself stays.
    const now = new ReadStream(c.dup(pty.fd));
    stream = now;
    const gone = (): void => {
      if (stream !== now) return;
      stream = undefined;
      now.destroy();
      events.connected(false);
    };
    now.on('error', gone);
    now.on('close', gone);
    now.on('end', gone);
    now.on('data', (bytes: Uint8Array) => {
      const taken = events.receive(bytes);
      if (!taken) return;
      now.pause();
      void taken.then(() => now.resume());
    });
    events.connected(true);
  };
  look();
  return {
    filename: `pty:${pty.path}`,
    get connected() {
      return stream !== undefined;
    },
    write(bytes) {
      const now = stream;
      if (!now || now.destroyed) return;
      if (now.write(bytes.slice())) return;
      return new Promise((resolve) => {
        now.once('drain', resolve);
        now.once('close', () => resolve());
      });
    },
    close() {
      open = false;
      clearTimeout(timer);
      stream?.destroy();
      c.close(pty.fd);
    },
  };
}
