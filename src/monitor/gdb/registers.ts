// The registers that gdb sees of an x86-64 vCPU, as one table: the target description, `g`, `G`, `p` and `P` follow from it.
// GDB manual, "Target Descriptions", "i386 Features".

import { readRflags, writeRflags } from '../../isa/x86/rflags.ts';
import * as st from '../../isa/x86/state.ts';
import { S } from '../../isa/x86/state.ts';

export interface GdbRegister {
  readonly name: string;
  readonly bits: number;
  /** gdb's type. */
  readonly type: string;
  readonly feature: string;
  readonly read: (state: DataView) => Uint8Array;
  readonly write: (state: DataView, bytes: Uint8Array) => void;
}

type SlotLike = { readonly offset: number; readonly access: { readonly bits: number } };

const CORE = 'org.gnu.gdb.i386.core';
const SSE = 'org.gnu.gdb.i386.sse';
const SEGMENTS = 'org.gnu.gdb.i386.segments';
/** Ours: gdb shows what it does not know as it is described. */
const SYSTEM = 'org.nonroot.x86.system';

/** A register of one slot, or of the lower bytes of one. */
const slot = (feature: string, name: string, s: SlotLike, bits: number, type: string): GdbRegister => ({
  name,
  bits,
  type,
  feature,
  read: (state) => new Uint8Array(state.buffer, state.byteOffset + s.offset, bits / 8).slice(),
  write: (state, bytes) => new Uint8Array(state.buffer, state.byteOffset + s.offset, bits / 8).set(bytes.subarray(0, bits / 8)),
});
/** 32 bits that are made of something. */
const word = (
  feature: string,
  name: string,
  type: string,
  read: (s: DataView) => number,
  write: (s: DataView, v: number) => void,
): GdbRegister => ({
  name,
  bits: 32,
  type,
  feature,
  read: (state) => new Uint8Array(Uint32Array.of(read(state)).buffer),
  write: (state, bytes) => write(state, new DataView(bytes.buffer, bytes.byteOffset, 4).getUint32(0, true)),
});

const general = [
  'rax',
  'rbx',
  'rcx',
  'rdx',
  'rsi',
  'rdi',
  'rbp',
  'rsp',
  'r8',
  'r9',
  'r10',
  'r11',
  'r12',
  'r13',
  'r14',
  'r15',
] as const;
const u32 = (state: DataView, s: SlotLike): number => state.getUint32(s.offset, true);

/** ST(i), counted from the top of the stack. */
const st87 = (i: number): GdbRegister => ({
  name: `st${i}`,
  bits: 80,
  type: 'i387_ext',
  feature: CORE,
  read(state) {
    const { mant, exp } = st.fpr[(u32(state, st.fpTop) + i) & 7]!;
    const out = new Uint8Array(10);
    const view = new DataView(out.buffer);
    view.setBigUint64(0, state.getBigUint64(mant.offset, true), true);
    view.setUint16(8, state.getUint16(exp.offset, true), true);
    return out;
  },
  write(state, bytes) {
    const { mant, exp } = st.fpr[(u32(state, st.fpTop) + i) & 7]!;
    const view = new DataView(bytes.buffer, bytes.byteOffset, 10);
    state.setBigUint64(mant.offset, view.getBigUint64(0, true), true);
    state.setUint16(exp.offset, view.getUint16(8, true), true);
  },
});
const ignored = (): void => {};

