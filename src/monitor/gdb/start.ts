// Starts and ends the server for gdb: `-gdb`, `gdbserver`.

import { shortOptions } from '../../chardev/options.ts';
import type { Emulator } from '../emulator.ts';
import { serveGdb } from './stub.ts';

/** What `-gdb` means: a TCP or unix server that waits for nobody. */
export const gdbText = (text: string): string =>
  /^(tcp|telnet|unix):/.test(text) && !/,(server|nowait|wait)/.test(text)
    ? `${text},server=on,wait=off${text.startsWith('unix') ? '' : ',nodelay=on'}`
    : text;

/** Opens a device and serves gdb there; `none` ends the server that there is. Rejects with one line. */
export async function startGdb(e: Emulator, text: string): Promise<string> {
  e.gdb?.();
  e.gdb = undefined;
  if (text === 'none') return 'Disabled gdbserver';
  const device = await e.chardevs.add('gdb', shortOptions('gdbserver', gdbText(text)));
  const port = serveGdb(e, device);
  e.gdb = () => {
    port.release();
    e.chardevs.remove('gdb');
  };
  return `Waiting for gdb connection on device '${text}'`;
}
