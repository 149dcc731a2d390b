// Options of `nonroot-system-x86_64` about displays, VNC and USB. QEMU 7.2 "System Emulation", section "Invocation".

import { OUTPUTS_MAX } from '../devices/virtio/gpu.ts';
import { parseVncPlace, type SharePolicy, VNC_PORT } from '../display/vnc.ts';
import type { VncSetting } from '../monitor/display.ts';
import { items } from '../monitor/keyval.ts';
import { does, parameters, type SystemOption } from './system-option.ts';
import { integer, oneOf, onOff, properties, Refused, type Settings } from './system-settings.ts';

/** Cards by the names of `-vga`. */
const cards = { none: undefined, std: 'VGA', virtio: 'virtio-vga' } as const;
const cardNames = Object.keys(cards);
/** Drivers that are displays: with one of them there is no default card. */
const displayDrivers = ['VGA', 'isa-vga', 'virtio-vga', 'virtio-gpu-pci', 'bochs-display', 'secondary-vga', 'ramfb'];
const WEBSOCKET_PORT = 5700;

/** `DISPLAY[,option…]` of `-vnc`. */
function vnc(s: Settings, text: string): void {
  const [first, ...rest] = items(text);
  const where = first === undefined ? '' : first.value === undefined ? first.key : `${first.key}=${first.value}`;
  if (where === 'none') {
    s.vnc = [];
    return;
  }
  const place = parseVncPlace(where);
  if (place === undefined) throw new Refused(`-vnc ${where}: accepted: HOST:DISPLAY, unix:PATH, none`);
  let to: number | undefined;
  let websocket: number | undefined;
  let secret: string | undefined;
  const o = {
    id: undefined as string | undefined,
    password: false,
    sasl: false,
    share: 'allow-exclusive' as SharePolicy,
    display: undefined as string | undefined,
    head: 0,
    tls: undefined as string | undefined,
    tlsAuthz: undefined as string | undefined,
    saslAuthz: undefined as string | undefined,
    lossy: false,
  };
  const number = place.kind === 'tcp' ? place.port - VNC_PORT : 0;
  const option = rest.map(({ key, value }) => `${key}=${(value ?? 'on').replaceAll(',', ',,')}`).join(',');
  properties('-vnc', option, '', {
    id: (v) => void (o.id = v),
    to: (v) => void (to = integer('-vnc to=', v, number, 65535 - VNC_PORT)),
    password: (v) => void (o.password = onOff('-vnc password=', v)),
    sasl: (v) => void (o.sasl = onOff('-vnc sasl=', v)),
    'password-secret': (v) => {
      secret = v;
      o.password = true;
    },
    websocket: (v) => void (websocket = v === 'on' ? WEBSOCKET_PORT + number : v === 'off' ? undefined : integer('-vnc websocket=', v, 1, 65535)),
    share: (v) => void (o.share = oneOf('-vnc share=', v, ['allow-exclusive', 'force-shared', 'ignore']) as SharePolicy),
    display: (v) => void (o.display = v),
    'tls-creds': (v) => void (o.tls = v),
    'tls-authz': (v) => void (o.tlsAuthz = v),
    'sasl-authz': (v) => void (o.saslAuthz = v),
    lossy: (v) => void (o.lossy = onOff('-vnc lossy=', v)),
    // Locks are told as they are; sound has nowhere to go.
    'non-adaptive': (v) => void onOff('-vnc non-adaptive=', v),
    'lock-key-sync': (v) => void onOff('-vnc lock-key-sync=', v),
    'key-delay-ms': (v) => void integer('-vnc key-delay-ms=', v, 0, 1000),
    'power-control': (v) => void oneOf('-vnc power-control=', v, ['off']),
    connections: (v) => void integer('-vnc connections=', v, 1, 64),
    head: (v) => void (o.head = integer('-vnc head=', v, 0, OUTPUTS_MAX - 1)),
    audiodev: () => {},
  }); // biome-ignore format: one row for each option
  if (o.tlsAuthz !== undefined && o.tls === undefined)
    throw new Refused(`-vnc ${text}: 'tls-authz' provided but TLS is not enabled`);
  if (o.saslAuthz !== undefined && !o.sasl) throw new Refused(`-vnc ${text}: 'sasl-authz' provided but SASL auth is not enabled`);
  // The first server without a name is `default`, others are `vnc2`, `vnc3`, …
  const taken = (id: string): boolean => s.vnc.some((v) => v.id === id);
  let free = 'default';
  for (let n = 2; taken(free); n++) free = `vnc${n}`;
  const id = o.id ?? free;
  const setting: Omit<VncSetting, 'secret'> & { readonly secretId: string | undefined } = {
    ...o,
    id,
    secretId: secret,
    listen:
      place.kind === 'tcp'
        ? {
            ...place,
            ...(to === undefined ? {} : { to: VNC_PORT + to }),
            ...(websocket === undefined ? {} : { websocket }),
          }
        : place,
  };
  if (taken(id)) throw new Refused(`-vnc ${text}: there is a server '${id}' already`);
  s.vnc.push(setting);
}

