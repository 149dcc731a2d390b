// A whole pass of memtest86+ (Debian's package `memtest86+`), by hand: `node test/e2e/memtest.long.ts [MIB] [LIMIT_SECONDS] [x64|ia32]`. Its screen comes over the
// serial port, drawn by cursor addresses; the counters of passes and errors are read off it.

import { spawn } from 'node:child_process';
import { accessSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { programPath } from './program.ts';

const [memory = '16', limit = '3600', width = 'x64'] = process.argv.slice(2);
const KERNEL = `/boot/memtest86+${width}.bin`;
try {
  accessSync(KERNEL);
} catch {
  console.error(`Cannot run memtest86+: there is no ${KERNEL}; the package memtest86+ has it`);
  process.exit(1);
}

const args = ['-M', 'q35', '-m', memory, '-cpu', 'max', '-nodefaults', '-display', 'none', '-serial', 'stdio'];
const child = spawn(programPath('nonroot-system-x86_64'), [...args, '-kernel', KERNEL, '-append', 'console=ttyS0,115200'], {
  stdio: ['ignore', 'pipe', 'inherit'],
});
let text = '';
child.stdout.on('data', (bytes: Buffer) => {
  text = (text + bytes.toString('latin1')).slice(-20_000);
});
/** What stands last behind a label. */
const shown = (pattern: RegExp): string | undefined => [...text.matchAll(pattern)].at(-1)?.[1];
const start = performance.now();
const seconds = (): number => (performance.now() - start) / 1000;
let said = 0;
for (;;) {
  await sleep(200);
  const passes = Number(shown(/Pass:\s+(\d+)/g) ?? 0);
  const errors = Number(shown(/Errors:\s+(\d+)/g) ?? 0);
  const state = `${shown(/(\d+% #+)/g)?.replace(/ #+/, '') ?? '?'}, ${shown(/(#\d+ +\[[^\]]*\])/g) ?? '?'}`;
  if (errors > 0 || child.exitCode !== null || seconds() > Number(limit)) {
    const why = errors > 0 ? `${errors} errors` : child.exitCode !== null ? `ended with ${child.exitCode}` : 'no whole pass';
    console.log(`memtest86+ over ${memory} MiB: FAILED after ${seconds().toFixed(0)} s: ${why} (${state})`);
    process.exitCode = 1;
    break;
  }
  if (passes > 0) {
    console.log(`memtest86+ over ${memory} MiB: a pass without errors after ${seconds().toFixed(0)} s`);
    break;
  }
  if (seconds() > said + 60) {
    said = seconds();
    console.log(`${said.toFixed(0)} s: ${state}`);
  }
}
child.kill('SIGKILL');
