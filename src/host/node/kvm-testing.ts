// For tests of accelerators: whether KVM is there, and a small program in long mode, its page tables, segments and code put into memory
// and registers directly.

import { kvmHost } from './kvm-native.ts';

/** Why /dev/kvm cannot be used here, or false. */
export function withoutKvm(): string | false {
  try {
    const host = kvmHost();
    host.close(host.open());
    return false;
  } catch (error) {
    return (error as Error).message;
  }
}

/** Sets up the program: it computes, writes 42 to port 0x80 and halts with R10 = 2^32. Memory of 2 MiB is enough. */
export function longMode(
  bytes: Uint8Array,
  ramBase: number,
  set: (name: string, value: bigint) => void,
  reset: () => void,
): void {
  const d = new DataView(bytes.buffer, ramBase);
  d.setBigUint64(0x2000, 0x3003n, true);
  d.setBigUint64(0x3000, 0x4003n, true);
  d.setBigUint64(0x4000, 0x83n, true);
  // mov eax,42; mov r10d,1; shl r10,32; out 0x80,eax; hlt
  bytes.set(Buffer.from('b82a00000041ba0100000049c1e220e780f4', 'hex'), ramBase + 0x1000);
  reset();
  const segment = (name: string, selector: number, attr: number): void => {
    set(`${name}.selector`, BigInt(selector));
    set(`${name}.base`, 0n);
    set(`${name}.limit`, 0xffffffffn);
    set(`${name}.attr`, BigInt(attr));
  };
  segment('cs', 8, 0xa09b);
  for (const name of ['ds', 'es', 'fs', 'gs', 'ss']) segment(name, 16, 0xc093);
  set('cr3', 0x2000n);
  set('cr4', 0x20n);
  set('efer', 0x500n);
  set('cr0', 0x80000011n);
  set('rip', 0x1000n);
}
