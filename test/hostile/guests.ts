// Guests that mean harm, each a few instructions: what they do to the machine, and how a run of them must end.

import assert from 'node:assert/strict';
import { asm, le, mov32, mov64, wrmsr } from './asm.ts';
import { type Outcome, RAM, type Rig, type RunOptions } from './rig.ts';

export interface Guest {
  readonly name: string;
  /** Puts code and registers in place. */
  readonly prepare: (rig: Rig) => void;
  readonly run?: RunOptions;
  /** How it ends; any end will do where this is left out. */
  readonly ends?: Outcome;
  /** Throws where the guest did not get what it must get. */
  readonly then?: (rig: Rig) => void;
}

const CODE = 0x8000;
const HANDLER = 0x9000;
const hlt = asm('f4');
/** Where paging puts 0 a second time. */
const HIGH = 0xffff_8000_0000_0000n;

function flat(rig: Rig, ...code: readonly (string | Uint8Array)[]): void {
  rig.flat(CODE, HANDLER);
  rig.put(CODE, asm(...code));
  rig.put(HANDLER, hlt);
}
function long(rig: Rig, ...code: readonly (string | Uint8Array)[]): void {
  rig.long(CODE, HANDLER);
  rig.put(CODE, asm(...code));
  rig.put(HANDLER, hlt);
}
/** Vector n of the 64-bit IDT goes to a HLT of its own, at 0xA000 + 16 n. */
function vectors(rig: Rig): void {
  for (let v = 0; v < 256; v++) {
    rig.view.setUint16(0x4000 + v * 16, 0xa000 + v * 16, true);
    rig.put(0xa000 + v * 16, hlt);
  }
}
const vectorOf = (rig: Rig): number => Math.floor((Number(rig.get('rip')) - 0xa000) / 16);
const took =
  (vector: number, cr2?: bigint): ((rig: Rig) => void) =>
  (rig) => {
    assert.equal(vectorOf(rig), vector, `vector, at ${rig.get('rip').toString(16)}`);
    if (cr2 !== undefined) assert.equal(rig.get('cr2'), cr2);
  };

/** 64-bit code that meets an exception: `vector`, and CR2. */
const faulting = (name: string, vector: number, cr2: bigint | undefined, prepare: (rig: Rig) => void): Guest => ({
  name,
  prepare: (rig) => {
    long(rig);
    vectors(rig);
    prepare(rig);
  },
  ends: 'idle',
  then: took(vector, cr2),
});

const endless: readonly Guest[] = [
  { name: 'a loop with interrupts off', prepare: (rig) => flat(rig, 'fa ebfe'), ends: 'running' },
  { name: 'HLT with interrupts off', prepare: (rig) => flat(rig, 'fa f4 ebfd'), ends: 'idle' },
  {
    name: 'HLT all over a segment of 64 KiB, with an NMI held off by another',
    prepare: (rig) => {
      // The NMI handler sends another NMI, which waits for IRET, and halts for ever.
      rig.flat(CODE, 0x20000);
      rig.put(CODE, asm('c70500f3e0fe', le(0x1ff, 4), mov32(0, 0x4400), 'a30003e0fe', 'ebfe'));
      rig.ram.fill(0xf4, 0x20000, 0x40000);
      rig.put(0x20000, asm(mov32(0, 0x4400), 'a30003e0fe'));
      rig.set({ 'cs.limit': 0x3ffff });
    },
  },
  { name: 'an undefined instruction whose handler is one, too', prepare: (rig) => {
      rig.ram.fill(0xf4);
      rig.real(0x500);
      rig.set({ 'ss.base': 0x10000 });
      rig.put(0x500, asm('0f0b'));
      for (let v = 0; v < 256; v++) rig.view.setUint32(v * 4, 0x600, true);
      rig.put(0x600, asm('0f0b'));
    }, ends: 'running' },
  { name: 'single steps for ever, the handler sets TF itself', prepare: (rig) => flat(rig, '9c 800c2401 fe442401 9d 90 ebf0'), run: { turns: 5 } },
  { name: 'prefixes without an end', prepare: (rig) => {
      rig.flat(CODE, CODE);
      rig.ram.fill(0x66, 0x8000, 0x100000);
      rig.set({ rsp: 0xd000_0000 });
    } },
]; // biome-ignore format: a table

