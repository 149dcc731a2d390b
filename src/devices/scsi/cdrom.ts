// The commands of CD and DVD-ROM drives. MMC-6 (T10/1836-D), chapter 6; SFF-8020i for the old mode page 2A.

import { type Command, ready } from './command.ts';
import { capacity10, cdReads, type ModePages, modeSense } from './disk.ts';
import { be16, be24, be32, big, check, done } from './plan.ts';
import { senses } from './sense.ts';
import type { ScsiTarget } from './target.ts';

const BLOCK = 2048;
/** Most blocks that a CD has; a larger medium is a DVD. */
const CD_MAX = 80 * 60 * 75;
const PROFILE = { cdRom: 8, dvdRom: 0x10 } as const;

/** Minutes, seconds and frames of a block address. */
const msf = (lba: number): number[] => {
  const at = lba + 150;
  return [0, Math.floor(at / 4500) & 0xff, Math.floor(at / 75) % 60, at % 75];
};
const profile = (t: ScsiTarget): number => (t.medium === undefined ? 0 : t.blocks > CD_MAX ? PROFILE.dvdRom : PROFILE.cdRom);

const readToc: Command = ready((t, cdb) => {
  const inMsf = (cdb[1]! & 2) !== 0;
  const place = (lba: number): number[] => (inMsf ? msf(lba) : big(lba, 4));
  const first = cdb[6]!;
  const allocation = be16(cdb, 7);
  // The format is in byte 2, or in the old place of SFF-8020i.
  const format = cdb[2]! & 15 || cdb[9]! >> 6;
  if (format === 0) {
    if (first > 1 && first !== 0xaa) return check(senses.badField);
    const tracks = [
      ...(first <= 1 ? [0, 0x14, 1, 0, ...place(0)] : []),
      ...[0, 0x16, 0xaa, 0, ...place(t.blocks)], // the lead-out
    ];
    return t.reply([...big(tracks.length + 2, 2), 1, 1, ...tracks], allocation);
  }
  if (format === 1) return t.reply([...big(10, 2), 1, 1, 0, 0x14, 1, 0, 0, 0, 0, 0], allocation);
  if (format === 2) {
    const entry = (point: number, address: number[]): number[] => [1, 0x14, 0, point, 0, 0, 0, ...address];
    const body = [
      ...entry(0xa0, [0, 1, 0, 0]),
      ...entry(0xa1, [0, 1, 0, 0]),
      ...entry(0xa2, place(t.blocks)),
      ...entry(1, place(0)),
    ];
    return t.reply([...big(body.length + 2, 2), 1, 1, ...body], allocation);
  }
  return check(senses.badField);
});

const getConfiguration: Command = (t, cdb) => {
  if ((cdb[1]! & 3) > 2) return check(senses.badField);
  const current = profile(t);
  const one = (code: number, persistent: number, data: readonly number[]): number[] => [
    ...big(code, 2),
    persistent,
    data.length,
    ...data,
  ];
  const profiles = [PROFILE.dvdRom, PROFILE.cdRom].flatMap((p) => [...big(p, 2), p === current ? 1 : 0, 0]);
  const features = [
    one(0, 3, profiles),
    // Core over ATAPI; removable medium: tray, eject, lock.
    one(1, 0x0b, [0, 0, 0, 2, 1, 0, 0, 0]),
    one(3, 3, [0x29, 0, 0, 0]),
  ];
  const start = be16(cdb, 2);
  const kind = cdb[1]! & 3;
  const code = (f: readonly number[]): number => f[0]! * 256 + f[1]!;
  const shown = features.filter((f) => (kind === 2 ? code(f) === start : code(f) >= start)).flat();
  return t.reply([...big(shown.length + 4, 4), 0, 0, ...big(current, 2), ...shown], be16(cdb, 7));
};

const getEvent: Command = (t, cdb) => {
  // Asynchronous operation is not possible.
  if ((cdb[1]! & 1) === 0) return check(senses.badField);
  const s = t.s;
  const allocation = be16(cdb, 7);
  if ((cdb[4]! & 0x10) === 0) return t.reply([0, 2, 0x80, 0x10], allocation);
  let event = 0;
  if (s.mediaEvent) {
    event = s.mediaEvent;
    s.mediaEvent = 0;
  } else if (s.ejectRequested) {
    event = 1;
    s.ejectRequested = 0;
  }
  const state = (s.trayOpen ? 1 : 0) | (t.medium === undefined ? 0 : 2);
  return t.reply([0, 6, 4, 0x10, event, state, 0, 0], allocation);
};

