// Commands of the monitor for people that show memory and values: QEMU's `x`, `xp`, `print`, `gva2gpa`.

import type { Emulator } from '../emulator.ts';
import { readPhysical, VcpuMemory } from '../guest-memory.ts';
import { type HmpArguments, type HmpCommand, HmpError, hex } from './command.ts';
import { held } from './info.ts';

const MOST = 4096;
const sizes: Readonly<Record<string, number>> = { b: 1, h: 2, w: 4, g: 8, L: 8 };

interface Format {
  readonly count: number;
  readonly form: string;
  readonly size: number;
}

/** Count, format and size of `/4xw`; what is left out is as it was the last time. */
function parseFormat(e: Emulator, { name, format: text }: Pick<HmpArguments, 'name' | 'format'>): Format {
  const [, digits = '', letters = ''] = /^(\d*)(.*)$/s.exec(text) ?? [];
  let form: string | undefined;
  let size: number | undefined;
  for (const c of letters) {
    if ('oduixc'.includes(c)) form = c;
    else if (c in sizes) size = sizes[c];
    else throw mistake(name, `invalid char in format: '${c}'`);
  }
  e.hmpFormat.form = form ?? e.hmpFormat.form;
  e.hmpFormat.size = size ?? e.hmpFormat.size;
  return { count: Math.min(Number(digits || 1), MOST), ...e.hmpFormat };
}

/** A mistake in what `name` was given. */
const mistake = (name: string, text: string): HmpError => new HmpError(`${text}\nTry "help ${name}" for more information`);

/** A sum of numbers, characters and registers, in QEMU's order: `+ -` bind least, then `& | ^`, then `* / %`. */
function evaluate(e: Emulator, { name, text }: Pick<HmpArguments, 'name' | 'text'>): bigint {
  const tokens = text.match(/\$[\w.]+|0x[\da-f]+|0[0-7]*|[1-9]\d*|'.'|\S/gi) ?? [];
  const fail = (why: string): never => {
    throw mistake(name, why);
  };
  let at = 0;
  const primary = (): bigint => {
    const t = tokens[at++];
    if (t === undefined) return fail('unexpected end of expression');
    if (t === '+') return primary();
    if (t === '-') return -primary();
    if (t === '~') return ~primary();
    if (t === '(') {
      const value = sum();
      return tokens[at++] === ')' ? value : fail("')' expected");
    }
    if (t.length === 3 && t.startsWith("'")) return BigInt(t.codePointAt(1)!);
    if (t.startsWith('$')) {
      const registers = e.running.registers(e.currentCpu);
      if (t === '$pc') return (registers['rip'] ?? 0n) + (registers['cs.base'] ?? 0n);
      const register = t
        .slice(1)
        .replace(/^(e?)(ip|ax|bx|cx|dx|si|di|sp|bp)$/, 'r$2')
        .replace('eflags', 'rflags');
      return registers[register] ?? fail('unknown register');
    }
    if (!/^\d/.test(t)) return fail(`invalid char '${t}' in expression`);
    return BigInt(/^0[0-7]+$/.test(t) ? `0o${t.slice(1)}` : t);
  };
  const level = (below: () => bigint, operations: Readonly<Record<string, (a: bigint, b: bigint) => bigint>>) => (): bigint => {
    let value = below();
    for (let f = operations[tokens[at]!]; f; f = operations[tokens[at]!]) {
      at++;
      value = BigInt.asIntN(64, f(value, below()));
    }
    return value;
  };
  const divide = (b: bigint): bigint => (b === 0n ? fail('division by zero') : b);
  const product = level(primary, { '*': (a, b) => a * b, '/': (a, b) => a / divide(b), '%': (a, b) => a % divide(b) });
  const logic = level(product, { '&': (a, b) => a & b, '|': (a, b) => a | b, '^': (a, b) => a ^ b });
  const sum = level(logic, { '+': (a, b) => a + b, '-': (a, b) => a - b });
  const value = sum();
  if (at < tokens.length) fail(`${/^p(rint)?$/.test(name) ? 'print|p' : name}: extraneous characters at the end of line`);
  return BigInt.asUintN(64, value);
}

const escapes: Readonly<Record<number, string>> = { 39: "\\'", 92: '\\\\', 10: '\\n', 13: '\\r' };
/** A character as QEMU shows it. */
function character(value: bigint): string {
  const n = Number(value);
  return `'${escapes[n] ?? (n >= 32 && n <= 126 ? String.fromCharCode(n) : `\\x${hex(value, 2)}`)}'`;
}

