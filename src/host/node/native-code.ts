// The machine code that V8 has made of a WebAssembly module, as bytes that another process can go on with. V8 offers this to embedders in C++
// (v8-wasm.h: CompiledWasmModule, WasmModuleCompilation), and Node exports the functions, but hands them to nobody: they are called through
// koffi. What is used of their binary interface (the Itanium C++ ABI's names, libstdc++'s std::function, where a callback's arguments lie) holds
// for the Node that this package brings and is looked at before the first use; any other Node compiles as always. Bytes of another V8, of
// other flags or of another processor are refused by V8 itself.

import { loadKoffi } from './koffi.ts';

export interface NativeCode {
  /** Code of the functions that V8's optimising compiler has done; undefined where there is none. */
  save(module: WebAssembly.Module): Uint8Array<ArrayBuffer> | undefined;
  /** The module of these bytes with that code, without compiling it; undefined where V8 does not take the code. */
  load(bytes: Uint8Array, code: Uint8Array): WebAssembly.Module | undefined;
}

/** V8 of the Node releases whose binary interface is known. */
const KNOWN: readonly string[] = ['14.6.202.34-node.34'];

type Pointer = object;
type Native = (...args: unknown[]) => unknown;
interface Koffi {
  load(path: null): { func(name: string, result: string, parameters: readonly string[]): Native };
  proto(signature: string): object;
  pointer(type: object): object;
  register(callback: (...args: Pointer[]) => unknown, type: object): Pointer;
  address(value: Pointer | Uint8Array | BigUint64Array): bigint;
  decode(value: Pointer | bigint, offset: number, type: string): unknown;
  call(pointer: unknown, type: object, ...args: unknown[]): unknown;
  view(pointer: bigint, length: number): ArrayBuffer;
}

/** Offsets in a callback's arguments as V8 lays them out: isolate, value that is returned, first argument. */
const Frame = { isolate: 0x28, result: 0x30, argument: 0x50 } as const;
/** Offsets in a std::function: what copies and destroys its target, and what calls it. */
const Callable = { bytes: 32, manage: 16, invoke: 24 } as const;
/** Offset of ModuleCachingInterface::SetCachedCompiledModuleBytes in its table of virtual functions. */
const SET_CACHED = 8;
/** Room for a CompiledWasmModule (a std::shared_ptr and a std::string, 48 bytes) or a WasmModuleCompilation (8). */
const ROOM = 64;

let bound: NativeCode | null | undefined;
/** It, for the thread that asks; undefined where this Node's V8 is not known. */
export function nativeCode(): NativeCode | undefined {
  if (bound === undefined) bound = find() ?? null;
  return bound ?? undefined;
}
function find(): NativeCode | undefined {
  if (process.platform !== 'linux' || process.arch !== 'x64' || !KNOWN.includes(process.versions.v8)) return undefined;
  try {
    return bind(loadKoffi<Koffi>());
  } catch {
    return undefined;
  }
}

