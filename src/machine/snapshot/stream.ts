// A whole machine to a stream of bytes and back: what files, `savevm` and migration share.

import type { MemoryLayout } from '../../accel/accel.ts';
import type { Section } from '../../bits/arena.ts';
import type { Board } from '../board.ts';
import type { LiveOptions } from '../running.ts';
import { ByteReader, header, Kind, PAGE, type Packer, record, records } from './format.ts';
import { allPages, type Pages, pageRecords, pagesOf, putPages } from './pages.ts';
import { checkManifest, type Manifest, manifestOf, restoreSections, saveSections } from './state.ts';

/** A machine that stands still: its vCPUs are held and their state is in the slots. */
export interface StillMachine {
  readonly board: Board;
  readonly buffer: ArrayBufferLike;
  readonly layout: MemoryLayout;
  /** Pages of its memory that may not be zero, in order, where the host knows better than to look at all. */
  used?(): Iterable<number> | undefined;
}

/** Its memory as pages. */
export function memoryOf({ buffer, layout }: StillMachine): Pages {
  return pagesOf(new Uint8Array(buffer, layout.ramBase, layout.guestBytes));
}

const json = (value: unknown): Uint8Array => new TextEncoder().encode(JSON.stringify(value));

/** What a stream begins with. */
export function* streamStart(m: StillMachine): Generator<Uint8Array> {
  yield header();
  yield record(Kind.manifest, json(manifestOf(m.board, m.buffer, m.layout)));
}
/** What it ends with: all state but memory. The manifest is told again, with the time that counts. */
export function* streamEnd(m: StillMachine): Generator<Uint8Array> {
  yield record(Kind.manifest, json(manifestOf(m.board, m.buffer, m.layout)));
  for (const { name, version, bytes } of saveSections(m.board, m.buffer, m.layout)) {
    const head = json({ name, version });
    const length = new Uint8Array(4);
    new DataView(length.buffer).setUint32(0, head.length, true);
    yield record(Kind.section, length, head, bytes);
  }
  yield record(Kind.end);
}

/** Bytes of memory that a stream may have to carry. */
export const memoryBytes = (m: StillMachine): number => memoryOf(m).bytes.length;

/** Pages that were written since they were last asked for, and after they were given out. */
export interface DirtyLog {
  /** Every page that is dirty now; they count as clean from here on. */
  take(): Promise<number[]>;
  stop(): void;
}

/** Passes after which memory that changes too fast is given with the machine held. */
const PASSES_MAX = 30;

/** The machine while it runs, and then as it stands: `hold` is called for the last pass. */
export async function* saveLive(
  m: StillMachine,
  log: DirtyLog,
  hold: () => Promise<void>,
  o: LiveOptions & { readonly now: () => number },
  packer?: Packer,
): AsyncGenerator<Uint8Array> {
  const memory = memoryOf(m);
  try {
    yield* streamStart(m);
    let wanted: Iterable<number> = m.used?.() ?? allPages(memory);
    let left = memory.count;
    for (let pass = 1; ; pass++) {
      o.pass?.(pass, left * PAGE);
      const start = o.now();
      yield* pageRecords(memory, wanted, { live: true, again: pass > 1, ...(packer ? { packer } : {}) });
      const perPage = (o.now() - start) / Math.max(left, 1);
      const dirty = await log.take();
      wanted = dirty;
      left = dirty.length;
      if (left * perPage <= o.downtime() || pass >= PASSES_MAX) break;
    }
    await o.switchover?.();
    await hold();
    const last = [...new Set([...wanted, ...(await log.take())])];
    yield* pageRecords(memory, last, { live: true, again: true, ...(packer ? { packer } : {}) });
    yield* streamEnd(m);
  } finally {
    log.stop();
  }
}

/** The machine as it stands. */
export async function* saveMachine(m: StillMachine, packer?: Packer): AsyncGenerator<Uint8Array> {
  const memory = memoryOf(m);
  yield* streamStart(m);
  yield* pageRecords(memory, m.used?.() ?? allPages(memory), packer ? { packer } : {});
  yield* streamEnd(m);
}

/**
 * Takes a machine over from a stream, into a machine of the same make whose memory is zero or may be overwritten. `begin` is called with the manifest
 * that the stream starts with, which fits, before anything is changed; it may throw.
 * Resolves with the guest's clock in ns and the state of each vCPU (`putVcpu`).
 * @throws Error (rejects) for a stream that is damaged, ends early or does not fit; the machine must not go on where `begin` was called
 */
export async function loadMachine(
  m: StillMachine,
  chunks: AsyncIterable<Uint8Array>,
  o: { readonly packer?: Packer; readonly begin?: (saved: Manifest) => void } = {},
): Promise<{ readonly clock: number; readonly vcpus: ReadonlyMap<number, Uint8Array> }> {
  const reader = new ByteReader(chunks);
  const memory = memoryOf(m);
  const sections: Section[] = [];
  let manifest: Manifest | undefined;
  for await (const { kind, payload } of records(reader)) {
    if (kind === Kind.manifest) {
      const first = manifest === undefined;
      manifest = parse(payload) as Manifest;
      checkManifest(manifest, m.board, m.buffer, m.layout);
      if (first) o.begin?.(manifest);
    } else if (manifest === undefined) throw new Error(NO_MANIFEST);
    else if (kind === Kind.section) sections.push(readSection(payload));
    else if (kind !== Kind.end && !putPages(memory, kind, payload, o.packer))
      throw new Error(`Cannot restore a machine: a record of kind ${kind} is not known`);
  }
  return { clock: manifest!.clock, vcpus: restoreSections(sections, m.board, m.buffer, m.layout) };
}

/** The manifest that a stream starts with. Rejects where it does not fit; nothing is changed. */
export async function firstManifest(m: StillMachine, chunks: AsyncIterable<Uint8Array>): Promise<Manifest> {
  const reader = new ByteReader(chunks);
  try {
    for await (const { kind, payload } of records(reader)) {
      if (kind !== Kind.manifest) break;
      const manifest = parse(payload) as Manifest;
      checkManifest(manifest, m.board, m.buffer, m.layout);
      return manifest;
    }
  } finally {
    await reader.close();
  }
  throw new Error(NO_MANIFEST);
}
const NO_MANIFEST = 'Cannot restore a machine: its manifest is missing';

function readSection(payload: Uint8Array): Section {
  const d = new DataView(payload.buffer, payload.byteOffset, payload.length);
  const length = payload.length >= 4 ? d.getUint32(0, true) : payload.length;
  if (4 + length > payload.length) throw new Error('Cannot restore a machine: a section is damaged');
  const { name, version } = parse(payload.subarray(4, 4 + length)) as { name: string; version: number };
  return { name, version, bytes: payload.slice(4 + length) };
}

function parse(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    throw new Error('Cannot restore a machine: a part that should be JSON is damaged');
  }
}
