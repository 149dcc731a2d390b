// Random bytes as code, by seed: in real mode, in flat protected mode, and in 64-bit mode under page tables that the code may overwrite.

import { asm, Random } from './asm.ts';
import { RAM, type Rig } from './rig.ts';

export const modes = ['real', 'flat', 'long'] as const;
export type Mode = (typeof modes)[number];

/** Openings of instructions that change much: control registers, descriptor tables, MSRs, far transfers, strings, ports, XSAVE. */
const openings = [
  '0f01', '0f00', '0f20', '0f22', '0f21', '0f23', '0f30', '0f32', '0f08', '0fae', '0fc7', '0f05', '0f07', '0f34', '0f35', '0fa2',
  'f3a4', 'f3a5', 'f2ae', 'f3aa', 'f36c', 'f36e', 'ff', 'fe', 'cd', 'cf', '48cf', 'cb', '48cb', 'ca', 'ea', '9a', '8e', '8c', '17', '1f',
  '9d', '9c', 'c8', 'c9', '60', '61', '63', 'f0', '66', '67', '48', '41', '0f38', '0f3a', 'd9', 'db', 'dd', 'df', 'e4', 'e6', 'ec', 'ee',
  'f4', 'fa', 'fb', 'fc', 'fd', '0f', '0fb0', '0fb1', '0fa6', '0f0f', 'f30f', 'f20f', '660f', 'c4', 'c5', '62', '0fff', '0f0b', 'eb', '75',
] as const; // biome-ignore format: a list

const opened: readonly Uint8Array[] = openings.map((o) => asm(o));
/** Bytes that are made at random; the rest repeats them. */
const DISTINCT = 0x3001;

/** Fills bytes with random ones, of which a half opens with something from `openings`. */
export function fillCode(random: Random, bytes: Uint8Array): void {
  const end = Math.min(bytes.length, DISTINCT);
  for (let at = 0; at < end; ) {
    if (random.below(2)) {
      const opening = random.pick(opened);
      bytes.set(opening.subarray(0, end - at), at);
      at += opening.length;
    }
    let value = random.u32();
    if (random.below(4) === 0) value &= 0xff0f;
    for (let n = random.below(6); n > 0 && at < end; n--) {
      bytes[at++] = value;
      value = (value >>> 8) | (value << 24);
    }
  }
  for (let at = end; at < bytes.length; at += end) bytes.copyWithin(at, 0, Math.min(end, bytes.length - at));
}

/** Puts the vCPU before random code. */
export function prepare(rig: Rig, mode: Mode, seed: number): Random {
  const random = new Random(seed);
  rig.reset(seed);
  const somewhere = (): number => 0x14000 + random.below(0x2c000);
  if (mode === 'real') {
    fillCode(random, rig.ram.subarray(0x500, 0x40000));
    for (let v = 0; v < 256; v++) rig.view.setUint32(v * 4, 0x500 + random.below(0xf000), true);
    rig.real(0x500);
  } else {
    if (mode === 'flat') rig.flat(somewhere(), 0);
    else rig.long(somewhere(), 0);
    fillCode(random, rig.ram.subarray(0x14000, 0x40000));
    const [table, bytes] = mode === 'flat' ? [0x2000, 8] : [0x4000, 16];
    for (let v = 0; v < 256; v++) {
      const handler = somewhere();
      rig.view.setUint16(table + v * bytes, handler & 0xffff, true);
      rig.view.setUint16(table + v * bytes + 6, handler >>> 16, true);
    }
    rig.set({ rsp: 0x300000, sysFlags: random.below(4) ? 0 : 0x200 });
  }
  for (const r of ['rax', 'rcx', 'rdx', 'rbx', 'rsi', 'rdi', 'rbp', 'r8', 'r9', 'r12', 'r15']) {
    rig.set({ [r]: random.below(2) ? random.edgy() : random.below(RAM + 0x1000) });
  }
  return random;
}
