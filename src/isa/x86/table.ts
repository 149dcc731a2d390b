// The decoding tables, built from the rows: from mode, opcode map, mandatory prefix, opcode and ModRM to a row.

import type { OperandSource } from './emit.ts';
import { type OperandSpec, parseOperands } from './operand.ts';
import type { Row, RowOptions, Unit } from './row.ts';

/** A row with what follows from its opcode and operands. */
export interface RowInfo {
  readonly index: number;
  readonly row: Row;
  readonly mnemonic: string;
  readonly specs: readonly OperandSpec[];
  /** Those of them whose bytes follow the address. */
  readonly trailing: readonly OperandSpec[];
  readonly hasModrm: boolean;
  readonly form: 'both' | 'mem' | 'reg';
  readonly map: 0 | 1 | 2 | 3;
  /** It has a VEX prefix; `wide` is the VEX.L that it wants, -1 where both are right. */
  readonly vex: boolean;
  readonly wide: -1 | 0 | 1;
  /** VEX.vvvv names an operand; elsewhere it must be 1111b. */
  readonly vvvv: boolean;
  readonly vsib: boolean;
  /** 0 none (NP), 1 66, 2 F3, 3 F2, or -1 where the row does not care. */
  readonly prefix: -1 | 0 | 1 | 2 | 3;
  readonly rexW: -1 | 0 | 1;
  readonly opcode: number;
  /** Number of opcode values (8 where the low bits name a register). */
  readonly span: 1 | 8;
  /** ModRM.reg that the row wants, or -1. */
  readonly digit: number;
  /** Whole ModRM byte that the row wants, or -1. */
  readonly modrm: number;
  /** Operands or rows whose meaning follows the operand size. */
  readonly sized: boolean;
  // Of the row's options, what decoding asks for each instruction: they are objects of many shapes, which is slow.
  readonly mode: RowOptions['mode'];
  readonly defaultSize: RowOptions['size'];
  readonly lockable: boolean;
  readonly repeats: boolean;
  readonly near: boolean;
  /** A near branch by a displacement. */
  readonly relative: boolean;
  readonly fp: Unit | undefined;
}

const VEX_MAPS: Readonly<Record<string, 1 | 2 | 3>> = { '0F': 1, '0F38': 2, '0F3A': 3 };
const TRAILING: ReadonlySet<OperandSource> = new Set(['imm', 'imm2', 'rel', 'is4', 'moffs']);
const PREFIXES: Readonly<Record<string, 0 | 1 | 2 | 3>> = { NP: 0, '66': 1, F3: 2, F2: 3 };

function analyse(row: Row, index: number): RowInfo {
  const fail = (why: string): never => {
    throw new Error(`Cannot declare row "${row.opcode}" ${row.asm}: ${why}`);
  };
  const words = row.opcode.trim().split(/\s+/);
  let prefix: RowInfo['prefix'] = -1;
  let rexW: RowInfo['rexW'] = -1;
  // A prefix is one only where opcode bytes follow: `66 0F 6E`, but not the opcode `90`.
  while (words.length > 1) {
    if (words[0] === 'REX.W') rexW = 1;
    else if (words[0] === 'REX.W0') rexW = 0;
    else if (words[0] in PREFIXES) prefix = PREFIXES[words[0]];
    else break;
    words.shift();
  }
  let map: RowInfo['map'] = 0;
  const vex = words[0].startsWith('VEX.');
  let wide: RowInfo['wide'] = -1;
  if (vex) {
    // `VEX.256.66.0F38.W1 00`: anything but the map may be left out.
    for (const part of words.shift()!.split('.').slice(1)) {
      if (part in PREFIXES) prefix = PREFIXES[part];
      else if (part === '128' || part === '256') wide = part === '256' ? 1 : 0;
      else if (part === 'W0' || part === 'W1') rexW = part === 'W1' ? 1 : 0;
      else if (part in VEX_MAPS) map = VEX_MAPS[part];
      else fail(`"${part}" is no part of a VEX prefix`);
    }
    if (prefix < 0) prefix = 0;
  }
  const none = row.opcode === '';
  const byte = (w: string | undefined): number =>
    w && /^[0-9A-Fa-f]{2}/.test(w) ? Number.parseInt(w.slice(0, 2), 16) : fail(`"${w}" is not a byte`);
  let first = none ? 0 : byte(words[0]);
  if (first === 0x0f && words.length > 1) {
    words.shift();
    map = 1;
    first = byte(words[0]);
    if ((first === 0x38 || first === 0x3a) && /^[0-9A-Fa-f]{2}/.test(words[1] ?? '')) {
      map = first === 0x38 ? 2 : 3;
      words.shift();
      first = byte(words[0]);
    }
  }
  let span: 1 | 8 = words[0].endsWith('+r') ? 8 : 1;
  words.shift();
  let digit = -1;
  let modrm = -1;
  let form: RowInfo['form'] = 'both';
  for (const w of words) {
    const m = /^\/([0-7])?([mr])?$/.exec(w);
    if (w === '+r') span = 8;
    else if (m) {
      if (m[1]) digit = Number(m[1]);
      if (m[2]) form = m[2] === 'm' ? 'mem' : 'reg';
    } else modrm = byte(w);
  }
  const specs = parseOperands(row.asm);
  for (const s of specs) if (s.form !== 'both') form = s.form;
  const hasModrm = digit >= 0 || modrm >= 0 || form !== 'both' || specs.some((s) => s.from === 'rm' || s.from === 'reg');
  const sized = specs.some((s) => typeof s.width === 'string' || typeof s.immWidth === 'string');
  const mnemonic = row.asm.split(' ')[0];
  const vvvv = specs.some((s) => s.from === 'vvvv');
  const vsib = specs.some((s) => s.vsib);
  const trailing = specs.filter((s) => TRAILING.has(s.from));
  const { mode, size: defaultSize, lock: lockable = false, rep: repeats = false, near = false, fp } = row.options;
  const relative = near && specs.some(({ from }) => from === 'rel');
  return {
    index, row, mnemonic, specs, trailing, hasModrm, form, map, prefix, rexW, opcode: first, span, digit, modrm, sized, vex, wide, vvvv, vsib,
    mode, defaultSize, lockable, repeats, near, relative, fp,
  }; // biome-ignore format: one object
}

