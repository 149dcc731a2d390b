// Graphics, video, audio, sound and input devices (libvirt 9.0, formatdomain "Graphical framebuffers" and its neighbours).
import {
  allKept,
  attribute,
  child,
  children,
  element,
  integer,
  kept,
  oneOf,
  onOff,
  positive,
  refine,
  required,
  string,
  unsigned,
  type Value,
  yesNo,
} from '../codec.ts';
import { internalError, unsupported } from '../errors.ts';
import { deviceInfo, virtioDriver } from './common.ts';

const listen = element('listen', {
  type: required('type', oneOf('none', 'address', 'network', 'socket')),
  address: attribute('address', string),
  network: attribute('network', string),
  socket: attribute('socket', string),
});

const portOf = (name: string) =>
  attribute(name, integer, { invalid: (text) => internalError(`cannot parse vnc ${name} ${text}`) });

export const graphics = refine(
  element('graphics', {
    type: required('type', oneOf('sdl', 'vnc', 'rdp', 'desktop', 'spice', 'egl-headless', 'dbus')),
    port: portOf('port'),
    tlsPort: portOf('tlsPort'),
    autoport: attribute('autoport', string),
    websocket: portOf('websocket'),
    listen: attribute('listen', string),
    socket: attribute('socket', string),
    keymap: attribute('keymap', string),
    sharePolicy: attribute('sharePolicy', oneOf('allow-exclusive', 'force-shared', 'ignore')),
    defaultMode: attribute('defaultMode', oneOf('any', 'secure', 'insecure')),
    /** A secret: printed only on request. */
    passwd: attribute('passwd', string),
    passwdValidTo: attribute('passwdValidTo', string),
    connected: attribute('connected', oneOf('fail', 'disconnect', 'keep')),
    powerControl: attribute('powerControl', yesNo),
    listens: children(listen),
    channels: allKept('channel'),
    image: child(
      element('image', {
        compression: required('compression', oneOf('auto_glz', 'auto_lz', 'quic', 'glz', 'lz', 'off')),
      }),
    ),
    jpeg: kept('jpeg'),
    zlib: kept('zlib'),
    playback: kept('playback'),
    streaming: kept('streaming'),
    clipboard: kept('clipboard'),
    mouse: kept('mouse'),
    filetransfer: kept('filetransfer'),
    gl: child(element('gl', { enable: attribute('enable', yesNo), rendernode: attribute('rendernode', string) })),
    audio: child(element('audio', { id: required('id', positive) })),
  }),
  (value) => {
    if (value.type !== 'vnc' && value.type !== 'spice') return value;
    normaliseListens(value);
    return value;
  },
);
export type Graphics = Value<typeof graphics>;

/** The first listen element and the old attribute say the same. */
function normaliseListens(value: Value<typeof graphics>): void {
  const [first] = value.listens;
  if (!first) {
    if (value.socket !== undefined) value.listens.push({ type: 'socket', socket: value.socket });
    else value.listens.push({ type: 'address', ...(value.listen !== undefined && { address: value.listen }) });
  } else if (first.type === 'address' && first.address !== undefined) value.listen = first.address;
  else if (first.type === 'socket' && first.socket !== undefined) value.socket = first.socket;
}

/** Of a definition: a port that is chosen at start is `-1` for VNC and absent for SPICE. */
export function normalisePorts(value: Graphics): void {
  if (value.type !== 'vnc' && value.type !== 'spice') return;
  if (value.listens.some((one) => one.type === 'socket' || one.type === 'none')) {
    delete value.port;
    delete value.autoport;
    return;
  }
  if (value.type === 'vnc') {
    if (value.port === undefined || value.port === -1 || value.autoport === 'yes') {
      value.autoport = 'yes';
      value.port = -1;
    } else value.autoport = 'no';
    return;
  }
  const free = (port: number | undefined): boolean => port === undefined || port === -1;
  if (value.autoport === 'yes' || (free(value.port) && free(value.tlsPort))) {
    value.autoport = 'yes';
    delete value.port;
    delete value.tlsPort;
  } else value.autoport = 'no';
}

const videoModels = [
  ...([
    'default',
    'vga',
    'cirrus',
    'vmvga',
    'xen',
    'vbox',
    'qxl',
    'parallels',
    'virtio',
    'gop',
    'none',
    'bochs',
    'ramfb',
  ] as const),
] as const;
export type VideoModel = (typeof videoModels)[number];

export const video = element('video', {
  driver: child(element('driver', { name: attribute('name', string), vgaconf: attribute('vgaconf', string) })),
  model: child(
    element('model', {
      type: attribute('type', oneOf(...videoModels), { invalid: (text) => unsupported(`unknown video model '${text}'`) }),
      ram: attribute('ram', unsigned),
      vram: attribute('vram', unsigned),
      vram64: attribute('vram64', unsigned),
      vgamem: attribute('vgamem', unsigned),
      heads: attribute('heads', unsigned),
      primary: attribute('primary', yesNo),
      blob: attribute('blob', onOff),
      acceleration: child(
        element('acceleration', {
          accel3d: attribute('accel3d', yesNo),
          accel2d: attribute('accel2d', yesNo),
          rendernode: attribute('rendernode', string),
        }),
      ),
      resolution: child(element('resolution', { x: required('x', unsigned), y: required('y', unsigned) })),
    }),
  ),
  ...deviceInfo,
});
export type Video = Value<typeof video>;

export const audio = element('audio', {
  id: required('id', positive),
  type: required('type', oneOf('none', 'alsa', 'coreaudio', 'jack', 'oss', 'pulseaudio', 'sdl', 'spice', 'file', 'dbus')),
  path: attribute('path', string),
  timerPeriod: attribute('timerPeriod', unsigned),
  input: kept('input'),
  output: kept('output'),
});
export type Audio = Value<typeof audio>;

export const sound = element('sound', {
  model: required('model', oneOf('sb16', 'es1370', 'pcspk', 'ac97', 'ich6', 'ich9', 'usb', 'ich7')),
  multichannel: attribute('multichannel', yesNo),
  codecs: children(element('codec', { type: required('type', oneOf('duplex', 'micro', 'output')) })),
  audio: child(element('audio', { id: required('id', positive) })),
  ...deviceInfo,
});
export type Sound = Value<typeof sound>;

export const input = refine(
  element('input', {
    type: required('type', oneOf('mouse', 'tablet', 'keyboard', 'passthrough', 'evdev'), {
      invalid: (text) => unsupported(`unknown input device type '${text}'`),
      missing: () => internalError('missing input device type'),
    }),
    bus: attribute('bus', oneOf('ps2', 'usb', 'xen', 'parallels', 'virtio', 'none'), {
      invalid: (text) => unsupported(`unknown input bus type '${text}'`),
    }),
    model: attribute('model', oneOf('virtio', 'virtio-transitional', 'virtio-non-transitional')),
    driver: child(virtioDriver),
    source: child(
      element('source', {
        evdev: attribute('evdev', string),
        dev: attribute('dev', string),
        grab: attribute('grab', oneOf('all')),
        repeat: attribute('repeat', onOff),
        grabToggle: attribute('grabToggle', string),
      }),
    ),
    ...deviceInfo,
  }),
  (value) => {
    if (value.type !== 'evdev') value.bus ??= value.type === 'tablet' ? 'usb' : value.type === 'passthrough' ? 'virtio' : 'ps2';
    if (value.bus === 'ps2' && value.type === 'tablet') throw internalError('ps2 bus does not support tablet input device');
    return value;
  },
);
export type Input = Value<typeof input>;
