// Ports that answer by the general registers of the vCPU that reads or writes them.

/** The low halves of the registers. What is changed is the register's value, its upper half cleared. */
export interface PortRegisters {
  eax: number;
  ebx: number;
  ecx: number;
  edx: number;
  esi: number;
  edi: number;
}
/** The registers whose low halves they are. */
export const wholeRegister = { eax: 'rax', ebx: 'rbx', ecx: 'rcx', edx: 'rdx', esi: 'rsi', edi: 'rdi' } as const;
export const portRegisterNames = ['eax', 'ebx', 'ecx', 'edx', 'esi', 'edi'] as const satisfies readonly (keyof PortRegisters)[];

/** Calls `call` with registers that `read` gives as 64 bits, and hands those that it changes to `write`. */
export function withPortRegisters(
  read: (name: keyof PortRegisters) => bigint,
  write: (name: keyof PortRegisters, value: bigint) => void,
  call: (registers: PortRegisters) => void,
): void {
  const low = (name: keyof PortRegisters): number => Number(BigInt.asUintN(32, read(name)));
  const registers = { eax: low('eax'), ebx: low('ebx'), ecx: low('ecx'), edx: low('edx'), esi: low('esi'), edi: low('edi') };
  const before = { ...registers };
  call(registers);
  for (const name of portRegisterNames) if (registers[name] !== before[name]) write(name, BigInt(registers[name] >>> 0));
}
