// The commands of direct access block devices. SBC-3 (T10/BSR INCITS 514), chapter 5; mode pages of SPC-4, section 7.5.

import { type Command, ready } from './command.ts';
import { be16, be24, be32, be64, big, check, done, type ScsiPlan } from './plan.ts';
import { senses } from './sense.ts';
import type { ScsiTarget } from './target.ts';

/** Block address and number of blocks, by the length of the command block. */
interface Span {
  readonly lba: number;
  readonly blocks: number;
}

const span6 = (c: Uint8Array): Span => ({ lba: be24(c, 1) & 0x1f_ffff, blocks: c[4]! || 256 });
const span10 = (c: Uint8Array): Span => ({ lba: be32(c, 2), blocks: be16(c, 7) });
const span12 = (c: Uint8Array): Span => ({ lba: be32(c, 2), blocks: be32(c, 6) });
const span16 = (c: Uint8Array): Span => ({ lba: be64(c, 2), blocks: be32(c, 10) });

/** Fails where the blocks are not all on the medium. */
const within = (t: ScsiTarget, { lba, blocks }: Span, then: () => ScsiPlan): ScsiPlan =>
  lba + blocks > t.blocks || lba < 0 ? check(senses.badLba) : blocks === 0 ? done : then();

const writable =
  (command: Command): Command =>
  (t, cdb) =>
    t.medium?.readOnly ? check(senses.writeProtected) : command(t, cdb);

/** Commands that read blocks, which all kinds of media have. */
const reads: readonly (readonly [op: number, span: (c: Uint8Array) => Span])[] = [
  [0x28, span10],
  [0xa8, span12],
];
/** Those that only disks have. */
const diskReads: typeof reads = [
  [0x08, span6],
  [0x88, span16],
];
const spans = { cdrom: new Map(reads), disk: new Map([...reads, ...diskReads]) };

/** The blocks that a command block reads, whether they are on the medium or not; undefined for other commands. */
export const readSpan = (kind: 'cdrom' | 'disk', cdb: Uint8Array): Span | undefined => spans[kind].get(cdb[0]!)?.(cdb);

const read = (span: (c: Uint8Array) => Span): Command =>
  ready((t, cdb) => {
    const { lba, blocks } = span(cdb);
    const size = t.o.blockSize;
    return within(t, { lba, blocks }, () => ({ kind: 'read', offset: lba * size, length: blocks * size }));
  });

const write = (span: (c: Uint8Array) => Span): Command =>
  ready(
    writable((t, cdb) => {
      const { lba, blocks } = span(cdb);
      const size = t.o.blockSize;
      // FUA, which the 6-byte form has not; without a write cache every write is forced.
      const force = (cdb[0]! !== 0x0a && (cdb[1]! & 8) !== 0) || t.s.writeCache === 0;
      return within(t, { lba, blocks }, () => ({ kind: 'write', offset: lba * size, length: blocks * size, force }));
    }),
  );

const verify = (span: (c: Uint8Array) => Span): Command =>
  ready((t, cdb) => {
    const { lba, blocks } = span(cdb);
    const size = t.o.blockSize;
    return within(t, { lba, blocks }, () =>
      cdb[1]! & 2 ? { kind: 'compare', offset: lba * size, length: blocks * size } : done,
    );
  });

const writeSame = (span: (c: Uint8Array) => Span): Command =>
  ready(
    writable((t, cdb) => {
      const { lba, blocks } = span(cdb);
      const size = t.o.blockSize;
      // No blocks means all that follow, which the block limits page does not offer (WSNZ).
      if (blocks === 0 || blocks > 0x20_0000) return check(senses.badField);
      const discard = (cdb[1]! & 8) !== 0;
      // NDOB: no data comes, zeros are meant.
      if (cdb[0] === 0x93 && cdb[1]! & 1)
        return within(t, { lba, blocks }, () => ({ kind: 'same', offset: lba * size, length: blocks * size, block: 0, discard }));
      return within(t, { lba, blocks }, () => ({
        kind: 'same',
        offset: lba * size,
        length: blocks * size,
        block: size,
        discard,
      }));
    }),
  );

const unmap: Command = ready(
  writable((t, cdb) => {
    const length = be16(cdb, 7);
    if (length === 0) return done;
    return {
      kind: 'out',
      length,
      next: (data) => {
        const size = t.o.blockSize;
        const count = data.length < 8 ? 0 : Math.floor(Math.min(be16(data, 2), data.length - 8) / 16);
        if (count > 255) return check(senses.badParameter);
        const ranges: [number, number][] = [];
        for (let i = 0; i < count; i++) {
          const lba = be64(data, 8 + 16 * i);
          const blocks = be32(data, 16 + 16 * i);
          if (lba + blocks > t.blocks) return check(senses.badLba);
          ranges.push([lba * size, blocks * size]);
        }
        return { kind: 'discard', ranges };
      },
    };
  }),
);

