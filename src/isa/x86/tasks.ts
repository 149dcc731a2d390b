// Hardware task switching: saving the old task, loading the new one, the checks after the switch has committed
// (Intel SDM volume 3, sections 7.2, 7.3 and 7.6: TSS layouts, task switching, 16-bit TSS).

import type { Value } from '../../ir/ir.ts';
import { updateContext } from './context.ts';
import type { Emit } from './emit.ts';
import { packFlags, unpackFlags } from './flags.ts';
import { loadPointers } from './mmu.ts';
import { Attr, anyOf, checkStackSegment, descAttr, descBase, descLimit, dpl, F, failIf, isNull, loadProtectedSegment, markAccessed, readDescriptor, rpl, setNullSegment, setSegment, setV86Segment, withVector } from './segments.ts'; // biome-ignore format: one line
import * as st from './state.ts';
import { S, X } from './state.ts';
import { sub } from './sub.ts';
import { flushNonGlobal } from './tlb.ts';

/** What switches tasks: JMP, then CALL or an interrupt, then IRET. */
export const TaskSource = { jump: 0, call: 1, iret: 2 } as const;

/** Offsets in the TSS of 32 and of 16 bits: first of the general registers (in encoding order), first of ES, CS, SS, DS, FS, GS. */
const LAYOUT = { 32: { ip: 0x20, flags: 0x24, gpr: 0x28, seg: 0x48, ldt: 0x60 }, 16: { ip: 0x0e, flags: 0x10, gpr: 0x12, seg: 0x22, ldt: 0x2a } } as const; // biome-ignore format: two columns
const TASK_SEGMENTS = [S.es, S.cs, S.ss, S.ds, S.fs, S.gs] as const;
const CR0_TS = 8;
const CR0_PG = 0x8000_0000n;
const DR6_BT = 0x8000;
const DR7_LOCAL = 0x155;

const at = (c: Emit, base: Value, offset: number): Value => c.b.add(base, c.b.i64(offset));
const peek = (c: Emit, base: Value, offset: number, size: 16 | 32): Value => c.load(at(c, base, offset), size, { system: true });
const poke = (c: Emit, base: Value, offset: number, size: 16 | 32, value: Value): void =>
  c.store(at(c, base, offset), size, size === 16 ? c.b.and(value, c.b.i32(0xffff)) : value, { system: true });

/** Writes the running task's state to its TSS. `flags` (i32) is the image to save. */
const saveTask = sub('saveTask', ['i64', 'i32'], null, { faults: true }, (c, nextIp, flags) => {
  const b = c.b;
  const base = c.get(st.segBase[S.tr]);
  const write = (size: 16 | 32): void => {
    const layout = LAYOUT[size];
    const step = size / 8;
    poke(c, base, layout.ip, size, b.wrap(nextIp));
    poke(c, base, layout.flags, size, flags);
    for (let i = 0; i < 8; i++) poke(c, base, layout.gpr + i * step, size, b.wrap(c.get(st.gpr[i])));
    const count = size === 32 ? 6 : 4;
    for (let i = 0; i < count; i++) poke(c, base, layout.seg + i * step, 16, c.get(st.segSelector[TASK_SEGMENTS[i]]));
  };
  b.if(
    b.and(c.get(st.segAttr[S.tr]), b.i32(8)),
    () => write(32),
    () => write(16),
  );
  b.ret();
});

/** Clears or sets the busy bit of a TSS descriptor in the GDT. */
function setBusy(c: Emit, selector: Value, busy: boolean): void {
  const b = c.b;
  const access = b.add(b.add(c.get(st.gdtBase), b.extu(b.and(selector, b.i32(0xfff8)))), b.i64(5));
  const old = c.load(access, 8, { system: true });
  c.store(access, 8, busy ? b.or(old, b.i32(2)) : b.and(old, b.i32(0xfd)), { system: true });
}

