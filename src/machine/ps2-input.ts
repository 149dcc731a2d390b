// The board's PS/2 keyboard and mouse as devices of the machine's input.

import type { Lock } from '../bus/lock.ts';
import type { I8042 } from '../devices/i8042.ts';
import type { Button, InputRouter } from '../display/input.ts';

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