function bind(koffi: Koffi): NativeCode | undefined {
  const process = koffi.load(null);
  const P = 'void *';
  const currentIsolate = process.func('_ZN2v87Isolate10GetCurrentEv', P, []);
  const setModuleCallback = process.func(
    '_ZN2v87Isolate21SetWasmModuleCallbackEPFbRKNS_20FunctionCallbackInfoINS_5ValueEEEE',
    'void',
    [P, P],
  );
  const getCompiled = process.func('_ZN2v816WasmModuleObject17GetCompiledModuleEv', P, [P, P]);
  const serialize = process.func('_ZN2v818CompiledWasmModule9SerializeEv', P, [P, P]);
  const destroyCompiled = process.func('_ZNSt12_Destroy_auxILb0EE9__destroyIPN2v818CompiledWasmModuleEEEvT_S5_', 'void', [P, P]);
  const compilation = process.func('_ZN2v821WasmModuleCompilationC1Ev', 'void', [P]);
  const destroyCompilation = process.func('_ZN2v821WasmModuleCompilationD1Ev', 'void', [P]);
  const hasCode = process.func('_ZN2v821WasmModuleCompilation25SetHasCompiledModuleBytesEv', 'void', [P]);
  const receive = process.func('_ZN2v821WasmModuleCompilation15OnBytesReceivedEPKhm', 'void', [P, P, 'size_t']);
  const finish = process.func(
    '_ZN2v821WasmModuleCompilation6FinishEPNS_7IsolateERKSt8functionIFvRNS_13WasmStreaming22ModuleCachingInterfaceEEERKS3_IFvSt7variantIJNS_5LocalINS_16WasmModuleObjectEEENSC_INS_5ValueEEEEEEE',
    'void',
    [P, P, P, P],
  );
  const copy = process.func('memcpy', P, [P, P, 'size_t']);
  const free = process.func('free', 'void', [P]);
  // Returns 0 whatever it is given: the callback that V8 has by default says `false` as well.
  const neither = process.func('dlsym', P, [P, 'const char *'])(null, 'sched_yield');

  const isolate = currentIsolate() as Pointer;
  const behind = (pointer: Pointer, offset: number): bigint => koffi.address(pointer) + BigInt(offset);
  const quad = (pointer: Pointer, offset: number): bigint => BigInt(koffi.decode(pointer, offset, 'uint64_t') as bigint | number);

  // V8 calls back where a module is constructed: in there, arguments have places that V8 keeps up to date, and a result can be left.
  let within: (frame: Pointer) => void = () => {};
  const callback = koffi.register(
    (frame) => {
      within(frame);
      return true;
    },
    koffi.pointer(koffi.proto('bool NonrootWithin(void *frame)')),
  );
  function construct(argument: unknown, work: (frame: Pointer) => void): unknown {
    within = work;
    setModuleCallback(isolate, callback);
    try {
      return Reflect.construct(WebAssembly.Module, [argument, undefined]) as unknown;
    } finally {
      setModuleCallback(isolate, neither);
    }
  }

  // std::function objects without a target of their own: V8 copies and drops them, and calls.
  const manage = koffi.register(() => false, koffi.pointer(koffi.proto('bool NonrootManage(void *to, void *from, int what)')));
  const invoke = koffi.proto('void NonrootInvoke(void *target, void *argument)');
  const callable = (work: (argument: Pointer) => void): BigUint64Array => {
    const object = new BigUint64Array(Callable.bytes / 8);
    object[Callable.manage / 8] = koffi.address(manage);
    object[Callable.invoke / 8] = koffi.address(koffi.register((_, argument) => work(argument!), koffi.pointer(invoke)));
    return object;
  };
  let code: Uint8Array = new Uint8Array(0);
  /** V8 takes the code, if it does, while it is given. */
  let giving = false;
  let result: Pointer | null = null;
  const setCached = koffi.proto('bool NonrootSetCached(void *self, const void *bytes, size_t length)');
  const giveCode = callable((caching) => {
    const table = koffi.decode(caching, 0, P) as Pointer;
    giving = true;
    koffi.call(koffi.decode(table, SET_CACHED, P), setCached, caching, code, code.length);
    giving = false;
  });
  const takeModule = callable((variant) => {
    // A std::variant of the module and an error: where V8 has it, and which one it is.
    if (!result || !giving || koffi.decode(variant, 8, 'uint8_t') !== 0) return;
    copy(behind(result, Frame.result), koffi.decode(variant, 0, P), 8);
    result = null;
  });

  // Whether arguments lie where they are looked for: small integers are in the upper half, and nothing is returned yet.
  let fits = false;
  construct(1234, (frame) => {
    const isolateThere = quad(frame, Frame.isolate) === koffi.address(isolate);
    const first = quad(frame, Frame.argument) === 1234n << 32n;
    fits = isolateThere && first && quad(frame, Frame.result) === quad(frame, Frame.argument + 8);
  });
  if (!fits) return undefined;

  return {
    save(module) {
      let saved: Uint8Array<ArrayBuffer> | undefined;
      construct(module, (frame) => {
        const compiled = new Uint8Array(ROOM);
        const buffer = new BigUint64Array(2);
        getCompiled(compiled, behind(frame, Frame.argument));
        serialize(buffer, compiled);
        const [at, length] = buffer as unknown as [bigint, bigint];
        if (at !== 0n) {
          if (length !== 0n) saved = new Uint8Array(koffi.view(at, Number(length))).slice();
          free(at);
        }
        destroyCompiled(compiled, koffi.address(compiled) + 48n);
      });
      return saved;
    },
    load(bytes, given) {
      code = given;
      let taken = false;
      const module = construct(undefined, (frame) => {
        const made = new Uint8Array(ROOM);
        result = frame;
        compilation(made);
        hasCode(made);
        receive(made, bytes, bytes.length);
        finish(made, isolate, giveCode, takeModule);
        destroyCompilation(made);
        // What V8 refuses it compiles on its threads, for nobody.
        taken = result === null;
        result = null;
      });
      code = new Uint8Array(0);
      return taken ? (module as WebAssembly.Module) : undefined;
    },
  };
}