/** LDTR of a new task. */
const loadTaskLdt = sub('loadTaskLdt', ['i32'], null, { faults: true }, (c, selector) => {
  const b = c.b;
  const ts = b.i32(X.ts);
  b.if(isNull(c, selector), () => b.ret());
  failIf(c, b.and(selector, b.i32(4)), ts, selector);
  const desc = c.call(readDescriptor, selector, ts);
  failIf(c, b.ne(b.and(descAttr(c, desc), b.i32(0x9f)), b.i32(0x82)), ts, selector);
  setSegment(c, b.i32(S.ldtr), selector, desc);
  b.ret();
});

/** CS, SS and the data segments of a new task in protected mode; CPL is that of CS already. */
const loadTaskSegments = sub('loadTaskSegments', [], null, { faults: true }, (c) => {
  const b = c.b;
  const ts = b.i32(X.ts);
  const level = c.get(st.cpl);
  const cs = c.get(st.segSelector[S.cs]);
  failIf(c, isNull(c, cs), ts, b.i32(0));
  const code = c.call(readDescriptor, cs, ts);
  const attr = descAttr(c, code);
  const notCode = b.ne(b.and(attr, b.i32(Attr.s | Attr.code)), b.i32(Attr.s | Attr.code));
  const wrong = b.select(b.and(attr, b.i32(Attr.conforming)), b.gtu(dpl(c, attr), level), b.ne(dpl(c, attr), level));
  failIf(c, b.or(notCode, wrong), ts, cs);
  failIf(c, b.eqz(b.and(attr, b.i32(Attr.present))), withVector(c, ts, X.np), cs);
  setSegment(c, b.i32(S.cs), cs, markAccessed(c, cs, code));
  c.do(updateContext);

  const ss = c.get(st.segSelector[S.ss]);
  failIf(c, isNull(c, ss), ts, b.i32(0));
  const stack = c.call(readDescriptor, ss, ts);
  checkStackSegment(c, ss, stack, level, ts);
  setSegment(c, b.i32(S.ss), ss, markAccessed(c, ss, stack));
  c.do(updateContext);
  for (const s of [S.ds, S.es, S.fs, S.gs]) c.do(loadProtectedSegment, b.i32(s), c.get(st.segSelector[s]), ts);
  c.do(updateContext);
  c.gpIf(b.gtu(c.get(st.rip), b.extu(c.get(st.segLimit[S.cs]))));
  b.ret();
});

/**
 * Switches to the task of TSS selector `selector` (i32). `source` (i32) is a `TaskSource`, `ext` (i32) `EXT` or 0, `nextIp` (i64) the
 * instruction pointer that the old task resumes at. A fault found after the switch belongs to the new task: `taskFault` stays 1 until the
 * caller ends with `finishTask`.
 */
