// Character devices on the command line: their back-ends, and the ports in the guest (as libvirt 9.0 composes them for QEMU 7.2).
import { aliasOf } from '../aliases.ts';
import { unsupported } from '../errors.ts';
import { type CharacterBackend, endpoint } from '../model/character.ts';
import type { DeviceInfo } from '../model/common.ts';
import { type Arguments, escapeCommas } from './arguments.ts';

const withPort = (source: { host?: string; service?: string } | undefined): string =>
  `host=${escapeCommas(source?.host ?? '')},port=${source?.service ?? ''}`;

/** The `-chardev` value of a back-end. `name` is for those that have one, like SPICE's. */
function chardev(to: Arguments, device: CharacterBackend, id: string, name: string): string {
  const source = endpoint(device, 'connect') ?? device.sources[0];
  const path = (key = 'path'): string => `${key}=${escapeCommas(device.sources[0]?.path ?? '')}`;
  const server = device.sources[0]?.mode !== 'connect';
  switch (device.type) {
    case 'null':
    case 'vc':
    case 'pty':
    case 'stdio':
      return `${device.type},id=${id}`;
    case 'dev':
      return `serial,id=${id},${path()}`;
    case 'file': {
      const append = device.sources[0]?.append;
      return `file,id=${id},${path()}${append === undefined ? '' : `,append=${append}`}`;
    }
    case 'pipe':
      return `pipe,id=${id},${path()}`;
    case 'udp': {
      const bound = endpoint(device, 'bind');
      const local = bound ? `,localaddr=${escapeCommas(bound.host ?? '')},localport=${bound.service ?? '0'}` : '';
      return `udp,id=${id},${withPort(source)}${local}`;
    }
    case 'tcp': {
      const telnet = device.protocol?.type === 'telnet' ? ',telnet=on' : '';
      const listens = device.sources[0]?.mode === 'bind' ? ',server=on,wait=off' : reconnect(device);
      return `socket,id=${id},${withPort(device.sources[0])}${telnet}${listens}`;
    }
    case 'unix': {
      if (!server) return `socket,id=${id},${path()}${reconnect(device)}`;
      const listening = to.context.passDescriptors ? `fd=${to.listen(device.sources[0]?.path ?? '', id)}` : path();
      return `socket,id=${id},${listening},server=on,wait=off`;
    }
    case 'spicevmc':
      return `spicevmc,id=${id},name=${name}`;
    case 'spiceport':
      return `spiceport,id=${id},name=${escapeCommas(device.sources[0]?.channel ?? '')}`;
    default:
      throw unsupported(`character device type '${device.type}' is not supported`);
  }
}

function reconnect(device: CharacterBackend): string {
  const wanted = device.sources[0]?.reconnect;
  return wanted?.enabled === 'yes' ? `,reconnect=${wanted.timeout ?? 0}` : '';
}

/** Adds the back-end of a device and gives its id. */
export function addChardev(to: Arguments, device: CharacterBackend & DeviceInfo, name = 'vdagent'): string {
  const id = `char${aliasOf(device)}`;
  const log = device.log ? `,logfile=${escapeCommas(device.log.file)},logappend=${device.log.append ?? 'off'}` : '';
  const { consoles } = to.context;
  const bounded = consoles !== undefined && (device.type === 'file' || device.log !== undefined);
  const limit = bounded ? `,max-size=${consoles.size},backups=${consoles.backups}` : '';
  to.add('-chardev', chardev(to, device, id, name) + log + limit);
  return id;
}

export function addSerials(to: Arguments): void {
  for (const one of to.domain.devices.serials) {
    const id = addChardev(to, one);
    const type = one.target?.type ?? 'isa-serial';
    const alias = aliasOf(one);
    if (type === 'isa-serial') to.device({ driver: 'isa-serial', chardev: id, id: alias, index: one.target?.port });
    else if (type === 'isa-debug') {
      const iobase = one.address && 'attributes' in one.address ? one.address.attributes['iobase'] : undefined;
      to.device({ driver: 'isa-debugcon', chardev: id, id: alias, iobase: iobase === undefined ? undefined : Number(iobase) });
    } else if (type === 'system-serial') to.add('-serial', `chardev:${id}`);
    else to.device({ driver: type, chardev: id, id: alias, ...to.place(one) });
  }
  for (const one of to.domain.devices.parallels) {
    const id = addChardev(to, one);
    to.device({ driver: 'isa-parallel', chardev: id, id: aliasOf(one) });
  }
}

export function addChannels(to: Arguments): void {
  for (const one of to.domain.devices.channels) {
    const chardevId = addChardev(to, one);
    const id = aliasOf(one);
    const target = one.target!;
    if (target.type === 'guestfwd') {
      const str = `tcp:${target.address}:${target.port}-chardev:${chardevId}`;
      to.json('-netdev', { type: 'user', guestfwd: [{ str }], id });
    } else if (target.type === 'virtio') {
      to.device({ driver: 'virtserialport', ...to.place(one), chardev: chardevId, id, name: target.name });
    } else throw unsupported(`channel target type '${target.type}' is not supported`);
  }
}

export function addConsoles(to: Arguments): void {
  for (const one of to.domain.devices.consoles) {
    if (one.target?.type === 'serial') continue;
    if (one.target?.type !== 'virtio') throw unsupported(`console target type '${one.target?.type}' is not supported`);
    const chardevId = addChardev(to, one);
    to.device({ driver: 'virtconsole', ...to.place(one), chardev: chardevId, id: aliasOf(one) });
  }
}

export function addRedirected(to: Arguments): void {
  for (const one of to.domain.devices.redirdevs) {
    const chardevId = addChardev(to, one, 'usbredir');
    to.device({ driver: 'usb-redir', chardev: chardevId, id: aliasOf(one), ...to.place(one), bootindex: one.boot?.order });
  }
}

export function addSmartcards(to: Arguments): void {
  for (const one of to.domain.devices.smartcards) {
    if (one.mode !== 'passthrough' || one.type === undefined) throw unsupported(`smartcard mode '${one.mode}' is not supported`);
    const chardevId = addChardev(to, { ...one, type: one.type }, 'smartcard');
    to.device({ driver: 'ccid-card-passthru', chardev: chardevId, id: aliasOf(one), ...to.place(one) });
  }
}