const readDiscInformation: Command = ready((t, cdb) => {
  if ((cdb[1]! & 7) !== 0) return check(senses.badField);
  const data = new Array<number>(34).fill(0);
  data.splice(0, 9, 0, 32, 0x0e, 1, 1, 1, 1, 0x20, 0);
  return t.reply(data, be16(cdb, 7));
});

const readTrackInformation: Command = ready((t, cdb) => {
  const data = new Array<number>(36).fill(0);
  data.splice(0, 7, 0, 34, 1, 1, 0, 4, 1);
  data.splice(24, 4, ...big(t.blocks, 4));
  return t.reply(data, be16(cdb, 7));
});

const readDvdStructure: Command = ready((t, cdb) => {
  const format = cdb[7]!;
  const allocation = be16(cdb, 8);
  if (t.blocks <= CD_MAX) return check(senses.incompatible);
  if (format === 0) {
    // Physical format: DVD-ROM, one layer, from 0x30000 on.
    const layer = [0x01, 0x0f, 1, 0, 0, ...big(0x30000, 3), 0, ...big(0x30000 + t.blocks - 1, 3), ...big(0, 4), 0];
    const body = new Array<number>(2048).fill(0);
    body.splice(0, layer.length, ...layer);
    return t.reply([...big(2050, 2), 0, 0, ...body], allocation);
  }
  if (format === 1) return t.reply([...big(6, 2), 0, 0, 0, 0, 0, 0], allocation);
  if (format === 4) {
    const body = new Array<number>(2048).fill(0);
    return t.reply([...big(2050, 2), 0, 0, ...body], allocation);
  }
  return check(senses.badField);
});

/** READ CD: whole sectors of user data only, which is all that an image holds. */
const readCd: Command = ready((t, cdb) => {
  const lba = be32(cdb, 2);
  const blocks = be24(cdb, 6);
  if (lba + blocks > t.blocks) return check(senses.badLba);
  const fields = cdb[9]! & 0xf8;
  if (blocks === 0 || fields === 0) return done;
  if (fields !== 0x10) return check(senses.badField);
  return { kind: 'read', offset: lba * BLOCK, length: blocks * BLOCK };
});

const cdPages: ModePages = (t, changeable) => {
  const zero = (page: readonly number[]): readonly number[] =>
    changeable ? [page[0]!, page[1]!, ...page.slice(2).map(() => 0)] : page;
  return new Map(
    (
      [
        [0x01, [0x01, 6, 0, 5, 0, 0, 0, 0]],
        [0x0d, [0x0d, 6, 0, 0, ...big(60, 2), ...big(75, 2)]],
        [0x0e, [0x0e, 14, 4, 0, 0, 0, 0, 0, 1, 0xff, 2, 0xff, 0, 0, 0, 0]],
        [
          0x2a,
          // Reads CD-R, CD-RW, DVD-ROM; tray, eject and lock; 4 × 176 KB/s.
          [
            0x2a,
            0x14,
            0x3b,
            0,
            0x70,
            0x60,
            0x29 | (t.s.locked ? 2 : 0),
            0,
            ...big(706, 2),
            0,
            2,
            ...big(512, 2),
            ...big(706, 2),
            0,
            0,
            0,
            0,
            0,
            0,
          ],
        ],
      ] as const
    ).map(([code, page]) => [code, zero(page)] as const),
  );
};

const modes = modeSense(
  cdPages,
  () => 0,
  (t) => (t.o.atapi ? [] : [...big(t.blocks, 4), ...big(BLOCK, 4)]),
);

const readSubchannel: Command = ready((t, cdb) => t.reply([0, 0x15, 0, 0], be16(cdb, 7)));

export const cdCommands: readonly (readonly [number, Command])[] = [
  ...cdReads,
  [0x25, capacity10],
  [0x43, readToc],
  [0x42, readSubchannel],
  [0x46, getConfiguration],
  [0x4a, getEvent],
  [0x51, readDiscInformation],
  [0x52, readTrackInformation],
  [0xad, readDvdStructure],
  [0xbe, readCd],
  [0x1a, modes],
  [0x5a, modes],
  [
    0xbd, // MECHANISM STATUS
    (t, cdb) => t.reply([0, t.s.trayOpen ? 0x10 : 0, 0, 0, 0, 1, 0, 0], be16(cdb, 8)),
  ],
  // SEEK, SET CD SPEED, STOP PLAY
  [0x2b, ready(() => done)],
  [0xbb, () => done],
  [0x4e, () => done],
];
