// Accesses of a block that lie near each other: those whose addresses differ by a constant need one look at the TLB together.

import type { Stmt, Value } from '../../ir/ir.ts';
import * as st from '../../isa/x86/state.ts';

/** Most bytes from the first to the last byte of a group. */
const SPAN_MAX = 1024;
const KEY_MAX = 60;
/** Constants from here on are taken as unknown: sums of smaller ones are exact. */
const LARGE = 2 ** 40;

export interface Group {
  /** The access at which the look is taken, and the group's lowest byte relative to its address. */
  readonly first: Stmt;
  lowest: number;
  /** Bytes from the lowest to the end of the highest access. */
  highest: number;
  /** Some access writes. */
  write: boolean;
  /** Where its accesses' instructions are. */
  readonly places: number[];
}

/** An access of a group: its place relative to the first access. */
export interface Member {
  readonly group: Group;
  readonly offset: number;
}

/** An address as an unknown and a known part. */
interface Place {
  readonly root: string;
  readonly offset: number;
}

const GPR = new Set(st.gpr.map((s) => s.offset));

/** A group of one access. */
export function alone(s: Stmt & { kind: 'load' | 'store' }, place: number): Group {
  return { first: s, lowest: 0, highest: s.access.bits / 8, write: writes(s), places: [place] };
}
/** Whether an access asks for write permission. */
export const writes = (s: Stmt): boolean => s.kind === 'store' || (s.kind === 'load' && s.forWrite);

/** Finds the groups of a block's code, in order: every access on the block's straight way is in one. Those at places in `apart` stay alone. */
export function groupsOf(
  parts: readonly { readonly code: readonly Stmt[]; readonly place: number }[],
  apart: ReadonlySet<number>,
): Map<Stmt, Member> {
  const found = new Map<Stmt, Member>();
  const slots = new Map<number, Place>();
  const values = new Map<number, Place>();
  const open = new Map<string, { group: Group; at: number }>();
  let fresh = 0;
  const unknown = (): Place => ({ root: `?${fresh++}`, offset: 0 });
  const slot = (offset: number): Place => {
    let p = slots.get(offset);
    if (!p) {
      p = { root: `s${offset}`, offset: 0 };
      slots.set(offset, p);
    }
    return p;
  };
  const placeOf = (v: Value): Place => {
    const known = values.get(v.id);
    if (known) return known;
    const p = compute(v);
    values.set(v.id, p);
    return p;
  };
  const compute = (v: Value): Place => {
    if (v.kind === 'const' && typeof v.value === 'bigint') {
      const n = Number(v.value);
      return Math.abs(n) < LARGE ? { root: '', offset: n } : { root: `c${v.value}`, offset: 0 };
    }
    if (v.kind === 'const' && typeof v.value === 'number') return { root: '', offset: v.value };
    if (v.kind !== 'pure' || v.lanes.length > 0) return unknown();
    const args = v.args.map(placeOf);
    if (v.op.name === 'i64.add') {
      const roots = args.map((a) => a.root).filter((r) => r !== '');
      const root = roots.sort().join('+');
      return root.length > KEY_MAX ? unknown() : { root, offset: args[0].offset + args[1].offset };
    }
    const root = `${v.op.name}(${args.map((a) => `${a.root}:${a.offset}`).join()})`;
    return root.length > KEY_MAX ? unknown() : { root, offset: 0 };
  };
  const touch = (list: readonly Stmt[]): void => {
    for (const s of list) {
      if (s.kind === 'set') slots.set(s.slot.offset, unknown());
      else if (s.kind === 'call' || s.kind === 'do') forget();
      else if (s.kind === 'if') {
        touch(s.then);
        touch(s.else);
      } else if (s.kind === 'loop' || s.kind === 'block') touch(s.body);
    }
  };
  const forget = (): void => {
    for (const offset of GPR) slots.set(offset, unknown());
    open.clear();
  };
  const access = (s: Stmt & { kind: 'load' | 'store' }, place: number): void => {
    if (s.space === 'system') return;
    const { root, offset } = placeOf(s.addr);
    const bytes = s.access.bits / 8;
    const near = open.get(root);
    if (near && !apart.has(place)) {
      const distance = offset - near.at;
      const lowest = Math.min(near.group.lowest, distance);
      const highest = Math.max(near.group.highest, distance + bytes);
      if (highest - lowest <= SPAN_MAX) {
        near.group.lowest = lowest;
        near.group.highest = highest;
        near.group.write ||= writes(s);
        near.group.places.push(place);
        found.set(s, { group: near.group, offset: distance });
        return;
      }
    }
    const group = alone(s, place);
    found.set(s, { group, offset: 0 });
    if (!apart.has(place)) open.set(root, { group, at: offset });
  };
  for (const { code, place } of parts) {
    for (const s of code) {
      if (s.kind === 'get') values.set(s.id, s.type === 'i64' ? slot(s.slot.offset) : unknown());
      else if (s.kind === 'set') slots.set(s.slot.offset, s.value.type === 'i64' ? placeOf(s.value) : unknown());
      else if (s.kind === 'load' || s.kind === 'store') access(s, place);
      else if (s.kind === 'call' || s.kind === 'do') forget();
      else if (s.kind === 'if' || s.kind === 'loop' || s.kind === 'block') touch([s]);
    }
  }
  return found;
}
