// The translator as an accelerator: what is made once for a machine, in each thread that runs vCPUs.

import { tablesFor } from '../../isa/x86/absent.ts';
import type { Variant } from '../../isa/x86/bind.ts';
import type { Size } from '../../isa/x86/emit.ts';
import { allRows } from '../../isa/x86/rows/all.ts';
import { staleRow } from '../../isa/x86/rows/pseudo.ts';
import { buildTables, packTables, type RowInfo, type Tables } from '../../isa/x86/table.ts';
import { isWide, type MemoryImport } from '../../wasm/module.ts';
import { emptyBus, type MemoryLayout } from '../accel.ts';
import { type Handler, type HandlerData, Handlers } from './handlers.ts';
import { type HotHandlers, hotHandlers } from './hot.ts';
import { createMemory, layoutOf, WIDE_PAGES_MAX } from './layout.ts';
import { Library } from './library.ts';
import { buildHandlers, buildMain, type HandlerModule } from './tier0.ts';
import { type ColdHandlers, DbtVcpu, type DbtVm } from './vcpu.ts';

/** What does not depend on the machine: tables, handlers, subroutines. */
export interface Engine {
  readonly tables: Tables;
  readonly library: Library;
  readonly handlers: Handlers;
  /** Handlers that the main loop holds itself. */
  readonly hotCount: number;
  /** The first of them that is not for 64-bit code. */
  readonly legacyFrom: number;
  readonly cold?: ColdHandlers;
  /** The handler of a variant's name (`variantName`), made when it is new; undefined where the row is gone. */
  named(name: string): Handler | undefined;
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
    wide: rest.includes('wide'),
    limited: rest.includes('limited'),
    flat: rest.includes('flat'),
  };
}

/** What is the same for all machines and takes time to make, as plain data. */
export interface Prebuilt {
  readonly handlers: readonly HandlerData[];
  readonly hotCount: number;
  readonly legacyFrom: number;
  /** The modules are for memories beyond 4 GiB. */
  readonly wide: boolean;
  /** The main module, and that of the handlers that are not hot. */
  readonly main: Uint8Array<ArrayBuffer>;
  readonly cold: HandlerModule;
  /** The decoder's (`packTables`). */
  readonly tables: Int16Array;
  /** A name for the build that it came with. */
  readonly id?: string;
}

/** Makes it. */
export function prebuild(wide: boolean): Prebuilt {
  const engine = createEngine();
  const { hotCount, legacyFrom, handlers, tables } = engine;
  const main = mainModule(engine, wide);
  const { bytes, imports, hosts, exports } = coldModule(engine, new WebAssembly.Module(main), wide);
  const names = (list: readonly { readonly name: string }[]): { name: string }[] => list.map(({ name }) => ({ name }));
  const cold = { bytes, imports: names(imports), hosts: names(hosts), exports: names(exports) };
  return { handlers: handlers.data(), hotCount, legacyFrom, wide, main, cold, tables: packTables(tables) };
}

/** Compiles one of the modules that come with a build: a host may have the code of it. */
export interface Compile {
  (bytes: Uint8Array<ArrayBuffer>, which: 'main' | 'cold'): WebAssembly.Module;
  /** The last one came with all of its code, optimised. */
  readonly optimised?: boolean;
}
const compileNow: Compile = (bytes) => new WebAssembly.Module(bytes);

/** Builds tables and hot handlers, or takes these from `prebuilt`. `hot` names the handlers of the main loops, hottest first. */
export function createEngine(prebuilt?: Prebuilt, compile: Compile = compileNow, hot: HotHandlers = hotHandlers): Engine {
  const tables = buildTables(allRows, prebuilt?.tables);
  const library = new Library();
  const handlers = new Handlers(library);
  let rows: Map<string, RowInfo> | undefined;
  const named = (name: string): Handler | undefined => {
    rows ??= new Map(tables.rows.map((r) => [`${r.row.opcode}|${r.row.asm}`, r]));
    const variant = variantNamed(name, rows);
    return variant && handlers.get(variant);
  };
  if (prebuilt) {
    const { hotCount, legacyFrom, cold } = prebuilt;
    handlers.adopt(prebuilt.handlers, tables.rows);
    return { tables, library, handlers, hotCount, legacyFrom, named, cold: coldOf(handlers, hotCount, cold, compile) };
  }
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
    wide: false,
    limited: false,
    flat: false,
  });
  const make = (names: readonly string[], pairs: readonly (readonly [string, string])[]): void => {
    names.forEach(named);
    for (const [a, b] of pairs) {
      const [first, second] = [named(a), named(b)];
      if (first && second && !first.ends) handlers.pair(first, second);
    }
  };
  make(hot.long, hot.longPairs);
  const legacyFrom = handlers.list.length;
  make(hot.legacy, hot.legacyPairs);
  return { tables, library, handlers, hotCount: handlers.list.length, legacyFrom, named };
}

