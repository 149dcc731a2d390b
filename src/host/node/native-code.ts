// The machine code that V8 has made of a WebAssembly module, as bytes that another process can go on with. V8 offers this to embedders in C++
// (v8-wasm.h: CompiledWasmModule, WasmModuleCompilation), and Node exports the functions, but hands them to nobody: they are called through Node's
// own `node:ffi`. (Not through koffi: it calls on a stack of its own, where V8 must not collect garbage.) What is used of their binary
// interface (the Itanium C++ ABI's names, libstdc++'s std::function, where a callback's arguments lie) holds for the Node that this package brings
// and is looked at before the first use; any other Node compiles as always. Bytes of another V8, of other flags or of another processor are not
// given to V8 at all: what it refuses it compiles on threads of its own, and calls back whenever that is done.

import { createRequire } from 'node:module';
import { cachedDataVersionTag, setFlagsFromString } from 'node:v8';
import { inNative } from './native-gate.ts';
import { NATIVE_CODE_FLAG } from './vcpu-flags.ts';

export interface NativeCode {
  /** Code of the functions that V8's optimising compiler has done, behind V8's tag; undefined where there is none. */
  save(module: WebAssembly.Module): Uint8Array<ArrayBuffer> | undefined;
  /** The module of these bytes with that code, without compiling it; undefined where the tag is another one, or V8 does not take the code. */
  load(bytes: Uint8Array, code: Uint8Array): WebAssembly.Module | undefined;
}

/** V8 of the Node releases whose binary interface is known. */
const KNOWN: readonly string[] = ['14.6.202.34-node.34'];

type Native = (...args: (bigint | number)[]) => bigint;
interface Signature {
  readonly return: string;
  readonly arguments: readonly string[];
}
/** What is used of `node:ffi`: addresses are bigints. */
interface Ffi {
  dlopen<N extends string>(
    path: null,
    functions: Readonly<Record<N, Signature>>,
  ): {
    readonly lib: {
      registerCallback(signature: Signature, callback: (...args: bigint[]) => unknown): bigint;
      getSymbol(name: string): bigint;
    };
    readonly functions: Readonly<Record<N, Native>>;
  };
  getRawPointer(bytes: ArrayBufferView): bigint;
  getUint64(pointer: bigint, offset?: number): bigint;
  getUint8(pointer: bigint, offset?: number): number;
}

/** Offsets in a callback's arguments as V8 lays them out: isolate, value that is returned, first argument. */
const Frame = { isolate: 0x28, result: 0x30, argument: 0x50 } as const;
/** Words of a std::function: what copies and destroys its target, and what calls it. */
const Callable = { words: 4, manage: 2, invoke: 3 } as const;
/** Offset of ModuleCachingInterface::SetCachedCompiledModuleBytes in its table of virtual functions. */
const SET_CACHED = 8;
/** Room for a CompiledWasmModule (a std::shared_ptr and a std::string, 48 bytes) or a WasmModuleCompilation (8). */
const ROOM = 64;
const COMPILED_BYTES = 48n;
/** Before the code: what V8's version, its flags and the processor's features come to, and as many bytes again, so that the code lies as V8 has it. */
const TAG_BYTES = 8;

let bound: NativeCode | null | undefined;
/** It, for the thread that asks; undefined where this Node's V8 is not known. */
export function nativeCode(): NativeCode | undefined {
  if (bound === undefined)
    inNative(() => {
      bound = find() ?? null;
    });
  return bound ?? undefined;
}
function find(): NativeCode | undefined {
  if (process.platform !== 'linux' || process.arch !== 'x64' || !KNOWN.includes(process.versions.v8)) return undefined;
  const { emitWarning } = process;
  try {
    // It is said to be experimental, each time.
    process.emitWarning = () => {};
    setFlagsFromString(NATIVE_CODE_FLAG);
    return bind(createRequire(import.meta.url)('node:ffi') as Ffi);
  } catch {
    return undefined;
  } finally {
    process.emitWarning = emitWarning;
  }
}

const P = 'pointer';
const taking = (...parameters: string[]): Signature => ({ return: 'void', arguments: parameters });
const FINISH =
  '_ZN2v821WasmModuleCompilation6FinishEPNS_7IsolateERKSt8functionIFvRNS_13WasmStreaming22ModuleCachingInterfaceEEERKS3_IFvSt7variantIJNS_5LocalINS_16WasmModuleObjectEEENSC_INS_5ValueEEEEEEE';
const DESTROY = '_ZNSt12_Destroy_auxILb0EE9__destroyIPN2v818CompiledWasmModuleEEEvT_S5_';
const SET_CALLBACK = '_ZN2v87Isolate21SetWasmModuleCallbackEPFbRKNS_20FunctionCallbackInfoINS_5ValueEEEE';
const FUNCTIONS = {
  _ZN2v87Isolate10GetCurrentEv: { return: P, arguments: [] },
  [SET_CALLBACK]: taking(P, P),
  _ZN2v816WasmModuleObject17GetCompiledModuleEv: taking(P, P),
  _ZN2v818CompiledWasmModule9SerializeEv: taking(P, P),
  [DESTROY]: taking(P, P),
  _ZN2v821WasmModuleCompilationC1Ev: taking(P),
  _ZN2v821WasmModuleCompilationD1Ev: taking(P),
  _ZN2v821WasmModuleCompilation25SetHasCompiledModuleBytesEv: taking(P),
  _ZN2v821WasmModuleCompilation15OnBytesReceivedEPKhm: taking(P, P, 'uint64'),
  [FINISH]: taking(P, P, P, P),
  memcpy: taking(P, P, 'uint64'),
  free: taking(P),
  // Calls what it is given as an allocator's function for arrays: a call of a pointer with three arguments.
  nghttp2_mem_calloc: taking(P, P, P),
} as const;