/** C's `%#o`: a zero before all but zero. */
const octal = (value: bigint): string => (value === 0n ? '0' : `0${value.toString(8)}`);

/** A number of some bytes in a column. */
function shown(bytes: Uint8Array, form: string): string {
  let value = 0n;
  for (let i = bytes.length - 1; i >= 0; i--) value = (value << 8n) | BigInt(bytes[i]!);
  const bits = bytes.length * 8;
  switch (form) {
    case 'd':
      // Only whole registers have a sign.
      return BigInt.asIntN(64, value)
        .toString()
        .padStart(Math.ceil((bits * 10) / 33));
    case 'u':
      return value.toString().padStart(Math.ceil((bits * 10) / 33));
    case 'o':
      return octal(value).padStart(Math.ceil(bits / 3));
    case 'c':
      return character(value);
  }
  return `0x${hex(value, bytes.length * 2)}`;
}

const examine =
  (physical: boolean) =>
  async (e: Emulator, args: HmpArguments): Promise<string> => {
    const format = parseFormat(e, args);
    // It knows all instructions, which an emulator's I/O thread needs for nothing else.
    const instructions = format.form === 'i' ? await import('./disassembly.ts') : undefined;
    return held(e, () => {
      const start = evaluate(e, args);
      if (instructions) return instructions.disassembly(e, start, format.count, physical);
      const { board } = e.running;
      const cpu = e.currentCpu;
      const virtual = new VcpuMemory(e.running, cpu);
      const at = (address: bigint, length: number): Uint8Array | undefined => {
        const gpa = physical ? Number(address) : virtual.translate(address);
        return gpa === undefined ? undefined : readPhysical(board, cpu, gpa, length);
      };
      // Characters are bytes, as many as items of the size would have.
      const size = format.form === 'c' ? 1 : format.size;
      const end = format.count * format.size;
      const line = format.size === 1 ? 8 : 16;
      const lines: string[] = [];
      for (let from = 0; from < end; from += line) {
        const items: (Uint8Array | undefined)[] = [];
        for (let i = from; i < Math.min(end, from + line); i += size) items.push(at(BigInt.asUintN(64, start + BigInt(i)), size));
        const head = `${hex(BigInt.asUintN(64, start + BigInt(from)), 16)}:`;
        if (items.includes(undefined)) return [...lines, `${head} Cannot access memory`].join('\n');
        lines.push(`${head} ${items.map((bytes) => shown(bytes!, format.form)).join(' ')}`);
      }
      return lines.join('\n');
    });
  };

/** A value alone: C's `%#x` and the like. */
function printed(value: bigint, form: string): string {
  switch (form) {
    case 'd':
    case 'i':
      return BigInt.asIntN(64, value).toString();
    case 'u':
      return value.toString();
    case 'o':
      return octal(value);
    case 'c':
      return character(value);
  }
  return value === 0n ? '0' : `0x${value.toString(16)}`;
}

export const memoryHmp: readonly HmpCommand[] = [
  { names: ['x'], args: '/fmt addr', help: "virtual memory dump starting at 'addr'", run: examine(false) },
  { names: ['xp'], args: '/fmt addr', help: "physical memory dump starting at 'addr'", run: examine(true) },
  {
    names: ['print', 'p'],
    args: '/fmt expr',
    help: 'print expression value (use $reg for CPU register access)',
    run: (e, args) => {
      const { form } = parseFormat(e, args);
      return printed(evaluate(e, args), form);
    },
  },
  {
    names: ['gva2gpa'],
    args: 'addr',
    help: 'print the guest physical address corresponding to a guest virtual address',
    run: (e, args) =>
      held(e, () => {
        const gpa = new VcpuMemory(e.running, e.currentCpu).translate(evaluate(e, args));
        return gpa === undefined ? 'Unmapped' : `gpa: 0x${gpa.toString(16)}`;
      }),
  },
  {
    names: ['i'],
    args: '/fmt addr',
    help: 'I/O port read',
    run(e, args) {
      const { size } = parseFormat(e, { ...args, format: args.format.replaceAll(/[oduixc]/g, '') });
      const port = Number(evaluate(e, args) & 0xffffn);
      const bytes = Math.min(size, 4) as 1 | 2 | 4;
      const value = e.running.board.ports.read(port, bytes);
      return `port${'?bw?l'[bytes]}[0x${hex(port, 4)}] = 0x${hex(value, 2 * bytes)}`;
    },
  },
  { names: ['nmi'], help: 'inject an NMI', run: (e) => e.injectNmi() },
];
