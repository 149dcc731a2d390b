// What conditions tell the prover of emitted code, and what a value is known to be where they have told it.

import * as st from '../../isa/x86/state.ts';
import { Cell } from './cells.ts';
import { Area, CELL_BYTES, REGION_CELLS, REGIONS_MAX } from './layout.ts';
import {
  ADD64,
  AND32,
  AND64,
  besides,
  entryFor,
  type Fact,
  fact,
  isConst,
  LTU32,
  LTU64,
  narrow,
  numberOf,
  OR32,
  OR64,
  PAGE,
  pageLeft,
  rangeOf,
  SELECT,
  SHL32,
  type State,
  SUB64,
  slotLoad,
  type Value,
  XOR32,
  XOR64,
} from './prove-values.ts';

/** Notes what follows from a condition that is true, or false. */
export function assume(s: State, c: Value, is: boolean): void {
  const { op } = c;
  const [x, y] = c.args;
  const note = (kind: Fact['kind'], v: Value, more: Partial<Fact> = {}): void => {
    s.facts.push(fact(kind, v, more));
  };
  if (op === 0x45) return assume(s, x!, !is);
  if (op === 0x50) {
    if (!is) note('some', x!);
    return;
  }
  if (is && op === AND32) for (const a of c.args) assume(s, a, true);
  if (!is && op === OR32) for (const a of c.args) assume(s, a, false);
  if (is && op === SELECT && isConst(x!, 0n)) assume(s, y!, true);
  if (is && op === SELECT && isConst(y!, 0n)) assume(s, x!, true);
  if (!is && slotLoad(c) === st.exc.offset)
    for (const f of [...s.facts]) if (f.kind === 'pending' && f.epoch === c.epoch) note('some', f.v);
  // Of what is 0 or 1.
  if (op === XOR32 && isConst(y!, 1n) && (numberOf(x)?.hi ?? 2) <= 1) return assume(s, x!, !is);
  if (is) note('some', c);
  if (op === 0x46 || op === 0x51) {
    if (!is && isConst(y!)) note('not', x!, { n: Number(BigInt.asIntN(32, y!.imm)) });
    if (!is && isConst(y!, 0n)) note('some', x!);
  }
  if (op === 0x47 || op === 0x52) {
    if (is && isConst(y!, 0n)) note('some', x!);
    if (!is) assumeEqual(s, c);
  }
  if (op === 0x53 && !is && isConst(y!, 0n)) note('inside', x!);
  if ((op === 0x51 && is) || (op === 0x52 && !is))
    s.raised ||= isConst(y!, -1n) && s.facts.some((f) => f.kind === 'failing' && f.a === x!.id && f.epoch === s.epoch);
  // Unsigned comparisons: a < b, or a >= b.
  const orders: Readonly<Record<number, readonly [Value, Value, boolean]>> = {
    [LTU32]: [x!, y!, true],
    [LTU64]: [x!, y!, true],
    75: [y!, x!, true],
    86: [y!, x!, true],
    77: [y!, x!, false],
    88: [y!, x!, false],
    79: [x!, y!, false],
    90: [x!, y!, false],
  };
  const order = orders[op];
  if (order) {
    const [a, b, below] = order;
    if (below === is) {
      const top = rangeOf(b);
      if (top) note('below', a, { n: top.hi, m: top.base === 'number' ? 0 : 1 });
      const floor = numberOf(a);
      if (floor) note('from', b, { n: floor.lo + 1 });
      s.facts.push({ ...fact('less', a, { b: b.id }), v: { ...c, args: [a, b] } });
      if (isConst(b, BigInt(PAGE)) && a.op === XOR64)
        for (const [tag, address] of [a.args, [...a.args].reverse()]) assumeHit(s, tag!, address!);
    } else {
      // a >= b.
      const top = numberOf(a);
      if (top) note('below', b, { n: top.hi + 1 });
      const floor = numberOf(b);
      if (floor) note('from', a, { n: floor.lo });
      if (a.tag?.kind === 'out' && isConst(b, 8n)) note('record', a);
      // 1 << n does not go over the page's end.
      const address = pageLeft(a);
      if (address && b.op === SHL32 && isConst(b.args[0]!, 1n)) note('fits', address, { b: b.args[1]!.id });
      if (isConst(a) && b.op === OR64 && op === 0x58) assumeCell(s, b, PAGE - Number(a.imm));
    }
  }
  if (is && (op === 0x46 || op === 0x51)) assumeEqual(s, c);
}
/** Writing: the tag is the last byte's address without its place in the page. */
export function assumeEqual(s: State, c: Value): void {
  for (const [tag, masked] of [c.args, [...c.args].reverse()])
    if (masked!.op === AND64 && isConst(masked!.args[1]!, BigInt(-PAGE))) assumeTlb(s, tag!, masked!.args[0]!);
}
/** (page ^ address) | (key − key now) ≤ 4096 − bytes; of keys the low 12 bits are zero. */
export function assumeCell(s: State, sum: Value, bytes: number): void {
  if (bytes <= 0 || bytes > PAGE) return;
  for (const [pages, keys] of [sum.args, [...sum.args].reverse()]) {
    if (pages!.op !== XOR64 || keys!.op !== SUB64) continue;
    for (const [page, address] of [pages!.args, [...pages!.args].reverse()]) {
      const cell = slotLoad(page!);
      const filled = keys!.args.find((k) => cell !== undefined && slotLoad(k) === cell - Cell.page + Cell.key);
      const now = keys!.args.find((k) => k.tag?.kind === 'key');
      if (cell === undefined || !filled || !now || page!.epoch !== filled.epoch) continue;
      const place = cell - Cell.page - Area.cells;
      if (place < 0 || place % CELL_BYTES !== 0 || place >= REGIONS_MAX * REGION_CELLS * CELL_BYTES) continue;
      s.facts.push(fact('cell', address!, { n: cell - Cell.page, m: bytes, epoch: page!.epoch }));
    }
  }
}
/** (tag ^ address) < 4096: the page is the same; of an entry's tag, the flag in bit 0 may be masked away. */
export function assumeHit(s: State, tag: Value, address: Value): void {
  const whole = tag.op === AND64 && besides(tag, BigInt(-PAGE))?.op === 0x29 ? besides(tag, BigInt(-PAGE))! : tag;
  s.facts.push(fact('hit', tag, { b: address.id }));
  assumeTlb(s, whole, address);
}
/** The entry's tag names the page of `last`, the last byte of an access. */
export function assumeTlb(s: State, tag: Value, last: Value): void {
  if (tag.op !== 0x29 || tag.imm !== 0n) return;
  const entry = narrow(tag.args[0]!);
  const address = entryFor(entry);
  if (!address) return;
  let bytes = 0;
  if (last.id === address.id) bytes = 1;
  else if (last.op === ADD64 && last.args[0]!.id === address.id && isConst(last.args[1]!)) bytes = Number(last.args[1]!.imm) + 1;
  if (bytes >= 1 && bytes <= 64) s.facts.push(fact('tlb', entry, { b: address.id, m: bytes, epoch: tag.epoch }));
}
