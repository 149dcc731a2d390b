// QMP commands that write the guest's memory to files, and the non-maskable interrupt. QEMU 7.2, qapi/dump.json, qapi/machine.json.

import { QmpError } from '../../rpc/qmp/error.ts';
import { any, array, bool, enumeration, int, object, optional, str } from '../../rpc/qmp/schema.ts';
import { visibleMemory, writeCore } from '../dump.ts';
import type { Emulator } from '../emulator.ts';
import { VcpuMemory } from '../guest-memory.ts';
import { action, type QmpTable, query } from './row.ts';

const format = enumeration('DumpGuestMemoryFormat', ['elf', 'kdump-zlib', 'kdump-lzo', 'kdump-snappy', 'win-dmp']);
const CHUNK = 1 << 20;

/** Makes a file of pieces that `read` gives, up to `size` bytes. */
async function save(e: Emulator, filename: string, size: number, read: (at: number, n: number) => Uint8Array): Promise<void> {
  const sink = await e.host.streams.sink(`file:${filename}`);
  try {
    for (let at = 0; at < size; at += CHUNK) {
      const n = Math.min(CHUNK, size - at);
      const bytes = read(at, n);
      if (bytes.length < n) throw new QmpError(`Invalid addr 0x${(at + bytes.length).toString(16)}/size ${size} specified`);
      await sink.write(bytes);
    }
    await sink.end();
  } catch (error) {
    sink.destroy();
    throw error;
  }
}

async function dump(e: Emulator, protocol: string, range: { begin: number; length: number } | undefined): Promise<void> {
  const machine = e.running;
  const wasRunning = machine.status === 'running';
  await machine.pause();
  e.dump.status = 'active';
  let error: string | undefined;
  try {
    const sink = await e.host.streams.sink(protocol);
    try {
      await writeCore(machine, sink, range, (completed, total) => Object.assign(e.dump, { completed, total }));
      await sink.end();
    } catch (e2) {
      sink.destroy();
      throw e2;
    }
    e.dump.status = 'completed';
  } catch (e1) {
    error = e1 instanceof Error ? e1.message : String(e1);
    e.dump.status = 'failed';
  }
  e.emit('DUMP_COMPLETED', { result: { ...e.dump }, ...(error === undefined ? {} : { error }) });
  if (wasRunning) e.cont();
  if (error !== undefined) throw new QmpError(error);
}

export const memoryCommands: QmpTable = {
  memsave: action({ val: int, size: int, filename: str, 'cpu-index': optional(int) }, (e, o) => {
    const cpu = o['cpu-index'] ?? 0;
    if (!e.running.board.cpus.list().includes(cpu)) throw new QmpError("Parameter 'cpu-index' expects a CPU number");
    const memory = new VcpuMemory(e.running, cpu);
    return save(e, o.filename, o.size, (at, n) => memory.read(BigInt(o.val) + BigInt(at), n));
  }),
  pmemsave: action({ val: int, size: int, filename: str }, (e, o) => {
    const { memory } = e.running.board;
    const end = Math.max(...memory.ranges.map((r) => r.gpa + r.length));
    return save(e, o.filename, o.size, (at, n) =>
      o.val < 0 || o.val + at + n > end ? new Uint8Array(0) : visibleMemory(e.running.board, o.val + at, n),
    );
  }),
  'dump-guest-memory': action(
    {
      paging: bool,
      protocol: str,
      detach: optional(bool),
      begin: optional(int),
      length: optional(int),
      format: optional(format),
    },
    async (e, o) => {
      if ((o.format ?? 'elf') !== 'elf') throw new QmpError(`dump format '${o.format}' is not supported; accepted: elf`);
      if (o.paging) throw new QmpError('dumping with paging is not supported');
      if ((o.begin === undefined) !== (o.length === undefined)) throw new QmpError("parameters 'begin' and 'length' go together");
      if (e.dump.status === 'active') throw new QmpError('There is a dump in process, please wait.');
      if (!/^(file|fd):/.test(o.protocol)) throw new QmpError("Parameter 'protocol' expects 'fd:' or 'file:'");
      const range = o.begin === undefined ? undefined : { begin: o.begin, length: o.length! };
      if (o.detach) void dump(e, o.protocol, range).catch(() => {});
      else await dump(e, o.protocol, range);
    },
  ),
  'query-dump': query({}, object('DumpQueryResult', { status: str, completed: int, total: int }), (e) => ({ ...e.dump })),
  'query-dump-guest-memory-capability': query({}, object('DumpGuestMemoryCapability', { formats: array(format) }), () => ({
    formats: ['elf' as const],
  })),
  'inject-nmi': action({}, (e) => e.injectNmi()),
  'query-pci': query({}, array(any), (e) => e.pci()),
};
