// Runs v86 with a Linux guest; its second serial port is the standard output.
// Arguments: FOLDER BIOS VGABIOS KERNEL INITRD APPEND

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

type Emulator = { add_listener(event: string, listener: (byte: number) => void): void };
type V86 = { V86: new (options: object) => Emulator };

const [folder, bios, vgaBios, kernel, initrd, append] = process.argv.slice(2);
const { V86 } = (await import(pathToFileURL(join(folder, 'build', 'libv86.mjs')).href)) as V86;
const buffer = (path: string): { buffer: ArrayBuffer } => ({ buffer: new Uint8Array(readFileSync(path)).buffer });
const emulator = new V86({
  wasm_path: join(folder, 'build', 'v86.wasm'),
  memory_size: 512 << 20,
  vga_memory_size: 2 << 20,
  bios: buffer(bios),
  vga_bios: buffer(vgaBios),
  bzimage: buffer(kernel),
  initrd: buffer(initrd),
  cmdline: append,
  autostart: true,
  uart1: true,
  uart2: true,
  uart3: true,
});
emulator.add_listener('serial1-output-byte', (byte) => process.stdout.write(Uint8Array.of(byte)));
if (process.env['V86_CONSOLE']) emulator.add_listener('serial0-output-byte', (byte) => process.stderr.write(Uint8Array.of(byte)));