export const switchTask = sub(
  'switchTask',
  ['i32', 'i32', 'i32', 'i64'],
  null,
  { faults: true },
  (c, selector, source, ext, nextIp) => {
    const b = c.b;
    const back = b.eq(source, b.i32(TaskSource.iret));
    const nested = b.eq(source, b.i32(TaskSource.call));
    const how = b.or(ext, b.select(back, b.i32(X.ts), b.i32(X.gp)));
    failIf(c, b.or(b.and(selector, b.i32(4)), isNull(c, selector)), how, selector);
    const desc = c.call(readDescriptor, selector, how);
    const attr = descAttr(c, desc);
    failIf(c, b.ne(b.and(attr, b.i32(0x17)), b.select(back, b.i32(3), b.i32(1))), how, selector);
    failIf(c, b.eqz(b.and(attr, b.i32(Attr.present))), b.or(ext, b.i32(X.np)), selector);
    const wide = anyOf(c, attr, 8);
    failIf(c, b.ltu(descLimit(c, desc), b.select(wide, b.i32(0x67), b.i32(0x2b))), b.or(ext, b.i32(X.ts)), selector);

    const base = descBase(c, desc);
    const either = (f: (layout: (typeof LAYOUT)[16 | 32], size: 16 | 32) => Value): Value =>
      c.choose(
        'i32',
        wide,
        () => f(LAYOUT[32], 32),
        () => f(LAYOUT[16], 16),
      );
    const ip = either((l, size) => peek(c, base, l.ip, size));
    const image = either((l, size) => peek(c, base, l.flags, size));
    const registers = Array.from({ length: 8 }, (_, i) => either((l, size) => peek(c, base, l.gpr + (i * size) / 8, size)));
    const selectors = TASK_SEGMENTS.map((_, i) =>
      either((l, size) => (size === 16 && i >= 4 ? b.i32(0) : peek(c, base, l.seg + (i * size) / 8, 16))),
    );
    const ldt = either((l) => peek(c, base, l.ldt, 16));
    const cr3 = b.extu(either((_, size) => (size === 32 ? peek(c, base, 0x1c, 32) : b.i32(0))));
    const trap = either((_, size) => (size === 32 ? b.and(peek(c, base, 0x64, 16), b.i32(1)) : b.i32(0)));

    const flags = c.call(packFlags);
    const old = c.get(st.segSelector[S.tr]);
    c.do(saveTask, nextIp, b.select(back, b.and(flags, b.i32(~F.nt)), flags));
    b.if(nested, () => poke(c, base, 0, 16, old), () => setBusy(c, old, false)); // biome-ignore format: one line
    b.if(b.eqz(back), () => setBusy(c, selector, true));

    // From here on the new task runs, whatever is found wrong with it.
    setSegment(c, b.i32(S.tr), selector, b.or(desc, b.i64(2n << 40n)));
    c.set(st.cr0, b.or(c.get(st.cr0), b.i64(CR0_TS)));
    c.set(st.dr[7], b.and(c.get(st.dr[7]), b.i64(~DR7_LOCAL)));
    b.if(b.and(wide, b.ne(b.and(c.get(st.cr0), b.i64(CR0_PG)), b.i64(0))), () => {
      b.if(b.ne(cr3, c.get(st.cr3)), () => {
        c.set(st.cr3, cr3);
        c.do(loadPointers);
        c.do(flushNonGlobal);
      });
    });
    const all = b.i32(F.tf | F.if | F.df | F.iopl | F.nt | F.rf | F.vm | F.ac | F.vif | F.vip | F.id);
    c.do(unpackFlags, b.or(image, b.select(nested, b.i32(F.nt), b.i32(0))), all);
    registers.forEach((value, i) => {
      b.if(wide, () => c.setReg(i, 32, value), () => c.setReg(i, 16, value)); // biome-ignore format: one line
    });
    c.set(st.rip, b.extu(ip));
    setNullSegment(c, b.i32(S.ldtr), ldt);
    c.set(st.taskFault, b.i32(1));
    c.set(st.taskIp, b.extu(ip));
    b.if(
      anyOf(c, image, F.vm),
      () => {
        TASK_SEGMENTS.forEach((s, i) => {
          setV86Segment(c, b.i32(s), selectors[i]);
        });
        c.set(st.cpl, b.i32(3));
        c.do(updateContext);
        c.do(loadTaskLdt, ldt);
      },
      () => {
        TASK_SEGMENTS.forEach((s, i) => {
          setNullSegment(c, b.i32(s), selectors[i]);
        });
        c.set(st.cpl, rpl(c, selectors[1]));
        c.do(updateContext);
        c.do(loadTaskLdt, ldt);
        c.do(loadTaskSegments);
      },
    );
    b.if(trap, () => {
      c.set(st.dr[6], b.or(c.get(st.dr[6]), b.i64(DR6_BT)));
      c.raise(X.db);
    });
    b.ret();
  },
);

/** Ends a task switch that met no fault. */
export function finishTask(c: Emit): void {
  c.set(st.taskFault, c.b.i32(0));
}
