import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { MemoryLayout } from '../../accel/accel.ts';
import type { Board } from '../board.ts';
import type { MachineConfig } from '../config.ts';
import { checkManifest, manifestOf } from './state.ts';

const layout = { extraBytes: 0, vcpuBase: 0, vcpuBytes: 1 << 16 } as MemoryLayout;
const buffer = new SharedArrayBuffer(1 << 16);
const board = (more: Partial<MachineConfig>): Board =>
  ({
    config: { cpus: 1, memory: 1 << 20, cpuModel: 'max', paravirtual: [], rtcOffset: 0, trace: [], ...more },
    cpus: { list: () => [0] },
    clock: { now: () => 0 },
    devices: { list: () => [] },
  }) as unknown as Board;

test('a machine with system management mode is restored into its like alone', () => {
  const [with_, without] = [board({ smm: true }), board({})];
  checkManifest(manifestOf(with_, buffer, layout), with_, buffer, layout);
  checkManifest(manifestOf(without, buffer, layout), without, buffer, layout);
  const { smm: _, ...old } = manifestOf(without, buffer, layout);
  checkManifest(old, without, buffer, layout);
  assert.throws(
    () => checkManifest(manifestOf(with_, buffer, layout), without, buffer, layout),
    /with smm on: this one has it off/,
  );
  assert.throws(() => checkManifest(old, with_, buffer, layout), /with smm off: this one has it on/);
});

test('a machine is restored where physical addresses are as wide', () => {
  const on = (hostPhysicalBits: number | undefined, cpuModel = 'max'): Board =>
    board({ cpuModel, ...(hostPhysicalBits === undefined ? {} : { hostPhysicalBits }) });
  const check = (from: Board, to: Board): void => checkManifest(manifestOf(from, buffer, layout), to, buffer, layout);
  check(on(48), on(48));
  check(on(40), on(undefined));
  check(on(48, 'max,-host-phys-bits'), on(undefined, 'max,-host-phys-bits'));
  const { physicalBits: _, ...old } = manifestOf(on(undefined), buffer, layout);
  checkManifest(old, on(undefined), buffer, layout);
  const line = /physical addresses have (48|40) bits: this one's have (40|48); with -cpu …,host-phys-bits=off/;
  assert.throws(() => check(on(48), on(undefined)), line);
  assert.throws(() => checkManifest(old, on(48), buffer, layout), line);
});
