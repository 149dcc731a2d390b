// A vCPU's registers as `info registers` prints them (QEMU 7.2's format).

import { hex } from './command.ts';

type Registers = Readonly<Record<string, bigint>>;

const general = ['rax', 'rbx', 'rcx', 'rdx', 'rsi', 'rdi', 'rbp', 'rsp', 'r8', 'r9', 'r10', 'r11', 'r12', 'r13', 'r14', 'r15'];
const segments = ['es', 'cs', 'ss', 'ds', 'fs', 'gs', 'ldtr', 'tr'];
/** RFLAGS by bit, from the left as it is printed. */
const flags: readonly (readonly [string, number])[] = [
  ['D', 10],
  ['O', 11],
  ['S', 7],
  ['Z', 6],
  ['A', 4],
  ['P', 2],
  ['C', 0],
];

/** `long`: the vCPU is in long mode, where registers have 64 bits. */
export function registerText(cpu: number, r: Registers, halted: boolean): string {
  const long = ((r['efer'] ?? 0n) & 0x400n) !== 0n;
  const digits = long ? 16 : 8;
  const show = (value: bigint | undefined, d = digits): string => hex((value ?? 0n) & ((1n << BigInt(d * 4)) - 1n), d);
  const lines = ['', `CPU#${cpu}`];
  const names = long ? general : general.slice(0, 8);
  for (let i = 0; i < names.length; i += 4)
    lines.push(
      names
        .slice(i, i + 4)
        .map((name) => `${(long ? name : name.replace(/^r/, 'e')).toUpperCase().padEnd(3)}=${show(r[name])}`)
        .join(' '),
    );
  const set = flags.map(([letter, bit]) => (((r['rflags'] ?? 0n) >> BigInt(bit)) & 1n ? letter : '-')).join('');
  lines.push(
    `${long ? 'RIP' : 'EIP'}=${show(r['rip'])} ${long ? 'RFL' : 'EFL'}=${show(r['rflags'], 8)} [${set}] CPL=${r['cpl'] ?? 0n} II=0 A20=1 SMM=${r['smm'] ? 1 : 0} HLT=${halted ? 1 : 0}`,
  );
  for (const name of segments) {
    const [selector, base, limit, attr] = ['selector', 'base', 'limit', 'attr'].map((part) => r[`${name}.${part}`] ?? 0n);
    const label = (name === 'ldtr' ? 'LDT' : name.toUpperCase()).padEnd(3);
    lines.push(`${label}=${hex(selector!, 4)} ${show(base)} ${hex(limit!, 8)} ${hex((attr! & 0xffffn) << 8n, 8)}`);
  }
  for (const name of ['gdtr', 'idtr'])
    lines.push(`${name.slice(0, 3).toUpperCase()}=     ${show(r[`${name}.base`])} ${hex(r[`${name}.limit`] ?? 0n, 8)}`);
  lines.push(`CR0=${show(r['cr0'], 8)} CR2=${show(r['cr2'])} CR3=${show(r['cr3'])} CR4=${show(r['cr4'], 8)}`);
  lines.push(`${['dr0', 'dr1', 'dr2', 'dr3'].map((name) => `${name.toUpperCase()}=${show(r[name], 16)}`).join(' ')} `);
  lines.push(`DR6=${show(r['dr6'], 16)} DR7=${show(r['dr7'], 16)}`);
  lines.push(`EFER=${show(r['efer'], 16)}`);
  return lines.join('\n');
}
