// Inputs, sound, graphics and video on the command line (as libvirt 9.0 composes them for QEMU 7.2).
import { aliasOf } from '../aliases.ts';
import { unsupported } from '../errors.ts';
import type { Graphics, Input, Sound, Video } from '../model/display.ts';
import { type Arguments, escapeCommas, type JsonObject, virtioDriverName, virtioProperties } from './arguments.ts';

const usbInputs: Partial<Record<Input['type'], string>> = { mouse: 'usb-mouse', tablet: 'usb-tablet', keyboard: 'usb-kbd' };

export function addInputs(to: Arguments): void {
  for (const one of to.domain.devices.inputs) {
    // The board has the PS/2 ones.
    if (one.bus === 'ps2') continue;
    const id = aliasOf(one);
    if (one.type === 'evdev') {
      const { dev, grab, repeat } = one.source ?? {};
      const all = grab === 'all' ? true : undefined;
      to.object({ 'qom-type': 'input-linux', id, evdev: dev, repeat: repeat && repeat === 'on', grab_all: all });
    } else if (one.bus === 'usb' && usbInputs[one.type]) to.device({ driver: usbInputs[one.type], id, ...to.place(one) });
    else if (one.bus === 'virtio') {
      const kind = one.type === 'passthrough' ? 'input-host' : one.type;
      to.device({
        driver: virtioDriverName(`virtio-${kind}`, one.model),
        ...virtioProperties(one.driver),
        id,
        evdev: one.type === 'passthrough' ? one.source?.evdev : undefined,
        ...to.place(one),
      });
    } else throw unsupported(`input device type '${one.type}' on bus '${one.bus}' is not supported`);
  }
}

export function addAudio(to: Arguments): void {
  for (const one of to.domain.devices.audios) {
    if (one.type !== 'none' && one.type !== 'spice' && one.type !== 'sdl' && one.type !== 'dbus') {
      throw unsupported(`audio type '${one.type}' is not supported`);
    }
    to.json('-audiodev', { id: `audio${one.id}`, driver: one.type });
  }
}

const audioId = (to: Arguments, id: number | undefined): string | undefined => {
  const chosen = id ?? to.domain.devices.audios[0]?.id;
  return chosen === undefined ? undefined : `audio${chosen}`;
};

/** An address as an option takes it: IPv6 in brackets. */
const literal = (address: string): string => (address.includes(':') ? `[${address}]` : address);

/** Of VNC's certificates: a domain has one VNC server. */
const TLS_ALIAS = 'vnc-tls-creds0';

function vnc(to: Arguments, one: Graphics): void {
  const [listen] = one.listens;
  const parts: string[] = [];
  if (listen?.type === 'socket') parts.push(`vnc=unix:${escapeCommas(listen.socket ?? '')}`);
  else if (listen?.type === 'none') parts.push('none');
  else {
    if (one.port === undefined || one.port < 5900) throw unsupported(`VNC port ${one.port} is not 5900 or more`);
    parts.push(`${literal(listen?.address ?? '')}:${one.port - 5900}`);
    if (one.websocket !== undefined) parts.push(`websocket=${one.websocket === -1 ? 'on' : one.websocket}`);
  }
  if (one.sharePolicy !== undefined) parts.push(`share=${one.sharePolicy}`);
  const { tls, sasl, password } = to.context.vnc ?? {};
  if ((one.passwd ?? password) !== undefined) parts.push('password=on');
  if (tls) {
    const { directory: dir, verify } = tls;
    to.object({ 'qom-type': 'tls-creds-x509', id: TLS_ALIAS, dir, endpoint: 'server', 'verify-peer': verify });
    parts.push(`tls-creds=${TLS_ALIAS}`);
  }
  if (sasl !== undefined) parts.push('sasl=on');
  const audio = audioId(to, one.audio?.id);
  if (audio !== undefined) parts.push(`audiodev=${audio}`);
  to.add('-vnc', parts.join(','));
  if (one.keymap !== undefined) to.add('-k', one.keymap);
}

