import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { MemoryLayout } from '../../accel/accel.ts';
import type { Board } from '../board.ts';
import type { MachineConfig } from '../config.ts';
import { checkManifest, manifestOf } from './state.ts';

const layout = { extraBytes: 0 } as MemoryLayout;
const board = (more: Partial<MachineConfig>): Board =>
  ({
    config: { cpus: 1, memory: 1 << 20, cpuModel: 'max', paravirtual: [], rtcOffset: 0, trace: [], ...more },
    cpus: { list: () => [0] },
    clock: { now: () => 0 },
    devices: { list: () => [] },
  }) as unknown as Board;

test('a machine with system management mode is restored into its like alone', () => {
  const [with_, without] = [board({ smm: true }), board({})];
  checkManifest(manifestOf(with_, layout), with_, layout);
  checkManifest(manifestOf(without, layout), without, layout);
  const { smm: _, ...old } = manifestOf(without, layout);
  checkManifest(old, without, layout);
  assert.throws(() => checkManifest(manifestOf(with_, layout), without, layout), /with smm on: this one has it off/);
  assert.throws(() => checkManifest(old, with_, layout), /with smm off: this one has it on/);
});
