// Proves of the WebAssembly that guests' code becomes, and of tier 0 and its subroutines, that no access leaves what it may touch: each address
// is a place in the vCPU's state, a pointer whose range is known, or a host address in guest RAM for the bytes that were checked. It reads
// the bytes, not the IR, and trusts nothing of the translator's. docs/decisions/017-proving-emitted-code.md says what is taken as given.
//
// Abstract interpretation over structured control flow: values are numbered, a tag says what is known of one, and facts say what
// conditions have told on the way here. What functions take and give is in contracts.ts.

import { Rec } from '../../isa/x86/record.ts';
import * as st from '../../isa/x86/state.ts';
import { effectOf, type WasmFunction, type WasmInsn, type WasmModule } from '../../wasm/decode.ts';
import { Cell, Look } from './cells.ts';
import {
  type Contract,
  contracts,
  handlerContract,
  LOCK_BYTES,
  parts,
  places,
  pointers,
  RECORD,
  RECORD_OR_NONE,
  regionContract,
  SLOT_TABLE_BYTES,
  type Take,
} from './contracts.ts';
import { Area, VCPU_BASE } from './layout.ts';
import { assume } from './prove-facts.ts';
import { mergeTags, sameTag, stepOf, type Tag } from './prove-tags.ts';
import { setsOf, type Tree, treeOf } from './prove-tree.ts';
import {
  ADD32,
  ADD64,
  AND32,
  AND64,
  alignOf,
  arms,
  besides,
  CONST32,
  CONST64,
  CONST128,
  EXTEND_U,
  entryFor,
  envRange,
  type Fact,
  fact,
  fitsPage,
  hostBySelect,
  inJumpCache,
  inRam,
  isAddend,
  isChain,
  isConst,
  isEnv,
  isLink,
  isNumberOf,
  keyOf,
  lengthFits,
  low,
  narrow,
  neverNegative,
  numberOf,
  OPAQUE,
  OR32,
  OR64,
  PAGE,
  REPLACE_LANE,
  SELECT,
  SHL64,
  SHRU32,
  STORE128,
  type State,
  SUB32,
  SUB64,
  sameRange,
  seen,
  slotLoad,
  tagOf,
  type Value,
  WRAP,
  XOR32,
  XOR64,
} from './prove-values.ts';

interface Label {
  readonly loop: boolean;
  readonly result: boolean;
  readonly height: number;
  into: State | null;
}

/** An access that could not be proven, or another thing that a region must not do. */
export interface Unproven {
  readonly function: number;
  readonly name: string;
  /** Place of the instruction in the module. */
  readonly at: number;
  readonly what: string;
}

export interface Proof {
  readonly unproven: readonly Unproven[];
  /** Accesses by what they go to. */
  readonly proven: Readonly<Record<'state' | 'guest', number>>;
  /** Of each function, places of the instructions that some way leads to; the rest never runs. */
  readonly reached: readonly ReadonlySet<number>[];
}

/** The address of the state itself. */
const ENV: Tag = { kind: 'range', base: 'env', lo: 0, hi: 0, step: 1, zero: false };

type Kind = 'main' | 'handler' | 'region' | 'sub';
const kindOf = (name: string): Kind =>
  /^run(Legacy)?$/.test(name) ? 'main' : /^h\d+$/.test(name) ? 'handler' : /^r\d+$/.test(name) ? 'region' : 'sub';

class FunctionProof {
  readonly unproven: { at: number; what: string }[] = [];
  readonly counts = { state: 0, guest: 0 };
  readonly #module: WasmModule;
  readonly #hosts: ReadonlySet<string>;
  readonly #names: ReadonlyMap<number, string>;
  readonly #kind: Kind;
  readonly #contract: Contract;
  readonly #writable: readonly (readonly [number, number])[];
  /** Places of instructions that some way leads to. */
  readonly reached = new Set<number>();
  readonly #labels: Label[] = [];
  readonly #known = new Map<string, number>();
  readonly #results: boolean;
  /** The state's host address, where code is for one vCPU. */
  readonly #env: number | undefined;
  #params: readonly Value[] = [];
  #ids = 0;
  #epochs = 0;