function bind(ffi: Ffi): NativeCode | undefined {
  const { lib, functions: f } = ffi.dlopen(null, FUNCTIONS);
  const isolate = f._ZN2v87Isolate10GetCurrentEv();
  const at = (bytes: ArrayBufferView): bigint => ffi.getRawPointer(bytes);
  // Does nothing with what it is given, and returns 0: the callback that V8 has by default says `false` as well.
  const neither = lib.getSymbol('sched_yield');

  // V8 calls back where a module is constructed: in there, arguments have places that V8 keeps up to date, and a result can be left.
  let within: (frame: bigint) => void = () => {};
  const callback = lib.registerCallback({ return: 'uint64', arguments: [P] }, (frame) => {
    within(frame!);
    return 1n;
  });
  function construct(argument: unknown, work: (frame: bigint) => void): unknown {
    within = work;
    f[SET_CALLBACK](isolate, callback);
    try {
      return Reflect.construct(WebAssembly.Module, [argument, undefined]) as unknown;
    } finally {
      f[SET_CALLBACK](isolate, neither);
    }
  }

  // std::function objects without a target of their own: V8 calls them; to copy and drop them, at whatever time, is nothing.
  const callable = (work: (argument: bigint) => void): BigUint64Array => {
    const object = new BigUint64Array(Callable.words);
    object[Callable.manage] = neither;
    object[Callable.invoke] = lib.registerCallback(taking(P, P), (_, argument) => work(argument!));
    return object;
  };
  let code: Uint8Array = new Uint8Array(0);
  /** V8 takes the code, if it does, while it is given. */
  let giving = false;
  let result = 0n;
  // An allocator of nghttp2: its user's data, which come as the third argument, and four functions, the third of which is for arrays.
  const allocator = new BigUint64Array(5);
  const giveCode = callable((caching) => {
    allocator[0] = BigInt(code.length);
    allocator[3] = ffi.getUint64(ffi.getUint64(caching), SET_CACHED);
    giving = true;
    f.nghttp2_mem_calloc(at(allocator), caching, at(code));
    giving = false;
  });
  const takeModule = callable((variant) => {
    // A std::variant of the module and an error: where V8 has it, and which one it is.
    if (result === 0n || !giving || ffi.getUint8(variant, 8) !== 0) return;
    f.memcpy(result + BigInt(Frame.result), ffi.getUint64(variant), 8n);
    result = 0n;
  });

  // Whether arguments lie where they are looked for: small integers are in the upper half, and nothing is returned yet.
  let fits = false;
  construct(1234, (frame) => {
    const quad = (offset: number): bigint => ffi.getUint64(frame, offset);
    const first = quad(Frame.argument) === 1234n << 32n;
    fits = quad(Frame.isolate) === isolate && first && quad(Frame.result) === quad(Frame.argument + 8);
  });
  if (!fits) return undefined;

  return {
    save: (module) =>
      inNative(() => {
        let saved: Uint8Array<ArrayBuffer> | undefined;
        construct(module, (frame) => {
          const compiled = new Uint8Array(ROOM);
          const buffer = new BigUint64Array(2);
          f._ZN2v816WasmModuleObject17GetCompiledModuleEv(at(compiled), frame + BigInt(Frame.argument));
          f._ZN2v818CompiledWasmModule9SerializeEv(at(buffer), at(compiled));
          const [place, length] = buffer as unknown as [bigint, bigint];
          if (place !== 0n) {
            if (length !== 0n) {
              saved = new Uint8Array(TAG_BYTES + Number(length));
              new DataView(saved.buffer).setUint32(0, cachedDataVersionTag(), true);
              f.memcpy(at(saved) + BigInt(TAG_BYTES), place, length);
            }
            f.free(place);
          }
          f[DESTROY](at(compiled), at(compiled) + COMPILED_BYTES);
        });
        return saved;
      }),
    load: (bytes, given) =>
      inNative(() => {
        const { buffer, byteOffset, length } = given;
        if (length <= TAG_BYTES || new DataView(buffer, byteOffset).getUint32(0, true) !== cachedDataVersionTag())
          return undefined;
        code = given.subarray(TAG_BYTES);
        let taken = false;
        const module = construct(undefined, (frame) => {
          const made = new Uint8Array(ROOM);
          result = frame;
          f._ZN2v821WasmModuleCompilationC1Ev(at(made));
          f._ZN2v821WasmModuleCompilation25SetHasCompiledModuleBytesEv(at(made));
          f._ZN2v821WasmModuleCompilation15OnBytesReceivedEPKhm(at(made), at(bytes), BigInt(bytes.length));
          f[FINISH](at(made), isolate, at(giveCode), at(takeModule));
          f._ZN2v821WasmModuleCompilationD1Ev(at(made));
          taken = result === 0n;
          result = 0n;
        });
        code = new Uint8Array(0);
        return taken ? (module as WebAssembly.Module) : undefined;
      }),
  };
}