const transfers: readonly Guest[] = [
  faulting('a jump to an unmapped page', 14, 0x40_0000_0000n, (rig) => rig.put(CODE, asm(mov64(0, 0x40_0000_0000n), 'ffe0'))),
  faulting('a jump to an address that is not canonical', 13, undefined, (rig) => rig.put(CODE, asm(mov64(0, 0x8000_0000_0000n), 'ffe0'))),
  faulting('a jump to the last byte of the address space', 14, 0xffff_ffff_ffff_ffffn, (rig) => rig.put(CODE, asm(mov64(0, -1n), 'ffe0'))),
  faulting('a jump into the local APIC', 6, undefined, (rig) => rig.put(CODE, asm(mov64(0, 0xfee0_0000n), 'ffe0'))),
  faulting('a jump into a hole', 6, undefined, (rig) => rig.put(CODE, asm(mov64(0, 0x3000_0000n), 'ffe0'))),
  faulting('code that runs over the end of RAM', 6, undefined, (rig) => {
    rig.put(CODE, asm(mov64(0, RAM - 8), 'ffe0'));
    rig.ram.fill(0x90, RAM - 8);
  }),
  faulting('an instruction across the end of RAM', 14, undefined, (rig) => {
    // mov eax, [disp32]: the displacement lies outside RAM and is as if it were zero.
    rig.put(CODE, asm(mov64(0, RAM - 3), 'ffe0'));
    rig.put(RAM - 3, asm('8b0425'));
    rig.quad(0x13000, 0n);
  }),
  faulting('an instruction across the end of the address space', 14, 0n, (rig) => {
    rig.quad(0x10000 + 511 * 8, 0x11007n);
    rig.quad(0x11000 + 511 * 8, 0x12007n);
    rig.quad(0x12000 + 511 * 8, 0x600087n);
    rig.put(0x600000 + 0x1ffffe, asm('8b04'));
    rig.quad(0x13000, 0n);
    rig.put(CODE, asm(mov64(0, -2n), 'ffe0'));
  }),
  { name: 'a triple fault', prepare: (rig) => {
      long(rig, '0f0b');
      rig.set({ 'idtr.limit': 0 });
    }, ends: 'shutdown' },
  { name: 'code and stack outside RAM', prepare: (rig) => {
      rig.flat(0xd000_0000, 0xd000_0000);
      rig.set({ rsp: 0xd800_0000 });
    }, ends: 'running' },
  { name: 'a page fault whose handler is unmapped, with a stack that never faults', prepare: (rig) => {
      flat(rig, '0f0b');
      for (let i = 0; i < 1024; i++) rig.view.setUint32(0x21000 + i * 4, (i << 12) | 3, true);
      rig.view.setUint32(0x20000, 0x21003, true);
      for (let i = 0x3c0; i < 0x400; i++) rig.view.setUint32(0x20000 + i * 4, (i << 22) | 0x83, true);
      for (let v = 0; v < 256; v++) rig.quad(0x2000 + v * 8, 0x4000_8e00_0008_0000n);
      rig.set({ cr3: 0x20000, cr4: 0x10, cr0: 0x8000_0011n, rsp: 0xf800_0000 });
    }, run: { turns: 50 } },
  { name: 'a page fault whose handler is unmapped', prepare: (rig) => {
      long(rig, asm(mov64(0, 0x40_0000_0000n), 'ffe0'));
      for (let v = 0; v < 256; v++) rig.quad(0x4008 + v * 16, 0x7fn);
      rig.quad(0x13000 + 6 * 8, 0n);
    }, ends: 'shutdown' },
]; // biome-ignore format: a table