function display(s: Settings, text: string): void {
  if (text === 'none') return;
  if (text.startsWith('vnc=')) return vnc(s, text.slice(4));
  throw new Refused(`-display ${text}: not supported; accepted: none, vnc=DISPLAY`);
}

const usbDevices = { tablet: 'usb-tablet', mouse: 'usb-mouse', keyboard: 'usb-kbd' } as const;
const usbDeviceNames = Object.keys(usbDevices);

/** The default card, and what `-usb` and `-usbdevice` stand for. */
export function completeDisplay(s: Settings): void {
  if (s.machine.board === 'none') return;
  const given = s.devices.some((d) => displayDrivers.includes(d.driver));
  const name = s.vga ?? (s.nodefaults || given || s.machine.board === 'microvm' ? 'none' : 'std');
  const driver = cards[name as keyof typeof cards];
  if (driver !== undefined) s.devices = [{ driver }, ...s.devices];
  const usb = s.usb || s.usbDevices.length > 0 || s.machineProperties.get('usb') === 'on';
  const q35 = s.machine.board === 'q35';
  if (usb) {
    // Before the devices that plug into it.
    const controllers = q35
      ? [
          { driver: 'ich9-usb-ehci1', id: 'usb', addr: '1d.7', multifunction: 'on' },
          { driver: 'ich9-usb-uhci1', addr: '1d.0', multifunction: 'on', masterbus: 'usb.0', firstport: 0 },
          { driver: 'ich9-usb-uhci2', addr: '1d.1', multifunction: 'on', masterbus: 'usb.0', firstport: 2 },
          { driver: 'ich9-usb-uhci3', addr: '1d.2', multifunction: 'on', masterbus: 'usb.0', firstport: 4 },
        ]
      : [{ driver: 'piix3-usb-uhci', addr: '1.2' }];
    s.devices = [...controllers, ...s.devices];
  }
  s.devices = [...s.devices, ...s.usbDevices.map((d) => ({ driver: usbDevices[d as keyof typeof usbDevices] }))];
}

export const displayOptions: readonly SystemOption[] = [
  {
    names: ['-vga'],
    value: cardNames.join('|'),
    help: 'graphics card (default std)',
    apply: does((s, v) => {
      s.vga = oneOf('-vga ', v, cardNames);
    }),
  },
  {
    names: ['-vnc'],
    value: 'HOST:DISPLAY|unix:PATH|none[,to=N][,password=on|sasl=on][,websocket=PORT]',
    help: 'show the display by VNC',
    group: 'vnc',
    parameters: parameters({
      string: 'vnc websocket tls-creds tls-authz sasl-authz password-secret share display audiodev',
      number: 'head connections to key-delay-ms',
      boolean: 'password sasl lock-key-sync lossy non-adaptive power-control',
    }),
    apply: does(vnc),
  },
  { names: ['-display'], value: 'none|vnc=DISPLAY', help: 'how the display is shown', apply: does(display) },
  {
    names: ['-usb'],
    help: 'USB controllers as the board has them',
    apply: does((s) => {
      s.usb = true;
    }),
  },
  {
    names: ['-usbdevice'],
    value: usbDeviceNames.join('|'),
    help: 'a USB device',
    apply: does((s, v) => void s.usbDevices.push(oneOf('-usbdevice ', v, usbDeviceNames))),
  },
  {
    names: ['-k'],
    value: 'en-us',
    help: "layout of VNC clients' keyboards",
    apply: does((_, v) => void oneOf('-k ', v, ['en-us'])),
  },
];
