// Proves of the WebAssembly that regions become that no access leaves what it may touch: each address is a constant place in the vCPU's
// state, a pointer whose range is known, or the host address that a look at a cell or at the TLB has checked, for the bytes that it has
// checked. It reads the bytes, not the IR, and trusts nothing of the translator's. docs/decisions/017-proving-emitted-code.md says what is taken
// as given.
//
// Abstract interpretation over structured control flow: values are numbered, a tag says what is known of one, and facts say what
// conditions have told on the way here.

import * as st from '../../isa/x86/state.ts';
import { effectOf, type WasmFunction, type WasmInsn, type WasmModule } from '../../wasm/decode.ts';
import { Cell, Look } from './cells.ts';
import { Area, CELL_BYTES, REGION_CELLS, REGION_SITES, REGIONS_MAX, SHADOW_BYTES, SITE_BYTES } from './layout.ts';

/** What is known of a value. */
type Tag =
  /** From `lo` to `hi` in steps of `step`, from the start of the vCPU's area or from 0. */
  | { readonly kind: 'range'; readonly env: boolean; readonly lo: number; readonly hi: number; readonly step: number }
  /** The host address of something that was looked up, plus `from`; `bytes` of it were checked. */
  | { readonly kind: 'host'; readonly bytes: number; readonly from: number }
  /** A host address, or 0. */
  | { readonly kind: 'maybe'; readonly bytes: number }
  /** The host address of bytes up to a page's end, for repeated string instructions, or 0. */
  | { readonly kind: 'span' }
  /** The key under which cells hold; never 0. */
  | { readonly kind: 'key' };

interface Value {
  readonly id: number;
  readonly op: number;
  readonly args: readonly Value[];
  /** Constant, offset of a load, or 0. */
  readonly imm: bigint;
  /** Of a load: how often memory had been written. */
  readonly epoch: number;
  readonly tag: Tag | null;
}

/** What a condition has told. `a` and `b` are numbers of values. */
type Fact =
  | { readonly kind: 'cell'; readonly cell: number; readonly a: number; readonly bytes: number; readonly epoch: number }
  | { readonly kind: 'tlb'; readonly a: number; readonly b: number; readonly bytes: number; readonly epoch: number }
  | { readonly kind: 'some'; readonly a: number }
  | { readonly kind: 'below'; readonly a: number; readonly end: number };

interface State {
  locals: Value[];
  stack: Value[];
  facts: Fact[];
  epoch: number;
}

type Tree =
  | { readonly kind: 'plain'; readonly insn: WasmInsn }
  | { readonly kind: 'block' | 'loop'; readonly result: boolean; readonly body: readonly Tree[] }
  | { readonly kind: 'if'; readonly result: boolean; readonly then: readonly Tree[]; readonly else: readonly Tree[] };

interface Label {
  readonly loop: boolean;
  readonly result: boolean;
  readonly height: number;
  into: State | null;
}

/** An access that could not be proven, or another thing that a region must not do. */
export interface Unproven {
  readonly function: number;
  /** Place of the instruction in the module. */
  readonly at: number;
  readonly what: string;
}

export interface Proof {
  readonly unproven: readonly Unproven[];
  /** Accesses by what they go to. */
  readonly proven: Readonly<Record<'state' | 'guest', number>>;
  /** Copies, fills and stores of repeated string instructions, whose length against the page's end is not followed. */
  readonly given: number;
  /** Of each function, places of the instructions that some way leads to; the rest never runs. */
  readonly reached: readonly ReadonlySet<number>[];
}

const PAGE = 4096;
const [XOR64, OR64, AND64, ADD64, SHL64, WRAP, EXTEND_S, EXTEND_U] = [0x85, 0x84, 0x83, 0x7c, 0x86, 0xa7, 0xac, 0xad];
/** A state address before it was widened. */
const narrow = (v: Value): Value => (v.op === EXTEND_U ? v.args[0]! : v);
const OPAQUE = -1;
const TLB_BYTES = st.TLB_ENTRIES * st.TLB_ENTRY_BYTES;
const SYSTEM_TLBS = Area.mailbox - TLB_BYTES;

