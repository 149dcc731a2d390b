// `virtio-keyboard-pci`, `virtio-mouse-pci`, `virtio-tablet-pci`: input for the guest.

import { Ev, type EvdevEvent, type InputKind, inputIo, inputLayout, inputModel } from '../../devices/virtio/input.ts';
import { ABSOLUTE_MAX, type Button, type InputDevice, type InputEvent, type Leds } from '../../display/input.ts';
import { keys } from '../../display/keys.ts';
import { str } from '../properties.ts';
import { seatOf, seatProperties } from './seat.ts';
import { virtioTypes } from './virtio.ts';

/** `BTN_*` of Linux. */
const buttonCodes: Readonly<Partial<Record<Button, number>>> = {
  left: 0x110,
  right: 0x111,
  middle: 0x112,
  side: 0x113,
  extra: 0x114,
};
const buttonList = Object.values(buttonCodes);
const wheels: Readonly<Partial<Record<Button, readonly [code: number, value: number]>>> = {
  'wheel-up': [8, 1],
  'wheel-down': [8, -1],
  'wheel-left': [6, -1],
  'wheel-right': [6, 1],
};
const axes = { x: 0, y: 1 } as const;

/** What an event of the display is for evdev; nothing for what the device does not have. */
function evdev(e: InputEvent): readonly EvdevEvent[] {
  switch (e.kind) {
    case 'key':
      return [{ type: Ev.key, code: e.key.event, value: e.down ? 1 : 0 }];
    case 'relative':
      return [{ type: Ev.relative, code: axes[e.axis], value: e.value }];
    case 'absolute':
      return [{ type: Ev.absolute, code: axes[e.axis], value: e.value }];
    case 'button': {
      const wheel = wheels[e.button];
      if (wheel !== undefined) return e.down ? [{ type: Ev.relative, code: wheel[0], value: wheel[1] }] : [];
      const code = buttonCodes[e.button];
      return code === undefined ? [] : [{ type: Ev.key, code, value: e.down ? 1 : 0 }];
    }
  }
}

const inputTypes = (o: {
  readonly name: string;
  readonly title: string;
  readonly product: number;
  readonly classCode: number;
  readonly kinds: InputDevice['kinds'];
  readonly codes: InputKind['codes'];
}) =>
  virtioTypes({
    name: o.name,
    aliases: [o.name],
    category: 'Input',
    description: o.title,
    classCode: o.classCode,
    vectors: () => 2,
    legacy: false,
    properties: { serial: str(), ...seatProperties },
    parts(ctx, p) {
      const s = ctx.arena.alloc(inputLayout, ctx.name);
      return {
        model: inputModel(s, {
          name: o.title,
          serial: p.serial,
          product: o.product,
          codes: o.codes,
          axisMax: ABSOLUTE_MAX,
        }),
        reset() {
          s.select = s.subsel = 0;
        },
        io(core, services) {
          const leds = { num: false, caps: false, scroll: false };
          const names = ['num', 'caps', 'scroll'] as const;
          const side = inputIo(core, (e) => {
            const led = e.type === Ev.led ? names[e.code] : undefined;
            if (led !== undefined) leds[led] = e.value !== 0;
          });
          const remove = services.backends.input.add({
            name: o.title,
            kinds: o.kinds,
            seat: seatOf(p),
            listening: () => core.ready,
            ...(o.kinds.includes('key') ? { leds: (): Leds => leds } : {}),
            take: (events) => side.send(events.flatMap(evdev)),
          });
          return { close: remove };
        },
      };
    },
  });

export const virtioInputs = [
  ...inputTypes({
    name: 'virtio-keyboard',
    title: 'QEMU Virtio Keyboard',
    product: 1,
    classCode: 0x090000,
    kinds: ['key'],
    codes: { [Ev.key]: [...new Set(keys.map((k) => k.event))], [Ev.led]: [0, 1, 2], [Ev.repeat]: [0] },
  }),
  ...inputTypes({
    name: 'virtio-mouse',
    title: 'QEMU Virtio Mouse',
    product: 2,
    classCode: 0x090200,
    kinds: ['relative'],
    codes: { [Ev.key]: buttonList, [Ev.relative]: [0, 1, 6, 8] },
  }),
  ...inputTypes({
    name: 'virtio-tablet',
    title: 'QEMU Virtio Tablet',
    product: 3,
    classCode: 0x090200,
    kinds: ['absolute'],
    codes: { [Ev.key]: buttonList, [Ev.relative]: [6, 8], [Ev.absolute]: [0, 1] },
  }),
];