/** Row numbers by key; a negative number below -1 stands for a second table by REX.W and ModRM. */
export interface Tables {
  readonly rows: readonly RowInfo[];
  /** [0] outside 64-bit code, [1] in it; index ((map * 4 + prefix) * 256 + opcode), 4 added to the map for VEX. */
  readonly first: readonly [Int16Array, Int16Array];
  /** Second tables: index (REX.W * 256 + ModRM). */
  readonly second: readonly Int16Array[];
  /** The row of NOP: see rows/pseudo.ts. */
  readonly nop: RowInfo | undefined;
}

/** How exactly a row names its encoding: more exact rows take precedence over general ones. */
const exactness = (r: RowInfo): number =>
  (r.modrm >= 0 ? 8 : 0) +
  (r.digit >= 0 ? 4 : 0) +
  (r.form !== 'both' ? 2 : 0) +
  (r.rexW >= 0 ? 1 : 0) +
  (r.prefix >= 0 ? 16 : 0);

/** The ModRM bytes that a row claims, as pieces from the first up to one behind the last. */
function claimed({ modrm, digit, form, specs }: RowInfo): readonly (readonly [number, number])[] {
  // MOV to and from control and debug registers has registers whatever ModRM.mod says.
  const anyMod = specs.some(({ cls }) => cls === 'control' || cls === 'debug');
  const [from, to] = [form === 'reg' && !anyMod ? 0xc0 : 0, form === 'mem' ? 0xc0 : 0x100];
  if (modrm >= 0) {
    const right = modrm >= from && modrm < to && (digit < 0 || digit === ((modrm >> 3) & 7));
    return right ? [[modrm, modrm + 1]] : [];
  }
  if (digit < 0) return [[from, to]];
  const pieces: [number, number][] = [];
  for (let m = from + digit * 8; m < to; m += 0x40) pieces.push([m, m + 8]);
  return pieces;
}

/** The table by REX.W and ModRM for an opcode that these rows share. Throws where two equally exact ones claim one encoding. */
function secondTable(list: readonly RowInfo[]): Int16Array {
  const table = new Int16Array(SECOND).fill(-1);
  const claims = list.map((r) => ({ r, exact: exactness(r), pieces: claimed(r) })).sort((a, b) => a.exact - b.exact);
  for (const { r, pieces } of claims) {
    for (const [from, to] of pieces) {
      if (r.rexW <= 0) table.fill(r.index, from, to);
      if (r.rexW !== 0) table.fill(r.index, 0x100 + from, 0x100 + to);
    }
  }
  // Of two equally exact rows the later one has taken what both claim, unless a more exact one has.
  for (let n = 1; n < claims.length; n++) {
    const y = claims[n];
    for (let i = n - 1; i >= 0 && claims[i].exact === y.exact; i--) {
      const x = claims[i];
      if (x.r.digit !== y.r.digit && x.r.digit >= 0 && y.r.digit >= 0) continue;
      if (x.r.rexW + y.r.rexW === 1 && x.r.rexW >= 0 && y.r.rexW >= 0) continue;
      const w = Math.max(x.r.rexW, y.r.rexW);
      for (const [from, to] of x.pieces) {
        for (const [first, end] of y.pieces) {
          for (let m = Math.max(from, first); m < Math.min(to, end); m++) {
            const held = w <= 0 && table[m] === y.r.index;
            if (!held && (w === 0 || table[0x100 + m] !== y.r.index)) continue;
            throw new Error(
              `Cannot build decoder: rows "${x.r.row.opcode}" ${x.r.row.asm} and "${y.r.row.opcode}" ${y.r.row.asm} claim one encoding`,
            );
          }
        }
      }
    }
  }
  return table;
}