  constructor(
    module: WasmModule,
    hosts: ReadonlySet<string>,
    names: ReadonlyMap<number, string>,
    name: string,
    results: boolean,
    env: number,
  ) {
    this.#module = module;
    this.#hosts = hosts;
    this.#names = names;
    this.#kind = kindOf(name);
    this.#results = results;
    this.#env = this.#kind === 'region' ? env : undefined;
    this.#contract =
      this.#kind === 'region' ? regionContract : this.#kind === 'handler' ? handlerContract : (contracts[name] ?? {});
    this.#writable = [
      [parts.state.from, parts.state.to],
      ...(this.#contract.writes ?? []).map((w) => [parts[w].from, parts[w].to] as const),
    ];
  }

  run(f: WasmFunction): void {
    const facts: Fact[] = [];
    const locals = Array.from({ length: f.locals }, (_, i) => {
      if (i === 0) return this.#opaque(ENV);
      return i < f.type.params.length ? this.#opaque(null) : this.#constant(0n);
    });
    for (const [n, take] of Object.entries(this.#contract.takes ?? {})) {
      const v = locals[Number(n)]!;
      locals[Number(n)] = { ...v, tag: this.#taken(take, v) };
      if (take.need === 'piece') facts.push(fact('fits', v, { b: locals[take.log2]!.id }));
    }
    this.#params = locals.slice(0, f.type.params.length);
    this.#labels.push({ loop: false, result: this.#results, height: 0, into: null });
    const start: State = { locals, stack: [], facts, epoch: this.#epochs, wide: this.#module.wide, begun: null, raised: false };
    const end = this.#list(treeOf(f.code), start);
    if (end) this.#returns(f.code.at(-1)!, end);
  }
  /** What a parameter is known to be inside. */
  #taken(take: Take, v: Value): Tag | null {
    if (take.need === 'tag') return take.tag;
    if (take.need === 'piece') return { kind: 'page', of: v, align: 1, from: 0, zero: false, outside: true };
    if (take.need === 'ram') return { kind: 'page', of: v, align: 1, from: 0, zero: false, outside: false };
    return take.need === 'frame' ? { kind: 'aligned', to: PAGE } : null;
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
  #constant(value: bigint, op = CONST32): Value {
    if (op === CONST32 && this.#env !== undefined && value === BigInt(this.#env)) return this.#value(op, [], value, 0, ENV);
    const n = Number(op === CONST32 ? BigInt.asUintN(32, value) : value);
    const fits = n >= 0 && n < 2 ** 32;
    return this.#value(op, [], value, 0, fits ? { kind: 'range', base: 'number', lo: n, hi: n, step: 1, zero: false } : null);
  }
  #select(a: Value, b: Value, c: Value, s: State): Value {
    const by = hostBySelect(a, b, c, s);
    const arm = (v: Value, is: boolean): Tag | null => {
      const then = this.#copy(s);
      assume(then, c, is);
      const again = v.op === ADD64 || v.op === ADD32 ? { ...v, tag: tagOf(v.op, v.args, 0n, then) ?? v.tag } : v;
      return seen(again, then).tag;
    };
    return this.#value(SELECT, [a, b, c], 0n, 0, by ?? mergeTags(arm(a, true), arm(b, false)));
  }

  // -- conditions

  // -- control

  #copy(s: State): State {
    return { ...s, locals: [...s.locals], stack: [...s.stack], facts: [...s.facts] };
  }
  #merge(a: State | null, b: State | null): State | null {
    if (!a || !b) return a ?? b;
    const join = (x: Value, y: Value): Value => {
      if (x.id === y.id) return x.tag === y.tag ? x : { ...x, tag: mergeTags(x.tag, y.tag) };
      const to = x.tag && y.tag ? 0 : Math.min(alignOf(x), alignOf(y));
      return this.#opaque(mergeTags(x.tag, y.tag) ?? (to > 1 ? { kind: 'aligned', to } : null));
    };
    const keys = new Set(b.facts.map(keyOf));
    return {
      locals: a.locals.map((v, i) => (v === b.locals[i] ? v : join(v, b.locals[i]!))),
      stack: a.stack.map((v, i) => join(v, b.stack[i]!)),
      facts: a.facts.filter((f) => keys.has(keyOf(f))),
      epoch: a.epoch === b.epoch ? a.epoch : ++this.#epochs,
      wide: a.wide,
      begun: a.begun === b.begun ? a.begun : { kind: 'parted' },
      raised: a.raised && b.raised,
    };
  }
  /** Goes to a label with the state here. */
  #jump(s: State, depth: number, insn: WasmInsn): void {
    const label = this.#labels[this.#labels.length - 1 - depth]!;
    if (label === this.#labels[0]) return this.#returns(insn, s);
    if (s.begun) this.#refuse(insn, 'a branch between stores that belong together');
    const to = this.#copy(s);
    to.locals = to.locals.map((v) => seen(v, s));
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
        assume(s, c, true);
        assume(other, c, false);
        const ends = [this.#block(t.then, t.result, s), this.#block(t.else, t.result, other)] as const;
        for (const end of ends) if (end) end.locals = end.locals.map((v) => seen(v, end));
        s = this.#merge(...ends);
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
    for (const n of changed) s.locals[n] = seen(s.locals[n]!, s);
    const tags = new Map([...changed].map((n) => [n, s.locals[n]!.tag]));
    for (let round = 0; ; round++) {
      const start = this.#copy(s);
      start.epoch = ++this.#epochs;
      start.raised = false;
      if (start.begun) start.begun = { kind: 'parted' };
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
        const first = s.locals[n]!.tag;
        const now = tags.get(n)!;
        const back = label.into ? mergeTags(now, label.into.locals[n]!.tag) : now;
        if (sameTag(back, now)) continue;
        stable = false;
        // A number that counts: as far as conditions let it, if they do.
        const far =
          round === 0 && back?.kind === 'range' && back.base === 'number' && first?.kind === 'range'
            ? { ...back, hi: 2 ** 31 }
            : back;
        tags.set(
          n,
          round === 1 && now?.kind === 'range' && now.hi === 2 ** 31 ? mergeTags(first, label.into!.locals[n]!.tag) : far,
        );
        if (round > 4) tags.set(n, null);
      }
      if (round === 1)
        for (const n of changed) {
          const now = tags.get(n);
          if (now?.kind !== 'range' || now.hi !== 2 ** 31 || !label.into) continue;
          const back = mergeTags(s.locals[n]!.tag, label.into.locals[n]!.tag);
          if (back?.kind === 'range' && back.hi < now.hi) {
            tags.set(n, back);
            stable = false;
          }
        }
      if (stable) return end;
      this.unproven.length = before.refused;
      for (const k of ['state', 'guest'] as const) this.counts[k] = before[k];
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
        this.#jump(s, insn.index, insn);
        return null;
      case 0x0d: {
        const c = s.stack.pop()!;
        const taken = this.#copy(s);
        assume(taken, c, true);
        this.#jump(taken, insn.index, insn);
        assume(s, c, false);
        return s;
      }
      case 0x0e:
        s.stack.pop();
        for (const l of new Set(insn.labels)) this.#jump(s, l, insn);
        return null;
      case 0x0f:
        this.#returns(insn, s);
        return null;
      case 0x10:
      case 0x12:
      case 0x11:
      case 0x13:
        return this.#call(insn, s);
      case 0x1a:
        s.stack.pop();
        return s;
      case SELECT:
      case 0x1c: {
        const c = s.stack.pop()!;
        const b = s.stack.pop()!;
        const a = s.stack.pop()!;
        s.stack.push(this.#select(a, b, c, s));
        return s;
      }
      case 0x20:
        s.stack.push(seen(s.locals[insn.index]!, s));
        return s;
      case 0x21:
        s.locals[insn.index] = s.stack.pop()!;
        return s;
      case 0x22:
        s.locals[insn.index] = s.stack.at(-1)!;
        return s;
      case CONST32:
      case CONST64:
        s.stack.push(this.#constant(insn.value, op));
        return s;
      case CONST128:
        s.stack.push(this.#value(op, [], insn.value, 0, null));
        return s;
      case REPLACE_LANE: {
        const args = s.stack.splice(-2);
        s.stack.push(this.#value(op, args, BigInt(insn.index), 0, null));
        return s;
      }
    }
    const effect = effectOf(op);
    if (!effect) {
      this.#refuse(insn, `instruction 0x${op.toString(16)}`);
      return null;
    }
    const args = s.stack.splice(s.stack.length - effect.takes, effect.takes).map((v) => seen(v, s));
    if (op === 0xfc00a) {
      this.#bulk(insn, args[0]!, args[2]!, true);
      this.#bulk(insn, args[1]!, args[2]!, false);
    } else if (op === 0xfc00b) this.#bulk(insn, args[0]!, args[2]!, true, args[1]!);
    const isLoad = effect.takes === 1 && effect.gives === 1;
    if (s.begun && isLoad && effect.bytes !== undefined) this.#refuse(insn, 'a load between stores that belong together');
    if (effect.bytes !== undefined) {
      this.#access(insn, args[0]!, effect.bytes, !isLoad, s);
      if (!isLoad) this.#keep(insn, args, effect.bytes, s);
    }
    if ((effect.bytes !== undefined && !isLoad) || op >= 0xfc00a) s.epoch = ++this.#epochs;
    if (effect.gives === 0) return s;
    const imm = BigInt(insn.offset);
    const epoch = effect.bytes === undefined ? 0 : s.epoch;
    // What an atomic gives, and constants and lanes of vectors, are values of their own.
    const plain = op <= 0xc4 && (effect.bytes === undefined || isLoad) && op !== 0x43 && op !== 0x44;
    s.stack.push(plain ? this.#value(op, args, imm, epoch, tagOf(op, args, imm, s)) : this.#opaque(null));
    return s;
  }

  // -- accesses

  /** What is stored where pointers are kept is such a pointer. */
  #keep(insn: WasmInsn, args: readonly Value[], bytes: number, s: State): void {
    const [address, value] = args;
    const plain = insn.op <= 0x3e;
    const { tag } = address!;
    s.raised = this.#raises(insn, args, bytes, s.raised);
    if (s.begun) {
      if (!this.#goesOn(insn, narrow(address!), value!, s)) this.#refuse(insn, 'a store between those that belong together');
      return;
    }
    if (tag?.kind === 'register') {
      for (const place of places.get(tag.field)!)
        for (const [slot, kept] of pointers)
          if (place + insn.offset < slot + kept.bytes && place + insn.offset + bytes > slot)
            return this.#refuse(insn, `a register's place may be the slot at ${slot}`);
      return;
    }
    const base = envRange(address!);
    if (!base) return;
    const [lo, hi] = [base.lo + insn.offset, base.hi + insn.offset];
    if (lo < parts.state.to)
      for (const [slot, kept] of pointers) {
        if (lo >= slot + kept.bytes || hi + bytes <= slot) continue;
        const exact = plain && base.lo === base.hi && lo === slot && bytes === kept.bytes;
        if (kept.fixed || !exact || !this.#accepts(kept.tag, value!, s))
          this.#refuse(insn, `the slot at ${slot} gets what is no such pointer`);
      }
    const inPart = (name: 'tlbs' | 'jumpCache' | 'cells' | 'records'): number | undefined => {
      const p = parts[name];
      if (hi + bytes <= p.from || lo >= p.to) return undefined;
      return (base.lo - p.from) % p.entry === 0 && stepOf(base) % p.entry === 0 ? insn.offset : -1;
    };
    const tlb = inPart('tlbs');
    if (tlb !== undefined) this.#keepTlb(insn, narrow(address!), value!, tlb, s);
    const jump = inPart('jumpCache');
    if (jump !== undefined) {
      const moved = insn.op === 0x37 && jump === 8 && value!.op === 0x29 && value!.imm === 8n && inJumpCache(value!.args[0]!);
      const record = insn.op === 0x36 && jump === 12 && this.#accepts(RECORD_OR_NONE, value!, s);
      const other = jump >= 0 && jump + bytes <= 12;
      if (!moved && !record && !other) this.#refuse(insn, 'an entry of the jump cache gets what is no record');
    }
    const cell = inPart('cells');
    if (cell !== undefined) {
      const link = insn.op === 0x36 && cell === Cell.link && (isConst(value!, 0n) || (value!.op === OR32 && isChain(value!)));
      const key = insn.op === 0x37 && cell === Cell.key && isConst(value!, 0n);
      const misses = insn.op === 0x36 && cell === Cell.misses;
      const begins = insn.op === 0x37 && cell === Cell.page && this.#beginsCell(narrow(address!), value!, s);
      if (!link && !key && !misses && !begins) this.#refuse(insn, 'a cell gets what no TLB entry was found to hold');
    }
    const record = inPart('records');
    if (record !== undefined) {
      const link = (record === Rec.imm || record === Rec.far) && this.#accepts(RECORD_OR_NONE, value!, s);
      const other = (insn.op === 0x36 && record === Rec.farEpoch) || (insn.op === 0x37 && record === Rec.farTarget);
      if (!(other || (insn.op === 0x36 && link))) this.#refuse(insn, 'a record gets what is no record');
    }
  }
  /** Whether an exception is pending behind a store. */
  #raises(insn: WasmInsn, [address, value]: readonly Value[], bytes: number, before: boolean): boolean {
    const base = envRange(address!);
    // Guest RAM and maps lie elsewhere.
    if (!base) return before && ['host', 'page', 'byte'].includes(address!.tag?.kind ?? '');
    const [from, to] = [base.lo + insn.offset, base.hi + insn.offset + bytes];
    if (to <= st.exc.offset || from >= st.exc.offset + 4) return before;
    const number = insn.op === 0x36 && from === st.exc.offset && to === from + 4 ? numberOf(value!) : null;
    return number !== null && !number.zero && number.lo > 0;
  }
  /** Whether a store is the one that has to come next, and what comes behind it. */
  #goesOn(insn: WasmInsn, at: Value, value: Value, s: State): boolean {
    const begun = s.begun!;
    s.begun = null;
    if (begun.kind === 'parted') return false;
    if (begun.kind === 'entry')
      return insn.op === 0x36 && insn.offset === 8 && at.id === begun.entry && isAddend(value, begun.page);
    if (at.id !== begun.cell) return false;
    if (begun.next === 'addend')
      return (
        insn.op === 0x36 &&
        insn.offset === Cell.addend &&
        value.op === 0x28 &&
        value.imm === 8n &&
        value.epoch === begun.epoch &&
        narrow(value.args[0]!).id === begun.entry
      );
    s.begun = { ...begun, next: 'addend' };
    // The key of when the entry held.
    return insn.op === 0x37 && insn.offset === Cell.key && slotLoad(value) === st.cellKey.offset && value.epoch === begun.epoch;
  }
  /** A cell gets the page of an entry that was found to hold it. */
  #beginsCell(cell: Value, value: Value, s: State): boolean {
    const tag = value.op === AND64 ? besides(value, BigInt(-PAGE)) : undefined;
    if (tag?.op !== 0x29 || tag.imm !== 0n) return false;
    const entry = narrow(tag.args[0]!).id;
    if (!s.facts.some((f) => f.kind === 'tlb' && f.a === entry && f.epoch === tag.epoch)) return false;
    s.begun = { kind: 'cell', cell: cell.id, entry, epoch: tag.epoch, next: 'key' };
    return true;
  }
  /** An entry keeps its page, or gets one that its number never is looked for under; a new page comes with its addend. */
  #keepTlb(insn: WasmInsn, entry: Value, stored: Value, offset: number, s: State): void {
    // With nothing in the other half: no addend, no flags and no link.
    const whole = insn.op === STORE128 && stored.op === REPLACE_LANE && stored.imm === 0n;
    const value = whole && stored.args[0]!.op === CONST128 && stored.args[0]!.imm === 0n ? stored.args[1]! : stored;
    if ((insn.op === 0x37 || value !== stored) && offset === 0) {
      const old = (value.op === AND64 && besides(value, -2n)) || (value.op === OR64 && besides(value, 1n)) || value;
      if (insn.op === 0x37 && old.op === 0x29 && old.imm === 0n && narrow(old.args[0]!).id === entry.id) return;
      // Entry n with page n ^ half.
      const page = value.op === SHL64 && isConst(value.args[1]!, 12n) ? narrow(value.args[0]!) : undefined;
      const number = page?.op === XOR32 ? besides(page, BigInt(st.TLB_ENTRIES / 2)) : undefined;
      if (number && isNumberOf(number, entry)) return;
      const address = entryFor(entry);
      const fresh = value.op === OR64 && (numberOf(value.args[1])?.hi ?? 2) <= 1 ? value.args[0]! : value;
      if (insn.op === 0x37 && address && fresh.op === AND64 && besides(fresh, BigInt(-PAGE))?.id === address.id) {
        s.begun = { kind: 'entry', entry: entry.id, page: fresh };
        return;
      }
      return this.#refuse(insn, 'a TLB entry gets a tag of which nothing is known');
    }
    if (insn.op !== 0x36 || offset !== 12 || !isLink(value)) this.#refuse(insn, 'a TLB entry gets what is no link of its chain');
  }
  /** Copies and fills: within the jump cache, or up to a page's end. */
  #bulk(insn: WasmInsn, place: Value, bytes: Value, write: boolean, filler?: Value): void {
    const whole = place.op === WRAP && !this.#module.wide ? place.args[0]! : place;
    const length = this.#module.wide ? narrow(bytes) : bytes;
    const env = envRange(narrow(place));
    const size = numberOf(length);
    if (env && size && !env.zero) {
      const p = parts.jumpCache;
      const inside = env.lo >= p.from && env.hi + size.hi <= p.to && filler !== undefined && isConst(filler, 0n);
      if (inside && this.#contract.writes?.includes('jumpCache')) this.counts.state++;
      else this.#refuse(insn, `memory.fill from ${env.lo} to ${env.hi + size.hi}`);
      return;
    }
    const { tag } = whole;
    const good = (t: Tag | null): t is Tag & { kind: 'page' } => t?.kind === 'page' && t.from === 0 && !t.zero && !t.outside;
    if (good(tag) && lengthFits(length, tag.of.id)) {
      this.counts.guest++;
      return;
    }
    // So far behind such an address that as much is left.
    if (whole.op === ADD64)
      for (const [base, by] of [whole.args, [...whole.args].reverse()]) {
        const far = narrow(by!);
        const left = [length, ...arms(length)].find((x) => x.op === SUB32 && x.args[1]!.id === far.id);
        if (good(base!.tag) && left && lengthFits(left, base!.tag.of.id)) {
          this.counts.guest++;
          return;
        }
      }
    this.#refuse(
      insn,
      `${filler ? 'memory.fill' : 'memory.copy'} whose ${write ? 'target' : 'source'} may not end with its page`,
    );
  }
  #access(insn: WasmInsn, address: Value, bytes: number, write: boolean, s: State): void {
    const { tag } = address;
    const at = insn.offset;
    const kind = `${write ? 'a store' : 'a load'}`;
    if (tag && tag.kind !== 'range' && (('zero' in tag && tag.zero) || ('outside' in tag && tag.outside)))
      return this.#refuse(insn, `${kind} at what may be no address: ${tag.kind}`);
    switch (tag?.kind) {
      case 'host':
        if (tag.lo + at < 0 || tag.hi + at + bytes > tag.bytes)
          return this.#refuse(insn, `${bytes} bytes at ${tag.lo + at} of ${tag.bytes} that were checked`);
        this.counts.guest++;
        return;
      case 'page':
        if (!fitsPage(tag, bytes, tag.from + at, s))
          return this.#refuse(insn, `${bytes} bytes at ${tag.from + at} may leave their page`);
        this.counts.guest++;
        return;
      case 'byte':
        if (at !== 0 || bytes !== 1 || (write && !tag.writable)) return this.#refuse(insn, `${kind} of ${bytes} bytes in a map`);
        this.counts.state++;
        return;
      case 'register': {
        const most = Math.max(...places.get(tag.field)!) + at + bytes;
        if (most > st.STATE_BYTES) return this.#refuse(insn, `${kind} up to ${most}, behind the state`);
        this.counts.state++;
        return;
      }
      case 'range':
        break;
      default:
        return this.#refuse(insn, `${kind} whose address is not known${tag ? `: ${tag.kind}` : ''}`);
    }
    const [lo, hi] = [tag.lo + at, tag.hi + at + bytes];
    if (tag.zero && (write || at + bytes > LOCK_BYTES)) return this.#refuse(insn, `${kind} at what may be 0`);
    if (tag.base === 'number') return this.#refuse(insn, `an address that is no pointer: ${lo} to ${hi}`);
    const fits =
      tag.base === 'slots'
        ? !write && lo >= 0 && hi <= SLOT_TABLE_BYTES
        : write
          ? this.#writable.some(([from, to]) => lo >= from && hi <= to)
          : lo >= 0 && hi <= (this.#kind === 'region' ? Area.records : parts.records.to);
    if (!fits)
      return this.#refuse(
        insn,
        `${kind} from ${lo} to ${hi} of ${tag.base === 'slots' ? 'the memory slots' : "the vCPU's area"}`,
      );
    this.counts.state++;
  }

