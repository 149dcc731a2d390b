// The translator as an accelerator: what is made once for a machine, in each thread that runs vCPUs.

import type { Variant } from '../../isa/x86/bind.ts';
import type { Size } from '../../isa/x86/emit.ts';
import { allRows } from '../../isa/x86/rows/all.ts';
import { staleRow } from '../../isa/x86/rows/pseudo.ts';
import { buildTables, type RowInfo, type Tables } from '../../isa/x86/table.ts';
import type { MemoryLayout } from '../accel.ts';
import { Handlers } from './handlers.ts';
import { hotHandlers } from './hot.ts';
import { Library } from './library.ts';
import { buildMain } from './tier0.ts';
import type { DbtVm } from './vcpu.ts';

/** What does not depend on the machine: tables, handlers, subroutines. */
export interface Engine {
  readonly tables: Tables;
  readonly library: Library;
  readonly handlers: Handlers;
  /** Handlers that the main loop holds itself. */
  readonly hotCount: number;
}

/** The variant of that name (see `variantName`); undefined where the row is gone. */
function variantNamed(name: string, rows: ReadonlyMap<string, RowInfo>): Variant | undefined {
  const [opcode, asm, size, addressSize, mode, ...rest] = name.split('|');
  const info = rows.get(`${opcode}|${asm}`);
  if (!info) return undefined;
  return {
    info,
    size: Number(size) as Size,
    addressSize: Number(addressSize) as Size,
    isMemory: rest.includes('mem'),
    lock: rest.includes('lock'),
    rep: rest.includes('rep2') ? 2 : rest.includes('rep3') ? 3 : 0,
    long: mode === 'long',
    flagsLive: !rest.includes('noflags'),
    fpTrap: rest.includes('fptrap'),
  };
}

/** Builds tables and hot handlers. `hot` names the handlers of the main loop, hottest first. */
export function createEngine(hot: readonly string[] = hotHandlers): Engine {
  const tables = buildTables(allRows);
  const library = new Library();
  const handlers = new Handlers(library);
  const rows = new Map(tables.rows.map((r) => [`${r.row.opcode}|${r.row.asm}`, r]));
  // Number STALE is the handler of stale records, in whatever mode.
  handlers.get({
    info: tables.rows.find((r) => r.row === staleRow)!,
    size: 64,
    addressSize: 64,
    isMemory: false,
    lock: false,
    rep: 0,
    long: true,
    flagsLive: true,
    fpTrap: false,
  });
  for (const name of hot) {
    const variant = variantNamed(name, rows);
    if (variant) handlers.get(variant);
  }
  return { tables, library, handlers, hotCount: handlers.list.length };
}

/** The main module's bytes for a machine of this layout. */
export function mainModule(engine: Engine, layout: MemoryLayout, profile = false): Uint8Array<ArrayBuffer> {
  const memory = { initial: layout.pages, maximum: layout.pages };
  return buildMain(engine.library, engine.handlers.list.slice(0, engine.hotCount), memory, profile).bytes;
}

/** What may be chosen for a machine. */
export type VmOptions = Partial<Pick<DbtVm, 'trace' | 'regions'>>;

/** Joins engine, memory and compiled main module to what vCPUs are made from. */
export function createVm(
  engine: Engine,
  memory: WebAssembly.Memory,
  layout: MemoryLayout,
  cpus: number,
  main: WebAssembly.Module,
  options: VmOptions = {},
): DbtVm {
  return { memory, layout, cpus, main, regions: 'hot', ...options, ...engine };
}

/** A new memory for a machine of this layout. */
export function createMemory(layout: MemoryLayout): WebAssembly.Memory {
  return new WebAssembly.Memory({ initial: layout.pages, maximum: layout.pages, shared: true });
}