export const capacity10: Command = ready((t, cdb) => {
  if ((cdb[8]! & 1) === 0 && be32(cdb, 2) !== 0) return check(senses.badField);
  return t.reply([...big(Math.min(0xffff_ffff, Math.max(0, t.blocks - 1)), 4), ...big(t.o.blockSize, 4)], 8);
});

const capacity16: Command = ready((t, cdb) => {
  if ((cdb[1]! & 31) !== 0x10) return check(senses.badField);
  const data = new Uint8Array(32);
  data.set([...big(Math.max(0, t.blocks - 1), 8), ...big(t.o.blockSize, 4)]);
  // Logical block provisioning: unmapped blocks may be there, and read as zeros.
  data[14] = 0xc0;
  return t.reply(data, be32(cdb, 10));
});

/** Mode pages by number: page code, length, parameters. `changeable` gives the mask of what can be changed. */
export type ModePages = (t: ScsiTarget, changeable: boolean) => ReadonlyMap<number, readonly number[]>;

const diskPages: ModePages = (t, changeable) =>
  new Map([
    [0x01, [0x01, 0x0a, changeable ? 0 : 0x80, ...new Array<number>(9).fill(0)]],
    [0x08, [0x08, 0x12, changeable || t.s.writeCache ? 4 : 0, ...new Array<number>(17).fill(0)]],
  ]);

/** MODE SENSE (6) and (10) over a table of pages; `specific` is the device-specific parameter. */
export const modeSense =
  (pages: ModePages, specific: (t: ScsiTarget) => number, descriptor: (t: ScsiTarget) => readonly number[]): Command =>
  (t, cdb) => {
    const wideForm = cdb[0] === 0x5a;
    const control = cdb[2]! >> 6;
    const page = cdb[2]! & 0x3f;
    const allocation = wideForm ? be16(cdb, 7) : cdb[4]!;
    if (control === 3) return check(senses.savingNotSupported);
    const all = pages(t, control === 1);
    const chosen = page === 0x3f ? [...all.values()] : all.has(page) ? [all.get(page)!] : undefined;
    if (chosen === undefined) return check(senses.badField);
    const blocks = cdb[1]! & 8 ? [] : descriptor(t);
    const body = [...blocks, ...chosen.flat()];
    const head = wideForm
      ? [...big(body.length + 6, 2), 0, specific(t), 0, 0, ...big(blocks.length, 2)]
      : [body.length + 3, 0, specific(t), blocks.length];
    return t.reply([...head, ...body], allocation);
  };

/** MODE SELECT: takes the write cache bit of page 8, and accepts pages as they are. */
const modeSelect: Command = (t, cdb) => {
  const wideForm = cdb[0] === 0x55;
  if ((cdb[1]! & 0x11) !== 0x10) return check(senses.badField);
  const length = wideForm ? be16(cdb, 7) : cdb[4]!;
  if (length === 0) return done;
  return {
    kind: 'out',
    length,
    next: (data) => {
      const head = wideForm ? 8 : 4;
      if (data.length < head) return check(senses.badLength);
      for (let at = head + (wideForm ? be16(data, 6) : data[3]!); at + 2 <= data.length; at += 2 + data[at + 1]!) {
        const code = data[at]! & 0x3f;
        if (at + 2 + data[at + 1]! > data.length || !diskPages(t, false).has(code)) return check(senses.badParameter);
        if (code === 8) t.s.writeCache = data[at + 2]! & 4 ? 1 : 0;
      }
      // Turning the cache off makes what it held safe.
      return t.s.writeCache || t.medium === undefined ? done : { kind: 'flush' };
    },
  };
};

const diskModeSense = modeSense(
  diskPages,
  (t) => (t.medium?.readOnly ? 0x80 : 0) | 0x10,
  (t) => [...big(Math.min(0xff_ffff, t.blocks), 4), ...big(t.o.blockSize, 4)],
);

const flush: Command = ready((t) => (t.medium?.readOnly ? done : { kind: 'flush' }));

export const diskCommands: readonly (readonly [number, Command])[] = [
  ...[...reads, ...diskReads].map(([op, span]) => [op, read(span)] as const),
  [0x0a, write(span6)],
  [0x2a, write(span10)],
  [0xaa, write(span12)],
  [0x8a, write(span16)],
  // WRITE AND VERIFY
  [0x2e, write(span10)],
  [0xae, write(span12)],
  [0x8e, write(span16)],
  [0x2f, verify(span10)],
  [0xaf, verify(span12)],
  [0x8f, verify(span16)],
  [0x41, writeSame(span10)],
  [0x93, writeSame(span16)],
  [0x42, unmap],
  [0x35, flush],
  [0x91, flush],
  [0x25, capacity10],
  [0x9e, capacity16],
  [0x1a, diskModeSense],
  [0x5a, diskModeSense],
  [0x15, modeSelect],
  [0x55, modeSelect],
  // REZERO UNIT, SEEK, PRE-FETCH
  [0x01, ready(() => done)],
  [0x2b, ready(() => done)],
  [0x34, ready(() => done)],
];

export const cdReads: readonly (readonly [number, Command])[] = reads.map(([op, span]) => [op, read(span)] as const);
