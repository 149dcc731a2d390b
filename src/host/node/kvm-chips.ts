// The interrupt controllers and the PIT between the board and KVM, where the machine has them in the kernel (`kernel-irqchip=on`).

import type { KvmChips } from '../../accel/kvm/chips.ts';
import { loadIoapic, loadPic, loadPit, saveIoapic, savePic, savePit } from '../../devices/kernel-chips.ts';
import type { Board } from '../../machine/board.ts';

/** The I/O APIC's pin of interrupt 0. */
const TIMER_PIN = 2;

/** The kernel's monotonic clock less the guest's, in ns. `epoch`: where the machine's clock begins. */
const ahead = (board: Board, epoch: bigint): bigint => epoch + BigInt(Math.floor(board.control.skipped[0]!));

/** The board's chips as the kernel's are; `now` is the guest's time in ns. The vCPUs are held. */
export function chipsToBoard(board: Board, chips: KvmChips, epoch: bigint, now: number): void {
  board.lock.run(() => {
    const { pics, ioapic, pit } = chips.save();
    loadPic(board.pic, 0, pics[0]);
    loadPic(board.pic, 1, pics[1]);
    loadIoapic(board.ioapics[0]!, ioapic);
    loadPit(board.pit, pit, ahead(board, epoch), now);
  });
}

/** The kernel's chips as the board's are. The vCPUs are held, and their local APICs are in the kernel. */
export function chipsToKernel(board: Board, chips: KvmChips, epoch: bigint): void {
  board.lock.run(() => {
    const { inPlace } = board.hpet;
    if (!inPlace) {
      // The kernel's timer pulls its wire itself; held high from here it would never have an edge.
      board.pic.s.chips[0]!.lines &= ~1;
      board.ioapics[0]!.s.levels &= ~(1 << TIMER_PIN);
    }
    const pit = savePit(board.pit, ahead(board, epoch), inPlace);
    chips.load({ pics: [savePic(board.pic, 0), savePic(board.pic, 1)], ioapic: saveIoapic(board.ioapics[0]!), pit });
    pullWires(board, chips);
  });
}

/** The PIT alone, after its clock has stood still. */
export function pitToKernel(board: Board, chips: KvmChips, epoch: bigint): void {
  chips.loadPit(savePit(board.pit, ahead(board, epoch), board.hpet.inPlace));
}

/**
 * The kernel's wires as the board's are. An edge that the kernel has not seen counts now, and one that it has may count again: no interrupt is
 * lost, and drivers see past one that is none. With the board's lock held.
 */
export function pullWires(board: Board, chips: KvmChips): void {
  const [master, slave] = board.pic.s.chips;
  const { levels } = board.ioapics[0]!.s;
  for (let n = 0; n < 16; n++) if (n !== 2) chips.pic(n, (((n < 8 ? master : slave)!.lines >>> (n & 7)) & 1) as 0 | 1);
  for (let n = 1; n < 24; n++) chips.pin(n, ((levels >>> n) & 1) as 0 | 1);
}