/** Entries of a first table: eight maps, four prefixes, 256 opcodes. */
const FIRST = 8 * 4 * 256;
/** Entries of a second table. */
const SECOND = 2 * 256;

/** Builds the tables; of `packed`, as `packTables` has made it of the same rows, where that is there. Throws where two equally exact rows claim one encoding. */
export const buildTables = (rows: readonly Row[], packed?: Int16Array): Tables => {
  const infos = rows.map(analyse);
  if (!packed) return tablesOf(infos, () => true);
  const second: Int16Array[] = [];
  for (let at = 2 * FIRST; at < packed.length; at += SECOND) second.push(packed.subarray(at, at + SECOND));
  return { rows: infos, first: [packed.subarray(0, FIRST), packed.subarray(FIRST, 2 * FIRST)], second, nop: nopOf(infos) };
};

/** What takes time to make of tables, to be kept. */
export const packTables = ({ first, second }: Tables): Int16Array => {
  const packed = new Int16Array(2 * FIRST + second.length * SECOND);
  [...first, ...second].forEach((table, n) => packed.set(table, n < 2 ? n * FIRST : 2 * FIRST + (n - 2) * SECOND));
  return packed;
};

const nopOf = (infos: readonly RowInfo[]): RowInfo | undefined => infos.find((r) => r.row.opcode === '' && r.mnemonic === 'nop');

/**
 * The same rows by the same numbers, each with the encodings that `part` leaves it, of which null has none: what it had may be another row's. A part has
 * fewer values of VEX.L, fewer forms or modes than the whole.
 */
export function restrictTables(tables: Tables, part: (row: RowInfo) => RowInfo | null): Tables {
  const parts = tables.rows.map(part);
  return tablesOf(
    parts.map((r, n) => r ?? tables.rows[n]!),
    (r) => parts[r.index] !== null,
  );
}

function tablesOf(infos: readonly RowInfo[], there: (row: RowInfo) => boolean): Tables {
  // Lists of rows that claim an opcode, each once: prefixes and modes have most in common. A list is one that is shorter and a row.
  const lists: (readonly RowInfo[])[] = [[]];
  const longer = new Map<number, number>();
  const add = (list: number, r: RowInfo): number => {
    const key = list * infos.length + r.index;
    let number = longer.get(key);
    if (number === undefined) {
      number = lists.push([...lists[list], r]) - 1;
      longer.set(key, number);
    }
    return number;
  };
  const claims = [new Uint32Array(FIRST), new Uint32Array(FIRST)] as const;
  for (const r of infos) {
    const { mode } = r;
    if (r.row.opcode === '' || !there(r)) continue;
    const from = ((r.map + (r.vex ? 4 : 0)) * 4 + Math.max(r.prefix, 0)) * 256 + r.opcode;
    for (let p = 0; p < (r.prefix < 0 ? 4 : 1); p++) {
      for (let o = 0; o < r.span; o++) {
        const key = from + p * 256 + o;
        if (mode !== 'long') claims[0][key] = add(claims[0][key], r);
        if (!mode || mode === 'long') claims[1][key] = add(claims[1][key], r);
      }
    }
  }
  const second: Int16Array[] = [];
  /** Entries of the first tables by lists. */
  const entries: (number | undefined)[] = [-1];
  const entryOf = (number: number): number => {
    let entry = entries[number];
    if (entry === undefined) {
      const list = lists[number];
      const [only] = list;
      const plain = list.length === 1 && only.modrm < 0 && only.digit < 0 && only.form === 'both' && only.rexW < 0;
      entry = plain ? only.index : -1 - second.push(secondTable(list));
      entries[number] = entry;
    }
    return entry;
  };
  const build = (numbers: Uint32Array): Int16Array => {
    // Most opcodes are no row's.
    const first = new Int16Array(FIRST).fill(-1);
    for (let key = 0; key < FIRST; key++) if (numbers[key] !== 0) first[key] = entryOf(numbers[key]);
    return first;
  };
  return {
    rows: infos,
    first: [build(claims[0]), build(claims[1])],
    second,
    nop: nopOf(infos),
  };
}