/** State slots whose contents are pointers that only the engine makes. A region that sets one has to keep to this. */
const pointers: ReadonlyMap<number, Tag> = new Map<number, Tag>([
  ...[st.tlb, st.tlbSystem, st.tlbNone, ...st.tlbs].map(
    (s) => [s.offset, { kind: 'range', env: true, lo: Area.tlbs, hi: SYSTEM_TLBS, step: TLB_BYTES }] as const,
  ),
  [st.callTop.offset, { kind: 'range', env: true, lo: Area.shadow, hi: Area.shadow + SHADOW_BYTES - 8, step: 8 }] as const,
]);

/** What of the vCPU's area a region may write: its slots, the shadow stack, ways out and cells. */
const writable: readonly (readonly [number, number])[] = [
  [Area.state, st.STATE_BYTES],
  [Area.shadow, Area.shadow + SHADOW_BYTES],
  [Area.sites, Area.sites + REGIONS_MAX * REGION_SITES * SITE_BYTES],
  [Area.cells, Area.cells + REGIONS_MAX * REGION_CELLS * CELL_BYTES],
];

const rangeOf = (v: Value): (Tag & { kind: 'range' }) | null => (v.tag?.kind === 'range' ? v.tag : null);

function mergeTags(a: Tag | null, b: Tag | null): Tag | null {
  if (!a || !b) return null;
  if (a.kind === 'host' && b.kind === 'maybe') return mergeTags(b, a);
  if (a.kind === 'maybe' && b.kind === 'host' && b.from === 0) return { ...a, bytes: Math.min(a.bytes, b.bytes) };
  if (a.kind !== b.kind) return null;
  if (a.kind === 'range' && b.kind === 'range') {
    if (a.env !== b.env) return null;
    const [lo, hi] = [Math.min(a.lo, b.lo), Math.max(a.hi, b.hi)];
    const step = a.step === b.step && (a.lo - b.lo) % a.step === 0 ? a.step : 1;
    return { ...a, lo, hi, step };
  }
  if (a.kind === 'host' && b.kind === 'host') return a.from === b.from ? { ...a, bytes: Math.min(a.bytes, b.bytes) } : null;
  if (a.kind === 'maybe' && b.kind === 'maybe') return { ...a, bytes: Math.min(a.bytes, b.bytes) };
  return a;
}
const sameTag = (a: Tag | null, b: Tag | null): boolean => JSON.stringify(a) === JSON.stringify(b);

/** Structured control flow of a function's code. */
function treeOf(code: readonly WasmInsn[]): Tree[] {
  let at = 0;
  const sequence = (): Tree[] => {
    const list: Tree[] = [];
    for (; at < code.length; ) {
      const insn = code[at++]!;
      if (insn.op === 0x0b || insn.op === 0x05) {
        at--;
        return list;
      }
      if (insn.op >= 0x02 && insn.op <= 0x04) {
        const result = insn.index !== -64;
        const body = sequence();
        if (insn.op !== 0x04) list.push({ kind: insn.op === 0x03 ? 'loop' : 'block', result, body });
        else {
          let other: Tree[] = [];
          if (code[at]!.op === 0x05) {
            at++;
            other = sequence();
          }
          list.push({ kind: 'if', result, then: body, else: other });
        }
        at++;
      } else list.push({ kind: 'plain', insn });
    }
    return list;
  };
  return sequence();
}

/** Locals that code sets. */
function setsOf(list: readonly Tree[], into = new Set<number>()): Set<number> {
  for (const t of list) {
    if (t.kind === 'plain') {
      if (t.insn.op === 0x21 || t.insn.op === 0x22) into.add(t.insn.index);
    } else if (t.kind === 'if') {
      setsOf(t.then, into);
      setsOf(t.else, into);
    } else setsOf(t.body, into);
  }
  return into;
}

class FunctionProof {
  readonly unproven: { at: number; what: string }[] = [];
  readonly counts = { state: 0, guest: 0, given: 0 };
  readonly #module: WasmModule;
  readonly #hosts: ReadonlySet<string>;
  /** Places of instructions that some way leads to. */
  readonly reached = new Set<number>();
  readonly #labels: Label[] = [];
  readonly #known = new Map<string, number>();
  #ids = 0;
  #epochs = 0;