export const gdbRegisters: readonly GdbRegister[] = [
  ...general.map((name) => slot(CORE, name, st.gpr[st.R[name]]!, 64, name === 'rbp' || name === 'rsp' ? 'data_ptr' : 'int64')),
  slot(CORE, 'rip', st.rip, 64, 'code_ptr'),
  word(
    CORE,
    'eflags',
    'i386_eflags',
    (s) => Number(readRflags(s, 0)),
    (s, v) => writeRflags(s, 0, BigInt(v)),
  ),
  ...(['cs', 'ss', 'ds', 'es', 'fs', 'gs'] as const).map((name) => slot(CORE, name, st.segSelector[S[name]]!, 32, 'int32')),
  ...Array.from({ length: 8 }, (_, i) => st87(i)),
  word(
    CORE,
    'fctrl',
    'int',
    (s) => u32(s, st.fpCw) & 0xffff,
    (s, v) => s.setUint32(st.fpCw.offset, v & 0xffff, true),
  ),
  word(
    CORE,
    'fstat',
    'int',
    (s) => (u32(s, st.fpSw) & ~0x3800 & 0xffff) | ((u32(s, st.fpTop) & 7) << 11),
    (s, v) => {
      s.setUint32(st.fpSw.offset, v & 0xffff & ~0x3800, true);
      s.setUint32(st.fpTop.offset, (v >> 11) & 7, true);
    },
  ),
  // Two bits for each register; those that hold something count as valid.
  word(
    CORE,
    'ftag',
    'int',
    (s) => Array.from({ length: 8 }, (_, i) => ((u32(s, st.fpValid) >> i) & 1 ? 0 : 3 << (2 * i))).reduce((a, b) => a | b, 0),
    (s, v) => {
      let valid = 0;
      for (let i = 0; i < 8; i++) if (((v >> (2 * i)) & 3) !== 3) valid |= 1 << i;
      s.setUint32(st.fpValid.offset, valid, true);
    },
  ),
  word(CORE, 'fiseg', 'int', (s) => Number((s.getBigUint64(st.fpIp.offset, true) >> 32n) & 0xffffn), ignored),
  word(CORE, 'fioff', 'int', (s) => Number(s.getBigUint64(st.fpIp.offset, true) & 0xffff_ffffn), ignored),
  word(CORE, 'foseg', 'int', (s) => Number((s.getBigUint64(st.fpDp.offset, true) >> 32n) & 0xffffn), ignored),
  word(CORE, 'fooff', 'int', (s) => Number(s.getBigUint64(st.fpDp.offset, true) & 0xffff_ffffn), ignored),
  word(CORE, 'fop', 'int', (s) => u32(s, st.fpOpcode), ignored),
  ...Array.from({ length: 16 }, (_, i) => slot(SSE, `xmm${i}`, st.xmm[i]!, 128, 'vec128')),
  slot(SSE, 'mxcsr', st.mxcsr, 32, 'i386_mxcsr'),
  slot(SEGMENTS, 'fs_base', st.segBase[S.fs]!, 64, 'int'),
  slot(SEGMENTS, 'gs_base', st.segBase[S.gs]!, 64, 'int'),
  slot(SYSTEM, 'k_gs_base', st.kernelGsBase, 64, 'int64'),
  slot(SYSTEM, 'cr0', st.cr0, 64, 'int64'),
  slot(SYSTEM, 'cr2', st.cr2, 64, 'data_ptr'),
  slot(SYSTEM, 'cr3', st.cr3, 64, 'data_ptr'),
  slot(SYSTEM, 'cr4', st.cr4, 64, 'int64'),
  slot(SYSTEM, 'efer', st.efer, 64, 'int64'),
];

/** Types that gdb does not bring. */
const types: Readonly<Record<string, string>> = {
  [CORE]: `<flags id="i386_eflags" size="4">
${['CF:0', ':1', 'PF:2', 'AF:4', 'ZF:6', 'SF:7', 'TF:8', 'IF:9', 'DF:10', 'OF:11', 'NT:14', 'RF:16', 'VM:17', 'AC:18', 'VIF:19', 'VIP:20', 'ID:21'].map((f) => `<field name="${f.split(':')[0]}" start="${f.split(':')[1]}" end="${f.split(':')[1]}"/>`).join('\n')}
</flags>`,
  [SSE]: `<vector id="v4f" type="ieee_single" count="4"/><vector id="v2d" type="ieee_double" count="2"/>
<vector id="v16i8" type="int8" count="16"/><vector id="v8i16" type="int16" count="8"/><vector id="v4i32" type="int32" count="4"/>
<vector id="v2i64" type="int64" count="2"/>
<union id="vec128"><field name="v4_float" type="v4f"/><field name="v2_double" type="v2d"/><field name="v16_int8" type="v16i8"/>
<field name="v8_int16" type="v8i16"/><field name="v4_int32" type="v4i32"/><field name="v2_int64" type="v2i64"/>
<field name="uint128" type="uint128"/></union>
<flags id="i386_mxcsr" size="4">
${['IE:0', 'DE:1', 'ZE:2', 'OE:3', 'UE:4', 'PE:5', 'DAZ:6', 'IM:7', 'DM:8', 'ZM:9', 'OM:10', 'UM:11', 'PM:12', 'FZ:15'].map((f) => `<field name="${f.split(':')[0]}" start="${f.split(':')[1]}" end="${f.split(':')[1]}"/>`).join('\n')}
</flags>`,
};

/** The target description, `target.xml`. */
export function targetXml(): string {
  const features = [...new Set(gdbRegisters.map((r) => r.feature))];
  const group = (r: GdbRegister): string =>
    /^(f|st)/.test(r.name) && r.feature === CORE && r.name !== 'fs' ? ' group="float"' : '';
  return `<?xml version="1.0"?><!DOCTYPE target SYSTEM "gdb-target.dtd"><target><architecture>i386:x86-64</architecture>
${features
  .map(
    (feature) => `<feature name="${feature}">
${types[feature] ?? ''}
${gdbRegisters.map((r, n) => (r.feature === feature ? `<reg name="${r.name}" bitsize="${r.bits}" type="${r.type}" regnum="${n}"${group(r)}/>\n` : '')).join('')}</feature>`,
  )
  .join('\n')}
</target>
`;
}
