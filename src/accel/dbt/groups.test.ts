// Accesses that share a look over several blocks: random programs of loops, branches and calls whose pointers lie about page ends do in
// regions what they do in tier 0.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { seeded } from '../../bits/testing.ts';
import { rig, settle } from './testing.ts';

const PROGRAMS = 60;
/** Where the programs' data is: two pages and what lies before and behind. */
const DATA = 0x80000;
const DATA_BYTES = 0x4000;

const REGISTERS = ['rax', 'rcx', 'rdx', 'rbx', 'rsp', 'rbp', 'rsi', 'rdi', 'r8', 'r9', 'r10', 'r11', 'r12', 'r13'];
type Mode = 'long' | 'flat';
const DATA_REGISTERS = { long: [0, 2, 8, 9, 10, 11], flat: [0, 2] };
/** rbx, rsp, rbp, rsi, rdi, r12, r13. */
const POINTERS = { long: [3, 4, 5, 6, 7, 12, 13], flat: [3, 4, 5, 6, 7] };
/** Counters of loops: what sets one (an immediate of 32 bits follows), and what counts it down. */
const COUNTERS = [
  [[0xb9], [0xff, 0xc9]],
  [
    [0x41, 0xbe],
    [0x41, 0xff, 0xce],
  ],
  [
    [0x41, 0xbf],
    [0x41, 0xff, 0xcf],
  ],
];

/** One instruction with a register and a memory operand or register: REX.W prefix in 64-bit code, opcode, ModRM, SIB and displacement. */
function encode(mode: Mode, opcode: readonly number[], reg: number, base: number, disp: number | null): number[] {
  const rex = 0x48 | (reg & 8 ? 4 : 0) | (base & 8 ? 1 : 0);
  const modrm = (disp === null ? 0xc0 : 0x80) | ((reg & 7) << 3) | (base & 7);
  const rest = disp === null ? [] : [...((base & 7) === 4 ? [0x24] : []), disp & 255, (disp >> 8) & 255, (disp >> 16) & 255, (disp >> 24) & 255];
  return [...(mode === 'long' ? [rex] : []), ...opcode, modrm, ...rest];
} // biome-ignore format: one line each

/** A program that ends with HLT. Its pointers stay within 64 bytes of where they begin. */
function program(mode: Mode, next: (below: number) => number): string {
  const of = (list: readonly number[]): number => list[next(list.length)];
  const access = (): number[] => {
    const [reg, base] = [of(DATA_REGISTERS[mode]), of(POINTERS[mode])];
    const disp = next(4) === 0 ? next(800) - 400 : next(96) - 48;
    // mov r,m; mov m,r; add r,m; add m,r; movzx r,byte m; mov m,r (32 bits would need no REX.W)
    const opcodes = [[0x8b], [0x89], [0x03], [0x01], [0x0f, 0xb6], [0x89], [0x8b]];
    const prefix = mode === 'flat' && next(5) === 0 ? [0x64] : [];
    return [...prefix, ...encode(mode, opcodes[next(opcodes.length)], reg, base, disp)];
  };
  const operation = (): number[] => {
    switch (next(10)) {
      case 0: {
        const pointer = of(POINTERS[mode].filter((p) => p !== 4));
        // lea pointer,[pointer+d]: back and forth, so that it stays near.
        const d = next(32) + 1;
        return [...encode(mode, [0x8d], pointer, pointer, d), ...access(), ...encode(mode, [0x8d], pointer, pointer, -d)];
      }
      case 1:
        // mov rbp,rsp or a pointer from another.
        return encode(mode, [0x89], next(2) ? 4 : of(mode === 'long' ? [3, 6, 12] : [3, 6]), 5, null);
      case 2:
        // push, access, pop
        return [0x50 + of([0, 2]), ...access(), 0x58 + of([0, 2])];
      default:
        return access();
    }
  };
  const some = (most: number): number[] => Array.from({ length: 1 + next(most) }, operation).flat();
  /** Statements, one inside the other at most `depth` deep. */
  const statements = (depth: number): number[] => {
    const list: number[] = some(3);
    for (let n = next(3); n >= 0; n--) {
      const loops = mode === 'long' || depth === 1;
      const kind = depth === 0 ? 0 : next(loops ? 4 : 3);
      if (kind === 0) list.push(...some(3));
      else if (kind === 1) {
        // test al,imm; jz over
        const body = statements(depth - 1);
        list.push(0xa8, 1 << next(8), 0x0f, 0x84, body.length & 255, body.length >> 8, 0, 0, ...body);
      } else if (kind === 2) {
        // An alternative: test dl,imm; jz else; …; jmp end; else: …
        const [then, otherwise] = [statements(depth - 1), statements(depth - 1)];
        then.push(0xe9, otherwise.length & 255, otherwise.length >> 8, 0, 0);
        list.push(0xf6, 0xc2, 1 << next(8), 0x0f, 0x84, then.length & 255, then.length >> 8, 0, 0, ...then, ...otherwise);
      } else {
        // mov ecx,n; again: …; dec ecx; jnz again; with r14d and r15d further out
        const [set, count] = COUNTERS[depth - 1];
        const body = [...statements(depth - 1), ...count];
        const back = -(body.length + 6);
        list.push(...set, 1 + next(6), 0, 0, 0, ...body, 0x0f, 0x85, back & 255, (back >> 8) & 255, 255, 255);
      }
    }
    return list;
  };
  return Buffer.from([...statements(3), 0xf4]).toString('hex');
}