/** A page table entry at `table` set to `entry`, then a read and a write through it, then a jump. */
const walks = (name: string, table: number, entry: bigint): Guest => ({
  name: `${name} as an entry at ${table.toString(16)}`,
  prepare: (rig) => {
    long(rig, mov64(0, 0x4020_0000n), '8b18 8918 ff00 f0ff08 ffe0');
    rig.quad(0x11000 + 8, 0x50007n);
    rig.quad(0x50000 + 8, 0x51007n);
    rig.quad(0x51000, 0x600007n);
    rig.put(0x600000, asm('00000000'));
    rig.quad(table, entry);
  },
  run: { turns: 5 },
});
const places: readonly (readonly [string, bigint])[] = [
  ['MMIO', 0xfee0_0007n],
  ['a hole', 0xd000_0007n],
  ['the first address after RAM', BigInt(RAM) | 7n],
  ['the top of the physical space', 0xff_ffff_f007n],
  ['reserved bits', 0x000f_ff00_0000_0007n],
  ['a large page with reserved bits', 0x2087n],
  ['all ones', -1n],
];
const paging: readonly Guest[] = [
  ...[0x11008, 0x50008, 0x51000].flatMap((table) => places.map(([name, entry]) => walks(name, table, entry))),
  ...[0x11008, 0x50008, 0x51000].map((table) => walks('its own table', table, BigInt(table & ~0xfff) | 7n)),
  ...places.map(([name, entry]): Guest => ({ name: `CR3 at ${name}`, prepare: (rig) => long(rig, mov64(0, entry & ~7n), '0f22d8 ebfe'), run: { turns: 5 } })),
  {
    name: 'a PML4 whose entries all name it, written through itself',
    prepare: (rig) => {
      long(rig, mov64(7, 0xffff_ffff_ffff_f000n), mov64(1, 512), mov64(0, 0x10007), 'f348ab ebfe');
      for (let n = 1; n < 512; n++) rig.quad(0x10000 + n * 8, 0x10007n);
    },
    run: { turns: 5 },
  },
  { name: 'PAE with CR3 at the end of RAM', prepare: (rig) => {
      flat(rig, mov32(0, RAM - 8), '0f22d8', mov32(0, 0x20), '0f22e0', mov32(0, 0x8000_0011), '0f22c0 ebfe');
    }, run: { turns: 5 } },
]; // biome-ignore format: a table

/** A descriptor-table register at `base` with a limit of 64 KiB, and everything that reads through it. */
const tables = (what: 'gdtr' | 'idtr' | 'tr' | 'ldtr', base: bigint): Guest => ({
  name: `${what} at ${base.toString(16)}`,
  prepare: (rig) => {
    const uses = { gdtr: '8ed8', idtr: 'cd80', tr: 'ec', ldtr: '8ee0' } as const;
    long(rig, '66b8 0c00', uses[what], '66b80800 8ed8 0f00d0 0f00d8 0f02c0 cd03 48cf');
    rig.set({ [`${what}.base`]: base, [`${what}.limit`]: 0xffff, ...(what === 'tr' ? { cpl: 3 } : {}) });
    if (what === 'ldtr') rig.set({ 'ldtr.attr': 0x82, 'ldtr.selector': 0x30 });
  },
  run: { turns: 5 },
});
const descriptors: readonly Guest[] = (['gdtr', 'idtr', 'tr', 'ldtr'] as const).flatMap((what) =>
  [BigInt(RAM - 4), BigInt(RAM - 0x84), 0xfee0_0000n, 0x3000_0000n, 0x1f_fffcn, 0x40_0000_0000n, 0xffff_ffff_ffff_fffcn, 0x7fff_ffff_fffcn].map((base) =>
    tables(what, base),
  ),
); // biome-ignore format: one list