function spice(to: Arguments, one: Graphics): void {
  const [listen] = one.listens;
  const parts: string[] = [];
  if (listen?.type === 'socket') parts.push('unix', `addr=${escapeCommas(listen.socket ?? '')}`);
  else {
    if (one.port !== undefined) parts.push(`port=${one.port}`);
    if (one.tlsPort !== undefined) parts.push(`tls-port=${one.tlsPort}`);
    if (listen?.address !== undefined) parts.push(`addr=${literal(listen.address)}`);
  }
  if (one.passwd === undefined) parts.push('disable-ticketing=on');
  if (one.image) parts.push(`image-compression=${one.image.compression}`);
  parts.push('seamless-migration=on');
  to.add('-spice', parts.join(','));
  if (one.keymap !== undefined) to.add('-k', one.keymap);
}

export function addGraphics(to: Arguments): void {
  for (const one of to.domain.devices.graphics) {
    if (one.type === 'vnc') vnc(to, one);
    else if (one.type === 'spice') spice(to, one);
    else if (one.type === 'sdl' || one.type === 'egl-headless' || one.type === 'dbus') to.add('-display', one.type);
    else throw unsupported(`graphics type '${one.type}' is not supported`);
  }
}

function videoProperties(one: Video, primary: boolean): JsonObject {
  const model = one.model ?? {};
  const id = aliasOf(one);
  const kib = 1024;
  switch (model.type) {
    case 'vga':
      return { driver: primary ? 'VGA' : 'secondary-vga', id, vgamem_mb: Math.max(1, (model.vram ?? 16384) / kib) };
    case 'cirrus':
      return { driver: 'cirrus-vga', id };
    case 'vmvga':
      return { driver: 'vmware-svga', id, vgamem_mb: (model.vram ?? 16384) / kib };
    case 'qxl':
      return {
        driver: primary ? 'qxl-vga' : 'qxl',
        id,
        max_outputs: model.heads ?? 1,
        ram_size: (model.ram ?? 65536) * kib,
        vram_size: (model.vram ?? 65536) * kib,
        vram64_size_mb: (model.vram64 ?? 0) / kib,
        vgamem_mb: (model.vgamem ?? 16384) / kib,
      };
    case 'virtio': {
      const gl = model.acceleration?.accel3d === 'yes' ? '-gl' : '';
      const resolution = model.resolution && { xres: model.resolution.x, yres: model.resolution.y };
      return { driver: primary ? `virtio-vga${gl}` : `virtio-gpu${gl}-pci`, id, max_outputs: model.heads, ...resolution };
    }
    case 'bochs':
      return { driver: 'bochs-display', id, vgamem: (model.vram ?? 16384) * kib };
    case 'ramfb':
      return { driver: 'ramfb', id };
    default:
      throw unsupported(`video type '${model.type}' is not supported`);
  }
}

export function addVideos(to: Arguments): void {
  to.domain.devices.videos.forEach((one, index) => {
    if (one.model?.type !== 'none') to.device({ ...videoProperties(one, index === 0), ...to.place(one) });
  });
}

const hdaCodecs = { duplex: 'hda-duplex', micro: 'hda-micro', output: 'hda-output' } as const;

function hda(to: Arguments, one: Sound): void {
  const id = aliasOf(one);
  to.device({ driver: one.model === 'ich9' ? 'ich9-intel-hda' : 'intel-hda', id, ...to.place(one) });
  const codecs = one.codecs.length > 0 ? one.codecs : [{ type: 'duplex' as const }];
  codecs.forEach((codec, cad) => {
    const audiodev = audioId(to, one.audio?.id);
    to.device({ driver: hdaCodecs[codec.type], id: `${id}-codec${cad}`, bus: `${id}.0`, cad, audiodev });
  });
}

export function addSounds(to: Arguments): void {
  for (const one of to.domain.devices.sounds) {
    const audiodev = audioId(to, one.audio?.id);
    const device = (driver: string): void => to.device({ driver, id: aliasOf(one), audiodev, ...to.place(one) });
    if (one.model === 'ich6' || one.model === 'ich9') hda(to, one);
    else if (one.model === 'ac97') device('AC97');
    else if (one.model === 'es1370') device('ES1370');
    else if (one.model === 'sb16') device('sb16');
    else if (one.model === 'usb') device('usb-audio');
    else throw unsupported(`sound card model '${one.model}' is not supported`);
  }
}