  // -- calls

  /** Whether a value is a pointer of this kind. */
  #accepts(tag: Tag, from: Value, s: State): boolean {
    const v = seen(from, s);
    const { tag: is } = v;
    switch (tag.kind) {
      case 'range': {
        if (is?.kind !== 'range') return false;
        if (tag.zero && is.base === 'number' && is.lo === 0 && is.hi === 0) return true;
        const placed = (is.lo - tag.lo) % tag.step === 0 && stepOf(is) % tag.step === 0;
        return is.base === tag.base && (tag.zero || !is.zero) && is.lo >= tag.lo && is.hi <= tag.hi && placed;
      }
      case 'host': {
        if (tag.zero && numberOf(v)?.hi === 0) return true;
        return (
          is?.kind === 'host' && is.lo === 0 && is.hi === 0 && is.bytes >= tag.bytes && (tag.zero || !is.zero) && !is.outside
        );
      }
      case 'flagged':
        if (tag.zero && numberOf(v)?.hi === 0) return true;
        if (is?.kind === 'flagged') return (tag.zero || !is.zero) && !is.bus;
        return is?.kind === 'page' && !is.outside && (tag.zero || !is.zero) && is.from === 0 && is.align >= PAGE;
      case 'out':
        if (is?.kind === 'out' || (numberOf(v)?.hi ?? 8) < 8) return true;
        return is?.kind === 'range' && !is.zero && sameRange(is, RECORD);
      case 'key':
        return is?.kind === 'key';
      default:
        return false;
    }
  }
  #meets(take: Take, args: readonly Value[], n: number, s: State): boolean {
    const v = seen(args[n]!, s);
    const { tag } = v;
    switch (take.need) {
      case 'tag':
        return this.#accepts(take.tag, v, s);
      case 'ram':
        return inRam(v);
      case 'word':
        return inRam(v) || (numberOf(v)?.hi ?? LOCK_BYTES) < LOCK_BYTES;
      case 'frame':
        return alignOf(v) === PAGE;
      case 'piece': {
        const log2 = args[take.log2]!;
        if (tag?.kind === 'host') return !tag.zero && tag.lo >= 0 && isConst(log2) && tag.hi + 2 ** Number(log2.imm) <= tag.bytes;
        if (tag?.kind !== 'page' || tag.zero || tag.from !== 0) return false;
        return isConst(log2, 0n) || s.facts.some((f) => f.kind === 'fits' && f.a === tag.of.id && f.b === log2.id);
      }
    }
  }
  #returns(insn: WasmInsn, s: State): void {
    if (s.begun) this.#refuse(insn, 'an end between stores that belong together');
    const { gives, raises, fails } = this.#contract;
    if (raises && !s.raised) this.#refuse(insn, 'it leaves no exception pending');
    if (fails) {
      const result = s.stack.at(-1)!;
      if (isConst(result, -1n) ? !s.raised : !neverNegative(result)) this.#refuse(insn, 'it may give -1 without an exception');
    }
    if (!gives || !this.#results) return;
    const v = seen(s.stack.at(-1)!, s);
    const { tag } = v;
    const zero = numberOf(v)?.hi === 0;
    let good = false;
    switch (gives.give) {
      case 'tag':
        good = this.#accepts(gives.tag, v, s);
        break;
      case 'page':
        if (gives.zero && zero) good = true;
        // Outside of RAM: negative.
        else if (gives.outside && v.op === OR64 && v.args.some((a) => isConst(a) && a.imm < 0n)) good = true;
        else if (tag?.kind === 'page')
          good =
            tag.of.id === low(this.#params[gives.of]!).id &&
            tag.from === 0 &&
            (gives.zero || !tag.zero) &&
            (gives.outside || !tag.outside);
        break;
      case 'sum': {
        const sum = low(v);
        good =
          sum.op === ADD64 &&
          sum.args[0]!.id === this.#params[gives.a]!.id &&
          narrow(sum.args[1]!).id === this.#params[gives.b]!.id;
        break;
      }
      case 'look':
        good = zero || this.#looked(v, this.#params[gives.of]!, this.#params[gives.look]!, s);
        break;
    }
    if (!good && zero && this.#contract.pending)
      good = s.raised || s.facts.some((f) => f.kind === 'some' && f.v.epoch === s.epoch && slotLoad(f.v) === st.exc.offset);
    if (!good) this.#refuse(insn, `it gives what it should not${tag ? `: ${tag.kind}` : ''}`);
  }
  /** The host address of `of`, whose page is that of the last of as many bytes as the look's word says. */
  #looked(v: Value, of: Value, look: Value, s: State): boolean {
    if (v.tag?.kind !== 'page' || v.tag.of.id !== low(of).id) return false;
    const field = (x: Value): boolean => {
      const masked = narrow(x);
      const shifted = masked.op === AND32 ? besides(masked, BigInt(Look.mask)) : undefined;
      return shifted?.op === SHRU32 && shifted.args[0]!.id === look.id && isConst(shifted.args[1]!, BigInt(Look.bytesShift));
    };
    return s.facts.some((f) => {
      if (f.kind !== 'hit') return false;
      // The last byte and the first one were held against the same page.
      const first = s.facts.some((g) => g.kind === 'hit' && g.a === f.a && g.b === of.id);
      const last = s.facts.find(
        (g) => g.kind === 'less' && g.v.args[0]!.op === XOR64 && g.v.args[0]!.args.some((a) => a.id === f.b),
      );
      const value = last?.v.args[0]?.args.find((a) => a.id === f.b);
      if (!first || value?.op !== SUB64 || !isConst(value.args[1]!, 1n)) return false;
      const sum = value.args[0]!;
      return sum.op === ADD64 && sum.args.some((a) => a.id === of.id) && sum.args.some(field);
    });
  }
  #call(insn: WasmInsn, s: State): State | null {
    const indirect = insn.op === 0x11 || insn.op === 0x13;
    if (indirect) s.stack.pop();
    const { imports, functions, types } = this.#module;
    const name = indirect ? '' : (this.#names.get(insn.index) ?? '');
    const type = indirect ? types[insn.index]! : (imports[insn.index] ?? functions[insn.index - imports.length])!.type;
    const args = s.stack.splice(s.stack.length - type.params.length, type.params.length).map((v) => seen(v, s));
    if (!this.#hosts.has(name) && !(args[0] && isEnv(args[0])))
      this.#refuse(insn, `a call of ${name || 'a function'} with another state`);
    if (s.begun) this.#refuse(insn, 'a call between stores that belong together');
    const region = indirect ? this.#kind === 'region' : kindOf(name) === 'region' && !this.#hosts.has(name);
    const contract: Contract = region ? regionContract : indirect ? handlerContract : (contracts[name] ?? {});
    for (const [n, take] of Object.entries(contract.takes ?? {}))
      if (!this.#meets(take, args, Number(n), s))
        this.#refuse(insn, `a call of ${name || 'a handler'} whose argument ${n} is not known to be what it takes`);
    if (insn.op === 0x12 || insn.op === 0x13) {
      // What is called gives what this function has to.
      const same = this.#contract.gives === contract.gives || this.#contract.gives === undefined;
      if (!same || this.#contract.pending || this.#contract.fails || this.#contract.raises)
        this.#refuse(insn, `it goes on in ${name || 'a function'}, which gives something else`);
      return null;
    }
    s.epoch = ++this.#epochs;
    s.raised = contract.raises === true;
    if (type.results.length === 0) return s;
    const v = this.#result(contract, args);
    if (contract.pending) s.facts.push(fact('pending', v, { epoch: s.epoch }));
    if (contract.fails) s.facts.push(fact('failing', v, { epoch: s.epoch }));
    s.stack.push(v);
    return s;
  }
  /** What a call gives. */
  #result({ gives, pending = false }: Contract, args: readonly Value[]): Value {
    switch (gives?.give) {
      case 'tag':
        return this.#opaque(gives.tag);
      case 'page': {
        const of = low(args[gives.of]!);
        return this.#opaque({
          kind: 'page',
          of,
          align: alignOf(args[gives.of]!),
          from: 0,
          zero: gives.zero || pending,
          outside: gives.outside,
        });
      }
      case 'sum': {
        const [a, b] = [args[gives.a]!, args[gives.b]!];
        const sum = this.#value(ADD64, [a, this.#value(EXTEND_U, [b], 0n, 0, null)], 0n, 0, null);
        return { ...this.#opaque(null), like: isConst(b, 0n) ? a : sum };
      }
      case 'look': {
        const word = args[gives.look]!;
        const bytes = isConst(word) ? (Number(BigInt.asUintN(32, word.imm)) >> Look.bytesShift) & Look.mask : 0;
        return this.#opaque(bytes ? { kind: 'host', bytes, lo: 0, hi: 0, zero: true, outside: false } : null);
      }
      default:
        return this.#opaque(null);
    }
  }
}

/**
 * Proves a module (regions, handlers, or tier 0 with its subroutines), or one function of it; `hosts` are the functions that take no state. Regions are
 * for the vCPU whose state is at host address `env`.
 */
export function prove(module: WasmModule, hosts: ReadonlySet<string>, only?: number, env = VCPU_BASE): Proof {
  const unproven: Unproven[] = [];
  const proven = { state: 0, guest: 0 };
  const reached: ReadonlySet<number>[] = [];
  const names = new Map([
    ...module.names,
    ...[...module.exports].map(([name, index]) => [index, name] as const),
    ...module.imports.map(({ name }, index) => [index, name] as const),
  ]);
  module.functions.forEach((f, i) => {
    const index = i + module.imports.length;
    if (only !== undefined && index !== only) return;
    const name = names.get(index) ?? '';
    const p = new FunctionProof(module, hosts, names, name, f.type.results.length > 0, env);
    p.run(f);
    unproven.push(...p.unproven.map((u) => ({ function: index, name, ...u })));
    proven.state += p.counts.state;
    proven.guest += p.counts.guest;
    reached.push(p.reached);
  });
  return { unproven, proven, reached };
}