/** An unmapped page with a mapped one before it. */
const GAP = 0x1f_0000;
const torn: readonly Guest[] = [
  faulting('an IDT gate whose second half is unmapped', 14, BigInt(GAP), (rig) => {
    rig.quad(0x13000 + (GAP >> 12) * 8, 0n);
    const base = GAP - 8 - 0x80 * 16;
    rig.ram.copyWithin(base, 0x4000, 0x5000);
    rig.set({ 'idtr.base': base });
    rig.put(CODE, asm('cd80'));
  }),
  faulting('a descriptor whose second half is unmapped', 14, BigInt(GAP), (rig) => {
    rig.quad(0x13000 + (GAP >> 12) * 8, 0n);
    const base = GAP - 4 - 0x20;
    rig.ram.copyWithin(base, 0x1000, 0x1038);
    rig.set({ 'gdtr.base': base });
    rig.put(CODE, asm('66b82300 8ed8'));
  }),
  {
    name: 'a TSS whose stack pointer is half unmapped',
    prepare: (rig) => {
      long(rig, 'cd80');
      rig.quad(0x13000 + (GAP >> 12) * 8, 0n);
      rig.view.setUint8(0x4000 + 0x80 * 16 + 5, 0xee);
      rig.set({ 'tr.base': GAP - 8, cpl: 3, 'cs.selector': 0x1b, 'cs.attr': 0xa0fb, 'ss.selector': 0x23, 'ss.attr': 0xc0f3 });
    },
    ends: 'shutdown',
  },
];

const selfModifying: readonly Guest[] = [
  {
    name: 'code that changes every byte of the page that it runs in',
    prepare: (rig) => flat(rig, mov32(1, 0x1000), mov32(7, CODE), 'b8 f4000000 f3aa ebfe'),
    ends: 'idle',
  },
  {
    name: 'a loop that changes an immediate of itself each time round',
    // l: mov eax, imm; inc dword [l+1]; cmp eax, 5000; jne l; hlt
    prepare: (rig) => flat(rig, mov32(0, 0), 'ff05', le(CODE + 1, 4), '3d 88130000 75ee f4'),
    run: { turns: 3000 },
    ends: 'idle',
    then: (rig) => assert.equal(rig.get('rax'), 5000n),
  },
  {
    name: 'a loop that changes the instruction behind the store',
    // l: inc ecx; mov byte [x], 0x42 (inc edx); x: inc edx or dec edx; mov byte [x], 0x4a; cmp ecx, 1000; jne l; hlt
    prepare: (rig) => flat(rig, '41 c605', le(CODE + 8, 4), '42 4a c605', le(CODE + 8, 4), '4a 81f9 e8030000 75e8 f4'),
    run: { turns: 3000 },
    ends: 'idle',
    then: (rig) => assert.equal(rig.get('rdx'), 0x60fb1n + 1000n),
  },
  {
    name: 'a store that crosses into the page of code behind it',
    prepare: (rig) => {
      // jmp to the page's end; there: mov dword [CODE + 0xffe], 0xf4f4....
      flat(rig, '41 c705', le(CODE + 0xffe, 4), 'f4f4f4f4 81f9 64000000 7502 ebfe', mov32(0, CODE + 0xffd), 'ffe0');
      rig.put(CODE + 0xffd, asm('90 90 90 90 90 ebfe'));
      rig.put(CODE + 0x1000, asm('90 90'));
    },
    ends: 'idle',
  },
  {
    name: 'code written through another mapping of its page',
    // The upper half maps the same page: mov byte [HIGH + x], hlt; x: jmp x
    prepare: (rig) => long(rig, mov64(0, HIGH + BigInt(CODE + 13)), 'c600f4 ebfe'),
    ends: 'idle',
  },
]; // biome-ignore format: a table

const stacks: readonly Guest[] = [0xfee0_0100, 0xd000_0100, RAM, RAM + 4, RAM - 6, 4, 0].flatMap((rsp) => [
  {
    name: `32-bit stack at ${rsp.toString(16)}`,
    prepare: (rig: Rig) => {
      flat(rig, '50 58 6a01 9c 9d 60 61 e800000000 c8100002 c9 0e 6800800000 cb');
      rig.set({ rsp });
    },
    run: { turns: 5 },
  },
  {
    name: `64-bit stack at ${rsp.toString(16)}`,
    prepare: (rig: Rig) => {
      long(rig, '50 58 6a01 9c 9d e800000000 c8100002 c9 cd80 cc 48cf');
      rig.set({ rsp });
    },
    run: { turns: 5 },
  },
]);

