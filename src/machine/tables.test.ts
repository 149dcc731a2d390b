// NUMA tables against those that QEMU 7.2 gives its guest, read from the guest's memory behind SeaBIOS.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { MachineConfig, NumaConfig } from './config.ts';
import { acpiImage } from './tables.ts';

const MIB = 2 ** 20;
const GIB = 2 ** 30;

/** A table's bytes behind the header (which names its maker), in hexadecimal; undefined where there is none. */
function body(signature: string, numa: NumaConfig, ramLow: number, ramHigh: number): string | undefined {
  const config: MachineConfig = {
    cpus: numa.cpus.length,
    memory: ramLow + ramHigh,
    numa,
    machine: 'q35',
    cpuModel: 'qemu64',
    paravirtual: [],
    rtcOffset: 0,
    trace: [],
  };
  const tables = Buffer.from(acpiImage(config, { ramLow, ramHigh, virtio: [] }).tables);
  const at = tables.indexOf(signature, 0, 'latin1');
  return at < 0 ? undefined : tables.subarray(at + 36, at + tables.readUInt32LE(at + 4)).toString('hex');
}

interface Case {
  readonly numa: NumaConfig;
  readonly low: number;
  readonly high: number;
  /** Head and entries of the SRAT. */
  readonly srat: readonly string[];
  readonly slit?: string;
}

const cases: Readonly<Record<string, Case>> = {
  'two nodes with a distance': {
    numa: { nodes: [128 * MIB, 128 * MIB], cpus: [0, 0, 1, 1], distances: [10, 21, 21, 10] },
    low: 256 * MIB,
    high: 0,
    srat: [
      '010000000000000000000000',
      '00100000010000000000000000000000',
      '00100001010000000000000000000000',
      '00100102010000000000000000000000',
      '00100103010000000000000000000000',
      '0128000000000000000000000000000000000a000000000000000000010000000000000000000000',
      '012800000000000000001000000000000000f0070000000000000000010000000000000000000000',
      '01280100000000000000000800000000000000080000000000000000010000000000000000000000',
      '01280000000000000000000000000000000000000000000000000000000000000000000000000000',
    ],
    slit: '02000000000000000a15150a',
  },
  'a node on both sides of the hole below 4 GiB': {
    numa: { nodes: [GIB, 4 * GIB], cpus: [0, 1, 1, 1] },
    low: 2 * GIB,
    high: 3 * GIB,
    srat: [
      '010000000000000000000000',
      '00100000010000000000000000000000',
      '00100101010000000000000000000000',
      '00100102010000000000000000000000',
      '00100103010000000000000000000000',
      '0128000000000000000000000000000000000a000000000000000000010000000000000000000000',
      '012800000000000000001000000000000000f03f0000000000000000010000000000000000000000',
      '01280100000000000000004000000000000000400000000000000000010000000000000000000000',
      '01280100000000000000000001000000000000c00000000000000000010000000000000000000000',
    ],
  },
  'three nodes, one without memory': {
    numa: { nodes: [128 * MIB, 0, 128 * MIB], cpus: [1, 2, 0, 0], distances: [10, 20, 30, 20, 10, 255, 30, 255, 10] },
    low: 256 * MIB,
    high: 0,
    srat: [
      '010000000000000000000000',
      '00100100010000000000000000000000',
      '00100201010000000000000000000000',
      '00100002010000000000000000000000',
      '00100003010000000000000000000000',
      '0128000000000000000000000000000000000a000000000000000000010000000000000000000000',
      '012800000000000000001000000000000000f0070000000000000000010000000000000000000000',
      '01280200000000000000000800000000000000080000000000000000010000000000000000000000',
      '01280000000000000000000000000000000000000000000000000000000000000000000000000000',
      '01280000000000000000000000000000000000000000000000000000000000000000000000000000',
    ],
    slit: '03000000000000000a141e140aff1eff0a',
  },
};

for (const [name, { numa, low, high, srat, slit }] of Object.entries(cases))
  test(`SRAT and SLIT are QEMU's: ${name}`, () => {
    assert.equal(body('SRAT', numa, low, high), srat.join(''));
    assert.equal(body('SLIT', numa, low, high), slit);
  });