  constructor(module: WasmModule, hosts: ReadonlySet<string>) {
    this.#module = module;
    this.#hosts = hosts;
  }

  run(f: WasmFunction): void {
    const env = this.#opaque({ kind: 'range', env: true, lo: 0, hi: 0, step: 1 });
    const locals = Array.from({ length: f.locals }, (_, i) =>
      i === 0 ? env : i < f.type.params.length ? this.#opaque(null) : this.#constant(0n),
    );
    this.#labels.push({ loop: false, result: f.type.results.length > 0, height: 0, into: null });
    this.#list(treeOf(f.code), { locals, stack: [], facts: [], epoch: this.#epochs });
  }

  // -- values

  #opaque(tag: Tag | null): Value {
    return { id: this.#ids++, op: OPAQUE, args: [], imm: 0n, epoch: 0, tag };
  }
  #value(op: number, args: readonly Value[], imm: bigint, epoch: number, tag: Tag | null): Value {
    const key = `${op} ${args.map((a) => a.id).join()} ${imm} ${epoch}`;
    let id = this.#known.get(key);
    if (id === undefined) this.#known.set(key, (id = this.#ids++));
    return { id, op, args, imm, epoch, tag };
  }
  #constant(value: bigint): Value {
    const n = Number(BigInt.asUintN(32, value));
    return this.#value(0x41, [], value, 0, { kind: 'range', env: false, lo: n, hi: n, step: 1 });
  }
  /** What arithmetic tells of its result. */
  #tagOf(op: number, args: readonly Value[], imm: bigint, s: State): Tag | null {
    const ranges = args.map(rangeOf);
    const [x, y] = ranges;
    const bounded = (env: boolean, lo: number, hi: number, step: number): Tag | null =>
      lo >= 0 && hi < 2 ** 32 ? { kind: 'range', env, lo, hi, step } : null;
    switch (op) {
      case 0x28: {
        const of = args[0]!;
        const pointer =
          rangeOf(of)?.env && rangeOf(of)!.lo === 0 && rangeOf(of)!.hi === 0 ? pointers.get(Number(imm)) : undefined;
        return pointer ?? null;
      }
      case 0x2d:
      case 0x31:
        return { kind: 'range', env: false, lo: 0, hi: 255, step: 1 };
      case 0x2f:
      case 0x33:
        return { kind: 'range', env: false, lo: 0, hi: 65535, step: 1 };
      case EXTEND_U:
        return x;
      case WRAP: {
        // What a callee gives is cut to 32 bits, but in a memory with 64-bit addresses.
        const { tag } = args[0]!;
        return tag?.kind === 'maybe' || tag?.kind === 'span' ? (this.#module.wide ? null : tag) : x;
      }
      case ADD64:
      case 0x6a: {
        const host = this.#hostOf(args, s);
        if (host) return host;
        const near = args.find((a) => a.tag?.kind === 'host');
        const constant = args.find((a) => a.op === 0x41);
        if (near?.tag?.kind === 'host' && constant)
          return { ...near.tag, from: near.tag.from + Number(BigInt.asIntN(32, constant.imm)) };
        if (op === ADD64) return null;
        if (!x || !y || (x.env && y.env)) return null;
        const step = x.lo === x.hi ? y.step : y.lo === y.hi ? x.step : 1;
        // A constant near 2^32 is one that is taken away.
        const away = (r: typeof x): typeof x =>
          r.lo === r.hi && !r.env && r.lo >= 2 ** 31 ? { ...r, lo: r.lo - 2 ** 32, hi: r.hi - 2 ** 32 } : r;
        const [a, b] = [away(x), away(y)];
        return bounded(x.env || y.env, a.lo + b.lo, a.hi + b.hi, step);
      }
      case 0x6b:
        if (!x || !y || y.env) return null;
        return bounded(x.env, x.lo - y.hi, x.hi - y.lo, y.lo === y.hi ? x.step : 1);
      case 0x6c:
        if (!x || !y || x.env || y.env) return null;
        return bounded(false, x.lo * y.lo, x.hi * y.hi, y.lo === y.hi ? x.step * y.lo : 1);
      case 0x71: {
        const tops = ranges.filter((r) => r !== null && !r.env).map((r) => r!.hi);
        return tops.length > 0 ? { kind: 'range', env: false, lo: 0, hi: Math.min(...tops), step: 1 } : null;
      }
      case 0x74:
        return x && y && !x.env && y.lo === y.hi && y.lo < 32 ? bounded(false, x.lo * 2 ** y.lo, x.hi * 2 ** y.lo, 1) : null;
      case 0x76:
        return y && !y.env && y.lo === y.hi
          ? { kind: 'range', env: false, lo: 0, hi: Math.floor((x && !x.env ? x.hi : 2 ** 32 - 1) / 2 ** (y.lo & 31)), step: 1 }
          : null;
      case 0x70:
        return y && !y.env && y.lo === y.hi && y.lo > 0 ? { kind: 'range', env: false, lo: 0, hi: y.lo - 1, step: 1 } : null;
      case OR64: {
        // The key: the slot, and which TLB is meant.
        const slot = args.find((a) => this.#slotLoad(a) === st.cellKey.offset);
        return slot ? { kind: 'key' } : null;
      }
      default:
        // Comparisons.
        return (op >= 0x45 && op <= 0x66) || op === 0x50 ? { kind: 'range', env: false, lo: 0, hi: 1, step: 1 } : null;
    }
  }
  /** The slot of the state that a value was loaded from. */
  #slotLoad(v: Value): number | undefined {
    if (v.op !== 0x29 && v.op !== 0x28) return undefined;
    const base = rangeOf(v.args[0]!);
    return base?.env && base.lo === 0 && base.hi === 0 ? Number(v.imm) : undefined;
  }
  /** The host address that adding an addend gives, where what it belongs to was found to hold. */
  #hostOf(args: readonly Value[], s: State): Tag | null {
    const cut = (v: Value): Value | undefined =>
      v.op === WRAP ? v : v.op === EXTEND_U && v.args[0]!.op === WRAP ? v.args[0]! : undefined;
    const wrapped = cut(args[0]!) ?? cut(args[1]!);
    let addend = cut(args[0]!) ? args[1]! : args[0]!;
    // In a memory with 64-bit addresses it counts pages.
    if (addend.op === SHL64)
      addend = addend.args[1]!.imm === 12n && addend.args[0]!.op === EXTEND_S ? addend.args[0]!.args[0]! : addend;
    if (!wrapped || addend.op !== 0x28) return null;
    const address = wrapped.args[0]!;
    const from = narrow(addend.args[0]!);
    const place = this.#slotLoad(addend);
    let bytes = 0;
    for (const f of s.facts) {
      if (f.kind !== 'cell' && f.kind !== 'tlb') continue;
      if (f.epoch !== addend.epoch) continue;
      const holds =
        f.kind === 'cell'
          ? f.a === address.id && place === f.cell + Cell.addend
          : f.a === from.id && f.b === address.id && addend.imm === 8n;
      if (holds) bytes = Math.max(bytes, f.bytes);
    }
    return bytes > 0 ? { kind: 'host', bytes, from: 0 } : null;
  }

  // -- conditions

  /** Notes what follows from a condition that is true, or false. */
  #assume(s: State, c: Value, is: boolean): void {
    if (c.op === 0x45) {
      this.#assume(s, c.args[0]!, !is);
      return;
    }
    if (c.op === 0x50) {
      if (!is) s.facts.push({ kind: 'some', a: c.args[0]!.id });
      return;
    }
    if (is && c.op === 0x71) for (const a of c.args) this.#assume(s, a, true);
    if (!is && c.op === 0x72) for (const a of c.args) this.#assume(s, a, false);
    if (is) s.facts.push({ kind: 'some', a: c.id });
    const [x, y] = c.args;
    const zero = c.op === 0x47 ? 0x41 : c.op === 0x52 ? 0x42 : undefined;
    if (is && zero !== undefined && y!.op === zero && y!.imm === 0n) s.facts.push({ kind: 'some', a: x!.id });
    if (c.op === 0x4f && !is) {
      const limit = rangeOf(y!);
      if (limit?.env && limit.lo === limit.hi) s.facts.push({ kind: 'below', a: x!.id, end: limit.hi });
    }
    if (!is) return;
    if (c.op === 0x58 && x!.op === OR64 && y!.op === 0x42) this.#assumeCell(s, x!, PAGE - Number(y!.imm));
    // Reading: (tag ^ last byte) < page. Writing: tag = last byte without its place in the page.
    if (c.op === 0x54 && x!.op === XOR64 && y!.op === 0x42 && y!.imm === BigInt(PAGE))
      this.#assumeTlb(s, x!.args[0]!, x!.args[1]!);
    if (c.op === 0x51)
      for (const [tag, masked] of [
        [x!, y!],
        [y!, x!],
      ] as const)
        if (masked.op === AND64) {
          const [last, mask] = masked.args;
          if (mask!.op === 0x42 && mask!.imm === BigInt(-PAGE)) this.#assumeTlb(s, tag, last!);
        }
  }
  /** (page ^ address) | (key ^ key now) ≤ 4096 − bytes. */
  #assumeCell(s: State, sum: Value, bytes: number): void {
    if (bytes <= 0 || bytes > PAGE) return;
    for (const [pages, keys] of [sum.args, [...sum.args].reverse()]) {
      if (pages!.op !== XOR64 || keys!.op !== XOR64) continue;
      for (const [page, address] of [pages!.args, [...pages!.args].reverse()]) {
        const cell = this.#slotLoad(page!);
        const filled = keys!.args.find((k) => cell !== undefined && this.#slotLoad(k) === cell - Cell.page + Cell.key);
        const now = keys!.args.find((k) => k.tag?.kind === 'key');
        if (cell === undefined || !filled || !now || page!.epoch !== filled.epoch) continue;
        const place = cell - Cell.page - Area.cells;
        if (place < 0 || place % CELL_BYTES !== 0 || place >= REGIONS_MAX * REGION_CELLS * CELL_BYTES) continue;
        s.facts.push({ kind: 'cell', cell: cell - Cell.page, a: address!.id, bytes, epoch: page!.epoch });
      }
    }
  }
  /** The entry's tag names the page of `last`, the last byte of an access. */
  #assumeTlb(s: State, tag: Value, last: Value): void {
    if (tag.op !== 0x29 || tag.imm !== 0n) return;
    const entry = narrow(tag.args[0]!);
    const range = rangeOf(entry);
    if (!range?.env || range.lo < Area.tlbs || range.hi + st.TLB_ENTRY_BYTES > Area.mailbox) return;
    // The entry is the one of the access's first byte: the table's base, and the page's number times 16 in it.
    const number = entry.op === 0x6a ? entry.args.find((a) => a.op === 0x71) : undefined;
    const wrapped = number?.args.find((a) => a.op === WRAP);
    const shifted = wrapped?.args[0];
    const mask = number?.args.find((a) => a.op === 0x41);
    if (shifted?.op !== 0x88 || shifted.args[1]!.imm !== 8n || mask?.imm !== BigInt((st.TLB_ENTRIES - 1) << 4)) return;
    const address = shifted.args[0]!;
    let bytes = 0;
    if (last.id === address.id) bytes = 1;
    else if (last.op === ADD64 && last.args[0]!.id === address.id && last.args[1]!.op === 0x42)
      bytes = Number(last.args[1]!.imm) + 1;
    if (bytes >= 1 && bytes <= 64) s.facts.push({ kind: 'tlb', a: entry.id, b: address.id, bytes, epoch: tag.epoch });
  }
  /** A value with what facts tell of it here. */
  #seen(v: Value, s: State): Value {
    if (v.tag?.kind === 'maybe') {
      return s.facts.some((f) => f.kind === 'some' && f.a === v.id)
        ? { ...v, tag: { kind: 'host', bytes: v.tag.bytes, from: 0 } }
        : v;
    }
    const r = rangeOf(v);
    if (!r?.env) return v;
    let { hi } = r;
    for (const f of s.facts) if (f.kind === 'below' && f.a === v.id) hi = Math.min(hi, f.end - 1);
    return hi === r.hi ? v : { ...v, tag: { ...r, hi: r.lo + Math.floor((hi - r.lo) / r.step) * r.step } };
  }

  /** A page's address that a condition has told from 0, whole or cut to 32 bits. */
  #isSpan(v: Value, s: State): boolean {
    if (v.op === WRAP && !this.#module.wide) return this.#isSpan(v.args[0]!, s);
    return v.tag?.kind === 'span' && s.facts.some((f) => f.kind === 'some' && f.a === v.id);
  }

  // -- control

  #copy(s: State): State {
    return { locals: [...s.locals], stack: [...s.stack], facts: [...s.facts], epoch: s.epoch };
  }
  #merge(a: State | null, b: State | null): State | null {
    if (!a || !b) return a ?? b;
    const join = (x: Value, y: Value): Value => {
      const tag = mergeTags(x.tag, y.tag);
      return x.id === y.id ? { ...x, tag } : this.#opaque(tag);
    };
    const keys = new Set(b.facts.map((f) => JSON.stringify(f)));
    return {
      locals: a.locals.map((v, i) => join(v, b.locals[i]!)),
      stack: a.stack.map((v, i) => join(v, b.stack[i]!)),
      facts: a.facts.filter((f) => keys.has(JSON.stringify(f))),
      epoch: a.epoch === b.epoch ? a.epoch : ++this.#epochs,
    };
  }
  /** Goes to a label with the state here. */
  #jump(s: State, depth: number): void {
    const label = this.#labels[this.#labels.length - 1 - depth]!;
    const to = this.#copy(s);
    const result = label.result && !label.loop ? [to.stack.at(-1)!] : [];
    to.stack = [...to.stack.slice(0, label.height), ...result];
    label.into = this.#merge(label.into, to);
  }
  #list(list: readonly Tree[], from: State): State | null {
    let s: State | null = from;
    for (const t of list) {
      if (!s) return null;
      if (t.kind === 'plain') s = this.#plain(t.insn, s);
      else if (t.kind === 'block') s = this.#block(t.body, t.result, s);
      else if (t.kind === 'loop') s = this.#loop(t.body, t.result, s);
      else if (t.kind === 'if') {
        const c = s.stack.pop()!;
        const other = this.#copy(s);
        this.#assume(s, c, true);
        this.#assume(other, c, false);
        s = this.#merge(this.#block(t.then, t.result, s), this.#block(t.else, t.result, other));
      }
    }
    return s;
  }
  #block(body: readonly Tree[], result: boolean, s: State): State | null {
    const label: Label = { loop: false, result, height: s.stack.length, into: null };
    this.#labels.push(label);
    const end = this.#list(body, s);
    this.#labels.pop();
    if (end && end.stack.length !== label.height + (result ? 1 : 0))
      throw new Error(`Cannot follow the code: a block ends with ${end.stack.length - label.height} values`);
    return this.#merge(end, label.into);
  }
  /** Assumes that what is known of locals stays so, and goes round again with less until it does. */
  #loop(body: readonly Tree[], result: boolean, s: State): State | null {
    const changed = setsOf(body);
    const tags = new Map([...changed].map((n) => [n, s.locals[n]!.tag]));
    for (let round = 0; ; round++) {
      const start = this.#copy(s);
      start.epoch = ++this.#epochs;
      for (const n of changed) start.locals[n] = this.#opaque(tags.get(n)!);
      const label: Label = { loop: true, result, height: s.stack.length, into: null };
      const before = { refused: this.unproven.length, ...this.counts };
      // Labels outside hear of this round only if it is the last.
      const outer = this.#labels.map((l) => l.into);
      this.#labels.push(label);
      const end = this.#list(body, start);
      this.#labels.pop();
      let stable = true;
      for (const n of changed) {
        const back = label.into ? mergeTags(tags.get(n)!, label.into.locals[n]!.tag) : tags.get(n)!;
        if (sameTag(back, tags.get(n)!)) continue;
        tags.set(n, round < 3 ? back : null);
        stable = false;
      }
      if (stable) return end;
      this.unproven.length = before.refused;
      for (const k of ['state', 'guest', 'given'] as const) this.counts[k] = before[k];
      for (const [i, l] of this.#labels.entries()) l.into = outer[i]!;
    }
  }

  // -- instructions

  #refuse(insn: WasmInsn, what: string): void {
    this.unproven.push({ at: insn.at, what });
  }
  #plain(insn: WasmInsn, s: State): State | null {
    const { op } = insn;
    this.reached.add(insn.at);
    switch (op) {
      case 0x00:
        return null;
      case 0x01:
        return s;
      case 0x0c:
        this.#jump(s, insn.index);
        return null;
      case 0x0d: {
        const c = s.stack.pop()!;
        const taken = this.#copy(s);
        this.#assume(taken, c, true);
        this.#jump(taken, insn.index);
        this.#assume(s, c, false);
        return s;
      }
      case 0x0e:
        s.stack.pop();
        for (const l of new Set(insn.labels)) this.#jump(s, l);
        return null;
      case 0x0f:
        return null;
      case 0x10:
      case 0x12:
      case 0x11:
      case 0x13:
        return this.#call(insn, s);
      case 0x1a:
        s.stack.pop();
        return s;
      case 0x1b:
      case 0x1c: {
        s.stack.pop();
        const b = s.stack.pop()!;
        const a = s.stack.pop()!;
        s.stack.push(this.#opaque(mergeTags(a.tag, b.tag)));
        return s;
      }
      case 0x20:
        s.stack.push(this.#seen(s.locals[insn.index]!, s));
        return s;
      case 0x21:
        s.locals[insn.index] = s.stack.pop()!;
        return s;
      case 0x22:
        s.locals[insn.index] = s.stack.at(-1)!;
        return s;
      case 0x41:
        s.stack.push(this.#constant(insn.value));
        return s;
      case 0x42:
        s.stack.push(this.#value(0x42, [], insn.value, 0, null));
        return s;
    }
    const effect = effectOf(op);
    if (!effect) {
      this.#refuse(insn, `instruction 0x${op.toString(16)}`);
      return null;
    }
    const args = s.stack.splice(s.stack.length - effect.takes, effect.takes);
    // Copies go from such an address to such an address, or a place behind one.
    const bulk = op === 0xfc00a ? [args[0]!, args[1]!] : op === 0xfc00b ? [args[0]!] : [];
    for (const a of bulk) {
      const whole = a.op === WRAP && !this.#module.wide ? a.args[0]! : a;
      if (this.#isSpan(a, s) || (whole.op === ADD64 && whole.args.some((x) => this.#isSpan(x, s)))) this.counts.given++;
      else this.#refuse(insn, 'memory.copy or memory.fill at what is no address of a page');
    }
    const isLoad = effect.takes === 1 && effect.gives === 1;
    if (effect.bytes !== undefined) {
      if (op <= 0x3e && insn.offset === 0 && this.#isSpan(args[0]!, s)) this.counts.given++;
      else this.#access(insn, args[0]!, effect.bytes, !isLoad);
      if (!isLoad) {
        this.#keep(insn, args);
        s.epoch = ++this.#epochs;
      }
    }
    if (effect.gives === 0) return s;
    const imm = BigInt(insn.offset);
    const epoch = effect.bytes === undefined ? 0 : s.epoch;
    // What an atomic gives, and constants and lanes of vectors, are values of their own.
    const plain = op <= 0xc4 && (effect.bytes === undefined || isLoad) && op !== 0x43 && op !== 0x44;
    s.stack.push(plain ? this.#value(op, args, imm, epoch, this.#tagOf(op, args, imm, s)) : this.#opaque(null));
    return s;
  }
  /** Slots with pointers get none but such. */
  #keep(insn: WasmInsn, args: readonly Value[]): void {
    const base = rangeOf(args[0]!);
    if (!base?.env) return;
    const bytes = effectOf(insn.op)!.bytes!;
    for (const [slot, tag] of pointers) {
      const hit = base.lo + insn.offset < slot + 4 && base.hi + insn.offset + bytes > slot;
      if (!hit) continue;
      const value = rangeOf(args[1]!);
      const allowed = tag as Tag & { kind: 'range' };
      const good =
        insn.op === 0x36 &&
        base.lo === base.hi &&
        base.lo + insn.offset === slot &&
        value?.env === true &&
        value.lo >= allowed.lo &&
        value.hi <= allowed.hi &&
        value.step % allowed.step === 0 &&
        (value.lo - allowed.lo) % allowed.step === 0;
      const constant = value?.lo === value?.hi && value !== null && value.env && (value.lo - allowed.lo) % allowed.step === 0;
      if (!good && !(constant && value!.lo >= allowed.lo && value!.hi <= allowed.hi))
        this.#refuse(
          insn,
          `the slot at ${slot} gets ${value ? `${value.lo} to ${value.hi} by ${value.step}` : 'what is no such pointer'}`,
        );
    }
  }
  #access(insn: WasmInsn, address: Value, bytes: number, write: boolean): void {
    const { tag } = address;
    if (tag?.kind === 'host') {
      const at = tag.from + insn.offset;
      if (at < 0 || at + bytes > tag.bytes)
        return this.#refuse(insn, `${bytes} bytes at ${at} of ${tag.bytes} that were checked`);
      this.counts.guest++;
      return;
    }
    if (tag?.kind !== 'range')
      return this.#refuse(insn, `${write ? 'a store' : 'a load'} whose address is not known${tag ? `: ${tag.kind}` : ''}`);
    const [lo, hi] = [tag.lo + insn.offset, tag.hi + insn.offset + bytes];
    if (!tag.env) return this.#refuse(insn, `an address that is no pointer: ${lo} to ${hi}`);
    const fits = write ? writable.some(([from, to]) => lo >= from && hi <= to) : lo >= 0 && hi <= Area.records;
    if (!fits) return this.#refuse(insn, `${write ? 'a store' : 'a load'} from ${lo} to ${hi} of the vCPU's area`);
    this.counts.state++;
  }
  #call(insn: WasmInsn, s: State): State | null {
    const indirect = insn.op === 0x11 || insn.op === 0x13;
    if (indirect) s.stack.pop();
    const { imports, functions, types } = this.#module;
    const name = indirect ? '' : (imports[insn.index]?.name ?? '');
    const type = indirect ? types[insn.index]! : (imports[insn.index] ?? functions[insn.index - imports.length])!.type;
    const args = s.stack.splice(s.stack.length - type.params.length, type.params.length);
    if (!this.#hosts.has(name)) {
      const env = args[0] && rangeOf(args[0]);
      if (!env?.env || env.lo !== 0 || env.hi !== 0) this.#refuse(insn, `a call of ${name || 'a function'} with another state`);
    }
    if (insn.op === 0x12 || insn.op === 0x13) return null;
    s.epoch = ++this.#epochs;
    if (type.results.length === 0) return s;
    const look = name === 'cellLook' && args[2]!.op === 0x41 ? Number(BigInt.asUintN(32, args[2]!.imm)) : 0;
    if (name === 'hostSpan') s.stack.push(this.#opaque({ kind: 'span' }));
    else s.stack.push(this.#opaque(look ? { kind: 'maybe', bytes: (look >> Look.bytesShift) & Look.mask } : null));
    return s;
  }
}

/** Proves a module of regions; `hosts` are the imports that take no state. */
export function prove(module: WasmModule, hosts: ReadonlySet<string>): Proof {
  const unproven: Unproven[] = [];
  const proven = { state: 0, guest: 0 };
  let given = 0;
  const reached: ReadonlySet<number>[] = [];
  module.functions.forEach((f, i) => {
    const p = new FunctionProof(module, hosts);
    p.run(f);
    unproven.push(...p.unproven.map((u) => ({ function: i + module.imports.length, ...u })));
    proven.state += p.counts.state;
    proven.guest += p.counts.guest;
    given += p.counts.given;
    reached.push(p.reached);
  });
  return { unproven, proven, given, reached };
}
