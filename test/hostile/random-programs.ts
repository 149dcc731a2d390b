// Random but well-formed programs in flat protected mode, by seed: each step is an access to a port, a device's registers, an MSR, a
// hypercall, a control register or CPUID, with numbers that are often at an edge. Steps that fault are left out by the handler.

import { asm, le, mov32, Random, wrmsr } from './asm.ts';
import { RAM, type Rig } from './rig.ts';

const STEPS = 400;
const CODE = 0x20000;
const HANDLER = 0x9000;

const windows = [
  [0xfee0_0000, 0x400],
  [0xfec0_0000, 0x50],
  [0xfed0_0000, 0x180],
  [0xb000_0000, 0x1000],
  [0xb00f_8000, 0x1000],
  [0xfffe_0000, 0x2_0000],
  [RAM - 16, 32],
  [0x3000_0000, 0x1000],
] as const;
const msrs = [
  0x10, 0x11, 0x12, 0x1b, 0x3b, 0x8b, 0xc1, 0xe7, 0xfe, 0x174, 0x175, 0x176, 0x179, 0x17a, 0x1a0, 0x1d9, 0x200, 0x20f, 0x250, 0x277,
  0x2ff, 0x6e0, 0x800, 0x808, 0x80b, 0x80d, 0x80f, 0x830, 0x832, 0x838, 0x83e, 0x83f, 0xda0, 0x4b56_4d00, 0x4b56_4d01, 0x4b56_4d03,
  0x4b56_4d04, 0x4b56_4d05, 0x4b56_4d06, 0xc000_0080, 0xc000_0081, 0xc000_0082, 0xc000_0100, 0xc000_0103, 0xc001_0015, 0x4000_0000,
] as const; // biome-ignore format: a list
const ports = [0x20, 0x21, 0x40, 0x43, 0x60, 0x61, 0x64, 0x70, 0x71, 0x80, 0x92, 0xa0, 0xa1, 0xb2, 0xcf8, 0xcf9, 0xcfc, 0x3f8, 0x3fd, 0x2f8, 0x600, 0x604, 0x608, 0xf4, 0xe0, 0xe9] as const; // biome-ignore format: a list

function step(random: Random): Uint8Array {
  const word = (): number => Number(random.edgy() & 0xffff_ffffn);
  switch (random.below(10)) {
    case 0:
    case 1: {
      const port = random.below(4) ? random.pick(ports) + random.below(4) : random.below(0x10000);
      return asm(mov32(2, port), mov32(0, word()), random.pick(['ee', '66ef', 'ef', 'ec', '66ed', 'ed']));
    }
    case 2:
    case 3:
    case 4: {
      const [base, length] = random.pick(windows);
      const at = base + (random.below(4) ? random.below(length) & ~15 : random.below(length));
      const access = ['8803', '668903', '8903', '8a03', '668b03', '8b03', 'f00103', 'f00fb10b', 'dd03', 'dd1b', '0f110b', '0f1003', '8703', '0fc70b', 'f00fc70b', 'ff33', '8f03'] as const; // biome-ignore format: a list
      return asm(mov32(3, at), mov32(0, word()), random.pick(access));
    }
    case 5:
    case 6: {
      const msr = random.below(8) ? random.pick(msrs) : word();
      return random.below(3) ? wrmsr(msr, random.edgy()) : asm(mov32(1, msr), '0f32');
    }
    case 7:
      return asm(
        mov32(0, random.below(14)),
        mov32(3, word()),
        mov32(1, word()),
        mov32(2, word()),
        mov32(6, word()),
        random.pick(['0f01c1', '0f01d9']),
      );
    case 8:
      return random.pick([
        asm('fb'),
        asm('fa'),
        asm('fb90'),
        asm(mov32(0, word()), mov32(1, word()), '0fa2'),
        asm('0f31'),
        asm('0f20c0'),
        asm(mov32(0, word()), '0f22e0'),
      ]);
    default:
      return random.pick([
        random.below(16) ? asm('fb') : asm('fbf4'),
        asm(mov32(0, word()), '0f23f8'),
        asm(mov32(0, word()), '0f23c0'),
        asm(mov32(0, random.below(4)), mov32(1, 0), '0f01d1'),
        asm('0f09'),
      ]);
  }
}

/** Puts the vCPU before a random program that starts again at its end. */
export function prepareProgram(rig: Rig, seed: number): void {
  const random = new Random(seed);
  rig.reset(seed);
  rig.flat(CODE, HANDLER);
  const starts: number[] = [];
  let at = CODE;
  for (let n = 0; n < STEPS; n++) {
    starts.push(at);
    const bytes = step(random);
    rig.put(at, bytes);
    at += bytes.length;
  }
  rig.put(at, asm('e9', le(CODE - at - 5, 4)));
  // Interrupts: EOI to the local APIC and the 8259As. Exceptions: on at the next step, ESI counts them.
  rig.put(HANDLER, asm('50 c705b000e0fe00000000 b020 e6a0 e620 58 cf'));
  const skip = HANDLER + 0x100;
  // ESI is kept in memory: the steps load it. mov esi, [0xa000]; inc esi; cmp esi, STEPS; jb +2; xor esi, esi; mov [0xa000], esi; …
  rig.put(skip, asm('fa bc00700000 8b3500a00000 46 81fe', le(STEPS, 4), '7202 31f6 893500a00000 ff24b500b00000'));
  for (const [n, start] of starts.entries()) rig.view.setUint32(0xb000 + n * 4, start, true);
  for (let v = 0; v < 32; v++) {
    rig.view.setUint16(0x2000 + v * 8, skip & 0xffff, true);
    rig.view.setUint16(0x2000 + v * 8 + 6, skip >>> 16, true);
  }
  // The local APIC and the 8259As on, so that interrupts come.
  rig.set({ cr4: 0x600, sysFlags: 0x200 });
}
