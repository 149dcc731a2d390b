// Checks and repairs a qcow2 image as `qemu-img check` does: refcounts and COPIED flags against the references that there are.
// "Qcow2 Image File Format", sections "Host cluster management" and "Cluster mapping".

import { type ByteFile, DiskError } from '../block.ts';
import { CORRUPT, DIRTY, FIELD, type Header, MAX_REFTABLE_BYTES } from './header.ts';
import { maxCount, readCount, writeCount } from './refcounts.ts';
import { countReferences, ReferenceCounts, type References, wrongFlags } from './references.ts';

export type Repair = 'leaks' | 'all';

const MAX_LINES = 1000;

export interface CheckResult {
  readonly corruptions: number;
  readonly leaks: number;
  readonly corruptionsFixed: number;
  readonly leaksFixed: number;
  /** Bytes from the start of the file to the end of its last cluster in use. */
  readonly imageEnd: number;
  readonly totalClusters: number;
  readonly allocatedClusters: number;
  readonly fragmentedClusters: number;
  readonly compressedClusters: number;
  /** One line for each finding, the first 1,000. */
  readonly lines: readonly string[];
}

interface Finding {
  readonly cluster: number;
  readonly found: number;
  readonly references: number;
}

interface Survey {
  readonly result: CheckResult;
  readonly references: References;
  readonly counts: readonly Finding[];
  readonly flags: Awaited<ReturnType<typeof wrongFlags>>;
  /** Errors that are neither of counts nor of flags. */
  readonly others: number;
}

/** Reads all metadata; changes nothing. */
export async function checkImage(file: ByteFile, header: Header): Promise<CheckResult> {
  return (await survey(file, header)).result;
}

/**
 * Sets what is wrong right: with `leaks`, counts that are too high; with `all`, also those that are too low and flags. Refcount
 * structures that are damaged themselves are made anew at the end of the file. The result tells what is left, and what was fixed.
 */
export async function repairImage(file: ByteFile, header: Header, repair: Repair): Promise<CheckResult> {
  const before = await survey(file, header);
  const leaks = before.counts.filter((f) => f.found > f.references);
  if (repair === 'all') {
    const needsRoom = before.counts.some((f) => f.found < f.references && !holds(before.references, header, f.cluster));
    if (before.references.structure > 0 || needsRoom) await rebuild(file, header);
    else await setCounts(file, header, before.references, before.counts);
    const now = await survey(file, header);
    await setFlags(file, header, now.flags);
    if (now.others === 0) await clearBits(file, header);
  } else if (before.references.structure === 0) await setCounts(file, header, before.references, leaks);
  await file.flush();
  const after = (await survey(file, header)).result;
  return {
    ...after,
    corruptionsFixed: Math.max(0, before.result.corruptions - after.corruptions),
    leaksFixed: Math.max(0, before.result.leaks - after.leaks),
    lines: before.result.lines,
  };
}

const perBlock = (header: Header): number => 2 ** (header.clusterBits + 3 - header.refcountOrder);

const holds = (references: References, header: Header, cluster: number): boolean =>
  references.blocks.has(Math.floor(cluster / perBlock(header)));

async function survey(file: ByteFile, header: Header): Promise<Survey> {
  const cluster = 2 ** header.clusterBits;
  const lines: string[] = [];
  let others = 0;
  const say = (line: string): void => {
    if (lines.length < MAX_LINES) lines.push(line);
  };
  const references = await countReferences(file, header, (line) => {
    others++;
    say(`ERROR ${line}`);
  });
  const { counts: refs } = references;
  const found = await readCounts(file, header, references);
  const counts: Finding[] = [];
  let leaks = 0;
  let low = 0;
  let end = refs.end;
  for (let c = 0; c < refs.clusters; c++) {
    const count = found(c);
    if (count > 0) end = Math.max(end, c + 1);
    const wanted = refs.get(c);
    if (count === wanted) continue;
    counts.push({ cluster: c, found: count, references: wanted });
    if (count > wanted) leaks++;
    else low++;
    say(`${count > wanted ? 'Leaked' : 'ERROR'} cluster ${c} refcount=${count} reference=${wanted}`);
  }
  const flags = await wrongFlags(file, header, references, found);
  for (const f of flags.l1) say(`ERROR L1 entry ${f.index} has COPIED ${f.copied ? 'clear' : 'set'}`);
  for (const f of flags.l2) say(`ERROR L2 table at ${f.offset}, entry ${f.index} has COPIED ${f.copied ? 'clear' : 'set'}`);
  const result: CheckResult = {
    corruptions: others + low + flags.l1.length + flags.l2.length,
    leaks,
    corruptionsFixed: 0,
    leaksFixed: 0,
    imageEnd: end * cluster,
    totalClusters: Math.ceil(header.size / cluster),
    allocatedClusters: references.allocated,
    fragmentedClusters: references.fragmented,
    compressedClusters: references.compressed,
    lines,
  };
  return { result, references, counts, flags, others };
}