/** Limits that every machine's memory keeps, so that one main module fits all. */
const ANY_MEMORY = { initial: 1, maximum: 65536 };
/** The same for memories beyond 4 GiB. */
const ANY_WIDE_MEMORY = { initial: 1, maximum: WIDE_PAGES_MAX };
const anyMemory = (wide: boolean): MemoryImport => (wide ? ANY_WIDE_MEMORY : ANY_MEMORY);

/** The memory of modules of regions: limits that any memory up to 4 GiB keeps, so that they may be used again in a machine of another size. */
export const regionMemory = (pages: number): MemoryImport => (isWide(pages) ? { initial: pages, maximum: pages } : ANY_MEMORY);

/** The main module's bytes, for memories up to 4 GiB or `wide` ones. */
export const mainModule = (engine: Engine, wide = false, profile = false): Uint8Array<ArrayBuffer> =>
  buildMain(engine.library, engine.handlers.list.slice(0, engine.hotCount), engine.legacyFrom, anyMemory(wide), profile).bytes;

/** What a thread can have ready before there is a machine, whose memory is `wide` or not. */
export function prepareEngine(
  wide: boolean,
  prebuilt?: Prebuilt,
  compile: Compile = compileNow,
): { readonly engine: Engine; readonly main: WebAssembly.Module; readonly wide: boolean; readonly id: string | undefined } {
  const plain = createEngine(prebuilt, compile);
  const main = compile(prebuilt?.main ?? mainModule(plain, wide), 'main');
  const { optimised = false } = compile;
  const engine = { ...plain, cold: plain.cold ?? coldOf(plain.handlers, plain.hotCount, coldModule(plain, main, wide), compile) };
  if (optimised) void engine.cold.module;
  else warmUp(engine, main, wide);
  return { engine, main, wide, id: prebuilt?.id };
}

/** Compiled when it is first needed: who translates only does not need it. */
const coldOf = ({ list }: Handlers, hotCount: number, made: HandlerModule, compile: Compile): ColdHandlers => {
  let module: WebAssembly.Module | undefined;
  return {
    handlers: list.slice(hotCount),
    made,
    get module() {
      return (module ??= compile(made.bytes, 'cold'));
    },
  };
};

/** What boots need beside the hot handlers, as one module. */
function coldModule({ handlers, library, hotCount, named }: Engine, main: WebAssembly.Module, wide: boolean): HandlerModule {
  hotHandlers.cold.forEach(named);
  const there = Object.fromEntries(WebAssembly.Module.exports(main).map((e) => [e.name, true]));
  return buildHandlers(library, handlers.list.slice(hotCount), there, anyMemory(wide));
}

/** again: inc rax; xor rbx,rax; jmp again */
const ROUND = Uint8Array.of(0x48, 0xff, 0xc0, 0x48, 0x31, 0xc3, 0xeb, 0xf8);
const ROUNDS = 20_000;

/** Runs the main loop for a moment, so that the host's optimising compiler begins with it while the machine is still being built. */
function warmUp(engine: Engine, main: WebAssembly.Module, wide: boolean): void {
  const layout = layoutOf(1 << 20, 1, 0, wide);
  const memory = createMemory(layout);
  const vcpu = new DbtVcpu(createVm(engine, memory, layout, 1, main, { regions: 'off' }), 0, emptyBus());
  const start = 0x1000;
  new Uint8Array(memory.buffer).set(ROUND, layout.ramBase + start);
  const state = { 'cs.selector': 0x10n, 'cs.base': 0n, 'cs.attr': 0xa09bn, efer: 0x500n, cr0: 1n, rip: BigInt(start) };
  for (const [name, value] of Object.entries(state)) vcpu.set(name, value);
  vcpu.sync();
  for (let left = ROUNDS; left > 0; left -= 1000) vcpu.run(1000);
}

/** What may be chosen for a machine. */
export type VmOptions = Partial<Pick<DbtVm, 'trace' | 'regions' | 'reach' | 'maker' | 'kept' | 'now'>> & {
  /** Features of the CPU model, by name: all where it is not said. */
  readonly features?: ReadonlySet<string> | undefined;
};

/** Joins engine, memory and compiled main module to what vCPUs are made from. */
export function createVm(
  engine: Engine,
  memory: WebAssembly.Memory,
  layout: MemoryLayout,
  cpus: number,
  main: WebAssembly.Module,
  options: VmOptions = {},
): DbtVm {
  const { features, ...others } = options;
  const tables = features ? tablesFor(engine.tables, features) : engine.tables;
  return { memory, layout, cpus, main, regions: 'hot', now: () => performance.now(), ...others, ...engine, tables };
}