const string = (name: string, code: string, rsi: number | bigint, rdi: number | bigint, rcx: number | bigint): Guest => ({
  name: `${name}: ${code} from ${rsi.toString(16)} to ${rdi.toString(16)}, ${rcx.toString(16)} times`,
  prepare: (rig) => {
    long(rig, code, 'ebfe');
    rig.set({ rsi, rdi, rcx });
  },
  run: { turns: 8 },
});
const huge = 0xffff_ffff_ffff_ffffn;
const strings: readonly Guest[] = [
  ...['f3a4', 'f348a5', 'fdf3a4', 'f348ab', 'f3aa', 'f348ad', 'f2ae', 'f3a6', 'f36c', 'f36e', 'f366ab'].flatMap((code) => [
    string('over MMIO', code, 0xfee0_0000, 0xfee0_0000, huge),
    string('into the HPET', code, 0x8000, 0xfed0_0000, huge),
    string('over a hole', code, 0x3000_0000, 0x3100_0000, huge),
    string('over the end of RAM', code, RAM - 0x2001, RAM - 0x1001, huge),
    string('over the end of the address space', code, huge, huge, huge),
    string('over its own code', code, 0x7000, 0x7ffd, huge),
    string('over the page tables', code, 0x100000, 0xfff3, huge),
  ]),
  string('32-bit addresses, round the end', '67f3a4', 0xffff_fff0, 0x100, 0xffff_ffff),
  string('32-bit addresses, round the end', '67f348ab', 0xffff_fff0, 0xffff_fff0, 0xffff_ffff),
];

/** `mov dword [gpa], value` in flat mode. */
const poke = (gpa: number, value: number): Uint8Array => asm('c705', le(gpa, 4), le(value, 4));
const LAPIC = 0xfee0_0000;
const command = (high: number, low: number): Uint8Array =>
  asm(poke(LAPIC + 0xf0, 0x1ff), poke(LAPIC + 0x310, high), poke(LAPIC + 0x300, low));

const interprocessor: readonly Guest[] = [0x400, 0x4400, 0x500, 0x4500, 0x8500, 0x600, 0x4608, 0x200, 0x700, 0x300, 0x40, 0x05, 0x4040, 0x140].flatMap((mode) =>
  [0, 0x4_0000, 0x8_0000, 0xc_0000].flatMap((shorthand) =>
    [0, 0x700_0000, 0xff00_0000].map((destination): Guest => ({
      name: `interprocessor interrupt ${(mode | shorthand).toString(16)} to ${destination.toString(16)}`,
      prepare: (rig) => {
        flat(rig, 'fb', command(destination, mode | shorthand), 'ebfe');
        rig.put(0, asm('ebfe'));
      },
      run: { turns: 4, slice: 2000 },
    })),
  ),
); // biome-ignore format: one list

