// The board's PS/2 keyboard and mouse, and the mouse behind VMware's backdoor, as devices of the machine's input.

import type { Lock } from '../bus/lock.ts';
import type { I8042 } from '../devices/i8042.ts';
import type { VmMouse } from '../devices/vmmouse.ts';
import { ABSOLUTE_MAX, type Button, type InputRouter } from '../display/input.ts';

/** Bits of the buttons that are held. */
const bits: Readonly<Partial<Record<Button, number>>> = { left: 1, right: 2, middle: 4, side: 8, extra: 16 };
/** Counts of the wheel, towards the user positive. */
const wheel: Readonly<Partial<Record<Button, number>>> = { 'wheel-up': -1, 'wheel-down': 1 };

/** Adds both to `input`; for the I/O thread. */
export function connectPs2(controller: I8042, lock: Lock, input: InputRouter): void {
  const { keyboard, mouse } = controller;
  let held = 0;
  input.add({
    name: 'QEMU PS/2 Mouse',
    kinds: ['relative'],
    listening: () => mouse.s.reporting !== 0,
    take(events) {
      let [dx, dy, dz] = [0, 0, 0];
      const flush = (): void => {
        lock.run(() => controller.move(dx, dy, dz, held));
        [dx, dy, dz] = [0, 0, 0];
      };
      for (const e of events) {
        if (e.kind === 'relative') {
          if (e.axis === 'x') dx += e.value;
          else dy += e.value;
        } else if (e.kind === 'button') {
          if (e.down) dz += wheel[e.button] ?? 0;
          const bit = bits[e.button] ?? 0;
          // A button that goes down and up within one batch is two reports.
          if (bit !== 0 && ((held & bit) !== 0) === e.down) continue;
          flush();
          held = e.down ? held | bit : held & ~bit;
        }
      }
      flush();
    },
  });
  input.add({
    name: 'QEMU PS/2 Keyboard',
    kinds: ['key'],
    listening: () => keyboard.s.scanning !== 0,
    leds: () => ({ scroll: (keyboard.leds & 1) !== 0, num: (keyboard.leds & 2) !== 0, caps: (keyboard.leds & 4) !== 0 }),
    take(events) {
      lock.run(() => {
        for (const e of events) if (e.kind === 'key' && e.key.number !== 0) controller.key(e.key.number, e.down);
      });
    },
  });
}

/** Adds VMware's mouse, which is there while the guest has it; the PS/2 mouse tells the guest to look. For the I/O thread. */
export function connectVmMouse(mouse: VmMouse, controller: I8042, lock: Lock, input: InputRouter): void {
  const { s } = mouse;
  let held = 0;
  let [x, y] = [0, 0];
  input.add({
    name: 'vmmouse',
    get kinds() {
      return s.active ? ([s.absolute ? 'absolute' : 'relative'] as const) : [];
    },
    listening: () => s.active !== 0,
    take: (events) =>
      lock.run(() => {
        const send = (dz: number): void => {
          if (mouse.move(x, y, dz, held)) controller.move(1, 0, 0, controller.mouse.s.buttons);
          if (!s.absolute) [x, y] = [0, 0];
        };
        let moved = false;
        for (const e of events) {
          if (e.kind === 'absolute' || e.kind === 'relative') {
            moved = true;
            const at = e.kind === 'absolute' ? Math.max(0, Math.min(ABSOLUTE_MAX, e.value)) : e.value;
            const start = e.kind === 'absolute' ? 0 : e.axis === 'x' ? x : y;
            if (e.axis === 'x') x = start + at;
            else y = start + at;
          } else if (e.kind === 'button') {
            const bit = bits[e.button] ?? 0;
            held = e.down ? held | bit : held & ~bit;
            const dz = e.down ? (wheel[e.button] ?? 0) : 0;
            if (bit === 0 && dz === 0) continue;
            // A button that goes down and up within one batch is two reports.
            send(dz);
            moved = false;
          }
        }
        if (moved) send(0);
      }),
  });
  mouse.bell.heard = () => input.changed();
}
