// The emulator's process and its QMP, for tests: started with arguments, spoken to over a unix socket, ended in any case.

import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { nodeSockets } from '../../src/host/node/daemon-sockets.ts';
import { QmpClient } from '../../src/rpc/qmp/client.ts';
import type { Json } from '../../src/rpc/qmp/json.ts';
import type { ByteDuplex } from '../../src/rpc/transport.ts';
import { programPath } from '../e2e/program.ts';

export const OURS = programPath('nonroot-system-x86_64');
export const QEMU = '/usr/bin/qemu-system-x86_64';
/** Why real QEMU cannot be compared with; fits `skip`. */
export const noQemu = existsSync(QEMU) ? false : 'qemu-system-x86_64 is not installed';

export interface Running {
  readonly qmp: QmpClient;
  readonly child: ChildProcess;
  readonly events: { readonly event: string; readonly data: Json }[];
  /** What it has said on standard error. */
  text(): string;
  /** Resolves with the exit code. */
  readonly exited: Promise<number | null>;
  event(name: string): Promise<void>;
}

/** Starts an emulator with a QMP server of its own and negotiates. */
export async function emulator(t: TestContext, program: string, args: readonly string[]): Promise<Running> {
  const folder = mkdtempSync(join(tmpdir(), 'nonroot-qmp-'));
  const path = join(folder, 'qmp');
  const child = spawn(program, [...args, '-qmp', `unix:${path},server=on,wait=off`], { stdio: ['ignore', 'ignore', 'pipe'] });
  let said = '';
  child.stderr!.on('data', (b: Buffer) => (said += b.toString()));
  const exited = new Promise<number | null>((resolve) => child.on('close', resolve));
  t.after(() => {
    child.kill('SIGKILL');
    rmSync(folder, { recursive: true, force: true });
  });
  const limit = Date.now() + 60_000;
  let duplex: ByteDuplex | undefined;
  while (!duplex) {
    duplex = await nodeSockets.connect(path).catch(() => undefined);
    if (!duplex && (child.exitCode !== null || Date.now() > limit)) throw new Error(`Cannot reach ${program}: ${said}`);
    if (!duplex) await new Promise((resolve) => setTimeout(resolve, 50));
  }
  const qmp = new QmpClient(duplex);
  const events: Running['events'] = [];
  qmp.onEvent(({ event, data }) => events.push({ event, data }));
  await qmp.negotiate();
  return {
    qmp,
    child,
    events,
    text: () => said,
    exited,
    async event(name) {
      const limit = Date.now() + 20_000;
      while (!events.some((e) => e.event === name)) {
        if (Date.now() > limit) throw new Error(`No event ${name}; heard ${events.map((e) => e.event).join(' ')}\n${said}`);
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    },
  };
}