test('random programs do in regions what they do in tier 0', () => compare('long'));
test('so do 32-bit ones, whose addresses wrap', () => compare('flat'));

test('a stack that hops between two pages has its region translated anew, to look into the TLB; one that stays has not', () => {
  const regions = [0, 0x1000].map((hop) => {
    const rounds = 300_000;
    // mov ecx,rounds; again: xor rsp,hop; push rax; pop rax; mov edx,100; wait: dec edx; jnz wait; dec ecx; jnz again; hlt
    const hex = `b9${le(rounds)}4881f4${le(hop)}5058ba64000000ffca75fcffc975eaf4`;
    const { vcpu } = rig('always', hex);
    vcpu.set('rsp', BigInt(DATA + 0x800));
    vcpu.sync();
    while (vcpu.run(1_000_000) === 'interrupted');
    assert.equal(vcpu.get('rcx'), 0n);
    return vcpu.counters.read().regions;
  });
  assert.ok(regions[1] > regions[0], `${regions[0]} and ${regions[1]} regions`);
});
/** 32 bits, as instructions hold them. */
const le = (n: number): string => Buffer.from(Uint32Array.of(n).buffer).toString('hex');

function compare(mode: Mode): void {
  let made = 0;
  for (let seed = 1; seed <= PROGRAMS; seed++) {
    const next = seeded(seed);
    const hex = program(mode, next);
    // Pointers about the ends of pages, two of them on one page.
    const start: Record<string, bigint> = {};
    const count = mode === 'long' ? REGISTERS.length : 8;
    for (const name of REGISTERS.slice(0, count))
      start[name] = BigInt.asUintN(mode === 'long' ? 64 : 32, BigInt(next(2 ** 31)) * 0x1_0001n);
    const base = mode === 'flat' && seed % 3 === 0 ? 0x200 : DATA + 0x1000;
    for (const [n, p] of POINTERS[mode].entries()) start[REGISTERS[p]] = BigInt(base + 0x1000 * (n & 1) + next(1024) - 512);
    const run = (regions: 'off' | 'always'): { registers: unknown; retired: number; data: Uint8Array } => {
      const { vcpu, bytes, layout } = rig(regions, hex, mode);
      for (const [name, value] of Object.entries(start)) vcpu.set(name, value);
      const data = bytes.subarray(layout.ramBase + DATA, layout.ramBase + DATA + DATA_BYTES);
      for (let i = 0; i < data.length; i++) data[i] = (i * 167 + seed) & 255;
      vcpu.sync();
      assert.equal(settle(vcpu), 'hlt', `seed ${seed}: ${hex}`);
      made += vcpu.counters.read().regions;
      return { registers: REGISTERS.map((name) => [name, vcpu.get(name)]), retired: vcpu.instructions, data: data.slice() };
    };
    const [plain, regions] = [run('off'), run('always')];
    assert.deepEqual(regions.registers, plain.registers, `seed ${seed}: ${hex}`);
    assert.equal(regions.retired, plain.retired, `seed ${seed}`);
    assert.ok(Buffer.from(regions.data).equals(plain.data), `seed ${seed}: memory differs: ${hex}`);
  }
  assert.ok(made > PROGRAMS, `${made} regions`);
}