/** The counts that the image has, by cluster. */
async function readCounts(file: ByteFile, header: Header, references: References): Promise<(cluster: number) => number> {
  const n = perBlock(header);
  const { clusters } = references.counts;
  const found = new ReferenceCounts(clusters);
  for (const [k, offset] of references.blocks) {
    const first = k * n;
    if (first >= clusters) continue;
    const view = await readCluster(file, header, offset);
    for (let i = 0; i < n && first + i < clusters; i++) found.set(first + i, readCount(view, i, header.refcountOrder));
  }
  return (c) => found.get(c);
}

async function readCluster(file: ByteFile, header: Header, offset: number): Promise<DataView> {
  const bytes = new Uint8Array(2 ** header.clusterBits);
  await file.read(offset, bytes);
  return new DataView(bytes.buffer);
}

async function setCounts(file: ByteFile, header: Header, references: References, findings: readonly Finding[]): Promise<void> {
  const n = perBlock(header);
  const most = maxCount(header.refcountOrder);
  const byBlock = Map.groupBy(findings, (f) => Math.floor(f.cluster / n));
  for (const [k, list] of byBlock) {
    const offset = references.blocks.get(k);
    if (offset === undefined) continue;
    const view = await readCluster(file, header, offset);
    for (const f of list) if (f.references <= most) writeCount(view, f.cluster % n, header.refcountOrder, f.references);
    await file.write(offset, new Uint8Array(view.buffer));
  }
}

async function setFlags(file: ByteFile, header: Header, flags: Survey['flags']): Promise<void> {
  await file.flush();
  const put = async (at: number, copied: boolean): Promise<void> => {
    const byte = new Uint8Array(1);
    await file.read(at, byte);
    byte[0] = copied ? byte[0]! | 0x80 : byte[0]! & 0x7f;
    await file.write(at, byte);
  };
  for (const f of flags.l1) await put(header.l1Offset + f.index * 8, f.copied);
  for (const f of flags.l2) await put(f.offset + f.index * 8, f.copied);
}

async function clearBits(file: ByteFile, header: Header): Promise<void> {
  if (header.version < 3 || (header.incompatible & (DIRTY | CORRUPT)) === 0n) return;
  await file.flush();
  header.incompatible &= ~(DIRTY | CORRUPT);
  const field = new DataView(new ArrayBuffer(8));
  field.setBigUint64(0, header.incompatible);
  await file.write(FIELD.incompatible, new Uint8Array(field.buffer));
}

/** Writes new refcount structures behind the end of the file and makes them valid in one write. */
async function rebuild(file: ByteFile, header: Header): Promise<void> {
  const cluster = 2 ** header.clusterBits;
  const n = perBlock(header);
  // Without the old structures, which become free.
  const { counts } = await countReferences(file, { ...header, reftableClusters: 0 }, () => {});
  const start = Math.ceil((await file.size()) / cluster);
  const indices = new Set<number>();
  for (let c = 0; c < counts.end; c++) if (counts.get(c) > 0) indices.add(Math.floor(c / n));
  let tableClusters = 1;
  let top = 0;
  for (let size = -1; size !== indices.size + tableClusters; ) {
    size = indices.size + tableClusters;
    for (let c = start; c < start + size; c++) indices.add(Math.floor(c / n));
    for (const k of indices) top = Math.max(top, k);
    tableClusters = Math.ceil(((top + 1) * 8) / cluster);
  }
  if (tableClusters * cluster > MAX_REFTABLE_BYTES)
    throw new DiskError(`Cannot repair ${file.name}: its refcount table would have more than ${MAX_REFTABLE_BYTES} bytes`);
  const table = new DataView(new ArrayBuffer(tableClusters * cluster));
  let place = start + tableClusters;
  const own = { first: start, end: start + tableClusters + indices.size };
  for (const k of [...indices].sort((a, b) => a - b)) {
    const block = encodeBlock(header, counts, k * n, own);
    await file.write(place * cluster, new Uint8Array(block.buffer));
    table.setBigUint64(k * 8, BigInt(place * cluster));
    place++;
  }
  await file.write(start * cluster, new Uint8Array(table.buffer));
  await file.flush();
  const field = new DataView(new ArrayBuffer(12));
  field.setBigUint64(0, BigInt(start * cluster));
  field.setUint32(8, tableClusters);
  await file.write(FIELD.reftable, new Uint8Array(field.buffer));
  await file.flush();
  header.reftableOffset = start * cluster;
  header.reftableClusters = tableClusters;
}

function encodeBlock(
  header: Header,
  counts: ReferenceCounts,
  first: number,
  own: { readonly first: number; readonly end: number },
): DataView {
  const block = new DataView(new ArrayBuffer(2 ** header.clusterBits));
  const most = maxCount(header.refcountOrder);
  for (let i = 0; i < perBlock(header); i++) {
    const c = first + i;
    const count = c >= own.first && c < own.end ? 1 : Math.min(most, counts.get(c));
    if (count > 0) writeCount(block, i, header.refcountOrder, count);
  }
  return block;
}