/** A guest with a timer: interrupts count in memory at 0x6000 while the main loop counts in ECX. */
const timer = (name: string, ...setup: readonly Uint8Array[]): Guest => ({
  name,
  prepare: (rig) => {
    flat(rig, ...setup, 'fb 41 ebfd');
    // inc dword [0x6000]; EOI of the local APIC and the 8259As; read register C of the RTC; iret
    rig.put(HANDLER, asm('50 ff0500600000', poke(LAPIC + 0xb0, 0), 'b020 e6a0 e620 b00c e670 e471 58 cf'));
  },
  run: { turns: 60, slice: 5000 },
  ends: 'running',
  then: (rig) => assert.ok(rig.get('rcx') > 1000n, `the guest made no progress: ${rig.get('rcx')}`),
});
const out = (port: number, value: number): Uint8Array => asm('66ba', le(port, 2), 'b0', le(value, 1), 'ee');
const pic = asm(
  out(0x20, 0x11),
  out(0x21, 0x20),
  out(0x21, 4),
  out(0x21, 1),
  out(0xa0, 0x11),
  out(0xa1, 0x28),
  out(0xa1, 2),
  out(0xa1, 1),
  out(0x21, 0),
  out(0xa1, 0),
);
const on = poke(LAPIC + 0xf0, 0x1ff);
const HPET = 0xfed0_0000;
const timers: readonly Guest[] = [
  ...[0, 1, 0xffff_ffff].flatMap((count) => [0, 0x2_0000].map((mode) =>
    timer(`local APIC timer, count ${count}, mode ${mode.toString(16)}`, on, poke(LAPIC + 0x3e0, 0xb), poke(LAPIC + 0x320, 0x40 | mode), poke(LAPIC + 0x380, count)),
  )),
  ...[0n, 1n, huge, 1n << 63n].map((deadline) => timer(`TSC deadline ${deadline.toString(16)}`, on, poke(LAPIC + 0x320, 0x4_0040), wrmsr(0x6e0, deadline))),
  ...[0, 1, 0xffff_ffff].flatMap((period) => [0x4c, 0x14c, 0x4e, 0x44].map((config) =>
    timer(`HPET period ${period.toString(16)}, configuration ${config.toString(16)}`, pic, on, poke(LAPIC + 0x350, 0x700),
      poke(HPET + 0x100, config), poke(HPET + 0x108, period), poke(HPET + 0x108, period), poke(HPET + 0x10, 3)),
  )),
  ...[0x30, 0x32, 0x34, 0x36, 0x38, 0x3a, 0x35].flatMap((mode) => [0, 1, 2].map((count) =>
    timer(`PIT mode ${mode.toString(16)}, count ${count}`, pic, on, poke(LAPIC + 0x350, 0x700), out(0x43, mode), out(0x40, count), out(0x40, 0)),
  )),
  timer('RTC at its highest rate', pic, on, poke(LAPIC + 0x350, 0x700), out(0x70, 10), out(0x71, 0x21), out(0x70, 11), out(0x71, 0x72)),
]; // biome-ignore format: a list

const paravirtual: readonly Guest[] = [0x11, 0x12, 0x4b56_4d00, 0x4b56_4d01, 0x4b56_4d03, 0x4b56_4d04, 0x4b56_4d05].map(
  (msr) => ({
    name: `MSR ${msr.toString(16)} at MMIO, odd places, the end of RAM, the running code`,
    prepare: (rig: Rig) => {
      const values = [
        LAPIC,
        LAPIC | 1,
        CODE | 1,
        CODE,
        RAM - 4,
        (RAM - 3) | 1,
        RAM - 64 + 1,
        3,
        0x40,
        huge,
        -2n,
        1n << 63n,
        0xff_ffff_ffc1n,
      ];
      flat(
        rig,
        on,
        poke(LAPIC + 0x320, 0x2_0040),
        poke(LAPIC + 0x380, 100),
        ...values.map((v) => asm(wrmsr(msr, BigInt(v)), 'fb f4')),
        'ebfe',
      );
      // #GP: leave out the WRMSR. Anything else: EOI.
      rig.put(HANDLER, asm(poke(LAPIC + 0xb0, 0), 'cf'));
      rig.put(HANDLER + 0x100, asm('83442404 02 83c404 cf'));
      rig.view.setUint16(0x2000 + 13 * 8, HANDLER + 0x100, true);
    },
    run: { turns: 100 },
  }),
);

const flood: readonly Guest[] = [
  {
    name: 'a flood on the serial port',
    prepare: (rig) => flat(rig, '66baf803 b041 ee ebfd'),
    ends: 'running',
    then: (rig) => assert.match(rig.console, /^A+$/),
  },
  {
    name: 'a flood of resets',
    prepare: (rig) => flat(rig, '66baf90c b006 ee ebfd'),
    then: (rig) => assert.equal(rig.events[0]?.kind, 'reset'),
  },
  { name: 'a flood of power-offs', prepare: (rig) => flat(rig, out(0x70, 0), '66ba0406 66b80034 66ef ebfc') },
];

export const guests: readonly Guest[] = [
  ...endless, ...transfers, ...paging, ...descriptors, ...torn, ...selfModifying, ...stacks, ...strings, ...interprocessor, ...timers, ...paravirtual, ...flood,
]; // biome-ignore format: a list
