// Commands of the monitor for people that show memory and values: QEMU's `x`, `xp`, `print`, `gva2gpa`.

import type { Emulator } from '../emulator.ts';
import { VcpuMemory } from '../guest-memory.ts';
import { type HmpArguments, type HmpCommand, HmpError, hex } from './command.ts';
import { held } from './info.ts';

const MOST = 4096;
const sizes: Readonly<Record<string, number>> = { b: 1, h: 2, w: 4, g: 8 };

/** Count, format and size of `/4xw`. */
function parseFormat(text: string): { count: number; form: string; size: number } {
  const found = /^(\d*)([xduoci]?)([bhwg]?)$/.exec(text) ?? /^(\d*)([bhwg]?)([xduoci]?)$/.exec(text);
  if (!found) throw new HmpError(`invalid format '/${text}'`);
  const letters = `${found[2]}${found[3]}`;
  const form = /[xduoci]/.exec(letters)?.[0] ?? 'x';
  const size = sizes[/[bhwg]/.exec(letters)?.[0] ?? (form === 'c' ? 'b' : 'w')]!;
  if (form === 'i') throw new HmpError('disassembly is not supported');
  return { count: Math.min(Number(found[1] || 1), MOST), form, size };
}

/** A sum of numbers and registers: `$rip + 0x10`. */
function evaluate(e: Emulator, text: string): bigint {
  const tokens = text.match(/\$[\w.]+|0x[\da-f]+|\d+|[-+*/&|()~]/gi) ?? [];
  if (tokens.join('') !== text.replace(/\s/g, '') || tokens.length === 0) throw new HmpError(`invalid expression '${text}'`);
  let at = 0;
  const primary = (): bigint => {
    const t = tokens[at++];
    if (t === undefined) throw new HmpError('unexpected end of expression');
    if (t === '-') return -primary();
    if (t === '~') return ~primary();
    if (t === '(') {
      const value = sum();
      if (tokens[at++] !== ')') throw new HmpError("')' expected");
      return value;
    }
    if (t.startsWith('$')) {
      const name = t
        .slice(1)
        .replace(/^(e?)(ip|ax|bx|cx|dx|si|di|sp|bp)$/, 'r$2')
        .replace('eflags', 'rflags');
      const value = e.running.registers(e.currentCpu)[name];
      if (value === undefined) throw new HmpError(`unknown register '${t}'`);
      return value;
    }
    if (!/^[\dx]/i.test(t)) throw new HmpError(`unexpected '${t}'`);
    return BigInt(t);
  };
  const product = (): bigint => {
    let value = primary();
    while (tokens[at] === '*' || tokens[at] === '/') {
      const times = tokens[at++] === '*';
      const right = primary();
      if (!times && right === 0n) throw new HmpError('division by zero');
      value = times ? value * right : value / right;
    }
    return value;
  };
  const sum = (): bigint => {
    let value = product();
    for (;;) {
      const op = tokens[at];
      if (op !== '+' && op !== '-' && op !== '&' && op !== '|') return value;
      at++;
      const right = product();
      value = op === '+' ? value + right : op === '-' ? value - right : op === '&' ? value & right : value | right;
    }
  };
  const value = sum();
  if (at < tokens.length) throw new HmpError(`unexpected '${tokens[at]}'`);
  return BigInt.asUintN(64, value);
}

function shown(bytes: Uint8Array, form: string): string {
  let value = 0n;
  for (let i = bytes.length - 1; i >= 0; i--) value = (value << 8n) | BigInt(bytes[i]!);
  switch (form) {
    case 'd':
      return BigInt.asIntN(bytes.length * 8, value).toString();
    case 'u':
      return value.toString();
    case 'o':
      return `0${value.toString(8)}`;
    case 'c':
      return `'${value >= 0x20n && value < 0x7fn ? String.fromCharCode(Number(value)) : `\\x${hex(value, 2)}`}'`;
  }
  return `0x${hex(value, bytes.length * 2)}`;
}

const examine =
  (physical: boolean) =>
  (e: Emulator, args: HmpArguments): Promise<string> =>
    held(e, () => {
      const { count, form, size } = parseFormat(args.format);
      const start = evaluate(e, args.text);
      const { memory } = e.running.board;
      const virtual = new VcpuMemory(e.running, e.currentCpu);
      const perLine = form === 'c' ? 8 : Math.max(1, 16 / size);
      const lines: string[] = [];
      for (let n = 0; n < count; n += perLine) {
        const words: string[] = [];
        for (let i = n; i < Math.min(n + perLine, count); i++) {
          const at = start + BigInt(i * size);
          const bytes = physical ? memory.slice(Number(at), size) : virtual.read(at, size);
          if (!bytes || bytes.length < size) return [...lines, `Cannot access memory`].join('\n');
          words.push(shown(bytes, form));
        }
        lines.push(`${hex(start + BigInt(n * size), 16)}: ${words.join(' ')}`);
      }
      return lines.join('\n');
    });

export const memoryHmp: readonly HmpCommand[] = [
  { names: ['x'], args: '/fmt addr', help: "virtual memory dump starting at 'addr'", run: examine(false) },
  { names: ['xp'], args: '/fmt addr', help: "physical memory dump starting at 'addr'", run: examine(true) },
  {
    names: ['print', 'p'],
    args: '/fmt expr',
    help: 'print expression value (use $reg for CPU register access)',
    run: (e, { text, format }) => {
      const value = evaluate(e, text);
      return format.includes('d') ? BigInt.asIntN(64, value).toString() : `0x${value.toString(16)}`;
    },
  },
  {
    names: ['gva2gpa'],
    args: 'addr',
    help: 'print the guest physical address corresponding to a guest virtual address',
    run: (e, { text }) =>
      held(e, () => {
        const gpa = new VcpuMemory(e.running, e.currentCpu).translate(evaluate(e, text));
        return gpa === undefined ? 'Unmapped' : `gpa: 0x${gpa.toString(16)}`;
      }),
  },
  { names: ['nmi'], help: 'inject an NMI', run: (e) => e.injectNmi() },
];
