// Model-specific registers that devices serve, per vCPU.
import type { Lock } from './lock.ts';

/** `undefined` and `false` mean that there is no such register or no such value: the CPU raises #GP. */
export interface MsrHandler {
  read(msr: number): bigint | undefined;
  write(msr: number, value: bigint): boolean;
}

/** The MSRs of one vCPU's devices, by number. Accesses run under the board's lock. */
export class MsrSpace implements MsrHandler {
  readonly #ranges: { readonly first: number; readonly last: number; readonly handler: MsrHandler }[] = [];
  readonly #lock: Lock;

  constructor(lock: Lock) {
    this.#lock = lock;
  }

  /** Registers `first` to `last`, inclusive. Throws on overlap. */
  map(first: number, last: number, handler: MsrHandler): void {
    const other = this.#ranges.find((r) => r.first <= last && first <= r.last);
    if (other !== undefined) {
      throw new Error(
        `Cannot map MSRs 0x${first.toString(16)} to 0x${last.toString(16)}: 0x${other.first.toString(16)} to 0x${other.last.toString(16)} are taken`,
      );
    }
    this.#ranges.push({ first, last, handler });
  }

  /** True when a device serves the register. */
  has(msr: number): boolean {
    return this.#ranges.some((r) => msr >= r.first && msr <= r.last);
  }

  read(msr: number): bigint | undefined {
    for (const r of this.#ranges) if (msr >= r.first && msr <= r.last) return this.#lock.run(() => r.handler.read(msr));
    return undefined;
  }

  write(msr: number, value: bigint): boolean {
    for (const r of this.#ranges) {
      if (msr >= r.first && msr <= r.last) return this.#lock.run(() => r.handler.write(msr, BigInt.asUintN(64, value)));
    }
    return false;
  }
}
