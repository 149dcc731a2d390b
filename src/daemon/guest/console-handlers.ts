// Consoles, channels, screenshots and keys: what a client sees of a guest and types into it.
import type { CharacterBackend } from '../../domain/model/character.ts';
import type { DeviceInfo } from '../../domain/model/common.ts';
import { libvirtError } from '../../rpc/libvirt/errors.ts';
import type { Call } from '../../rpc/server.ts';
import type { RpcStream } from '../../rpc/stream.ts';
import type { ByteDuplex } from '../../rpc/transport.ts';
import type { Daemon, RemoteHandlers } from '../daemon.ts';
import { checkFlags, translateErrors } from '../errors.ts';
import type { Guest, Run } from './guest.ts';
import { keyNumber } from './keys.ts';

type Port = CharacterBackend & DeviceInfo;
const consoleFlag = { force: 1, safe: 2 } as const;

function findConsole(run: Run, alias: string | undefined): Port {
  const { consoles, serials, parallels, channels } = run.domain.devices;
  if (alias === undefined) {
    const first = consoles[0] ?? serials[0] ?? parallels[0];
    if (!first) throw libvirtError('internalError', 'qemu', 'cannot find character device <null>');
    return first;
  }
  const found = [...consoles, ...serials, ...parallels, ...channels].find((one) => one.alias?.name === alias);
  if (!found) throw libvirtError('internalError', 'qemu', `cannot find character device ${alias}`);
  return found;
}

async function connectPort(daemon: Daemon, port: Port): Promise<ByteDuplex> {
  const path = port.sources[0]?.path;
  if (port.type !== 'pty' && port.type !== 'unix') {
    throw libvirtError('internalError', 'qemu', `character device ${port.alias?.name} is not using a PTY or UNIX socket`);
  }
  if (path === undefined) throw libvirtError('internalError', 'qemu', `character device ${port.alias?.name} has no path`);
  return port.type === 'pty' ? daemon.host.sockets.terminal(path) : daemon.host.sockets.connect(path);
}

/** Joins a client's stream and a port until one of them ends. */
async function join(stream: RpcStream, duplex: ByteDuplex): Promise<void> {
  const fromGuest = (async () => {
    for await (const bytes of duplex.input) await stream.write(bytes);
  })();
  const toGuest = (async () => {
    for await (const item of stream) if (item instanceof Uint8Array) await duplex.write(item);
  })();
  // Each end brings the other: a closed port ends the stream, an ended stream closes the port.
  void stream.gone.then(() => duplex.close());
  fromGuest.catch(() => {});
  toGuest.catch(() => {});
  try {
    await Promise.race([fromGuest, toGuest]);
  } catch (error) {
    if (stream.error === undefined && !stream.finished) throw libvirtError('internalError', 'streams', (error as Error).message);
  } finally {
    duplex.close();
  }
}

async function openPort(daemon: Daemon, guest: Guest, port: Port, call: Call, force: boolean): Promise<void> {
  const run = guest.live();
  const name = port.alias?.name ?? '';
  const other = run.consoles.get(name);
  if (other && !force) throw libvirtError('operationFailed', 'qemu', 'Active console session exists for this domain');
  other?.();
  const duplex = await connectPort(daemon, port);
  const close = (): void => duplex.close();
  run.consoles.set(name, close);
  call.stream(async (stream) => {
    try {
      await join(stream, duplex);
    } finally {
      if (run.consoles.get(name) === close) run.consoles.delete(name);
    }
  });
}

const chunk = 256 * 1024 - 24;

async function screenshot(daemon: Daemon, guest: Guest, screen: number, call: Call): Promise<{ mime: string }> {
  const run = guest.live();
  const video = run.domain.devices.videos[0];
  if (!video) throw libvirtError('operationInvalid', 'qemu', 'no screens to take screenshot from');
  const heads = video.model?.heads ?? 1;
  if (screen >= heads) throw libvirtError('invalidArg', 'qemu', 'no such screen');
  const path = `${run.directory}/screendump-${daemon.host.now()}`;
  let mime = 'image/png';
  const device = screen === 0 ? {} : { device: video.alias?.name, head: screen };
  try {
    await guest.qmp('screendump', { filename: path, format: 'png', ...device });
  } catch {
    mime = 'image/x-portable-pixmap';
    await guest.qmp('screendump', { filename: path, ...device });
  }
  call.stream(async (stream) => {
    const file = await daemon.host.files.open(path, 'read');
    try {
      for (let at = 0; ; at += chunk) {
        const bytes = await file.read(at, chunk);
        if (bytes.length === 0) break;
        await stream.write(bytes);
      }
    } finally {
      await file.close();
      await daemon.host.files.remove(path);
    }
  });
  return { mime };
}

export function consoleHandlers(daemon: Daemon): RemoteHandlers {
  const { guests } = daemon;
  return translateErrors('qemu', {
    async domainOpenConsole({ dom, device, flags }, call) {
      checkFlags('qemuDomainOpenConsole', flags, 3);
      const guest = guests.find(dom);
      await openPort(daemon, guest, findConsole(guest.live(), device), call, (flags & consoleFlag.force) !== 0);
    },
    async domainOpenChannel({ dom, name, flags }, call) {
      const guest = guests.find(dom);
      const { channels } = guest.live().domain.devices;
      const found = channels.find((one) => name === undefined || one.target?.name === name || one.alias?.name === name);
      if (!found) throw libvirtError('internalError', 'qemu', `cannot find channel ${name ?? '<null>'}`);
      await openPort(daemon, guest, found, call, (flags & 1) !== 0);
    },
    domainScreenshot: async ({ dom, screen }, call) => screenshot(daemon, guests.find(dom), screen, call),
    async domainSendKey({ dom, codeset, holdTime, keycodes }) {
      const guest = guests.find(dom);
      guest.live();
      const keys = keycodes.map((code) => ({ type: 'number', data: keyNumber(codeset, code) }));
      await guest.qmp('send-key', { keys, ...(holdTime > 0 && { 'hold-time': holdTime }) });
    },
    domainInjectNmi: async ({ dom }) => void (await guests.find(dom).qmp('inject-nmi')),
    domainOpenGraphics() {
      throw libvirtError('noSupport', 'qemu', 'file descriptors can not be passed on this connection');
    },
    async domainOpenGraphicsFd({ dom, index }, call) {
      const guest = guests.find(dom);
      const one = guest.live().domain.devices.graphics[index];
      if (!one) throw libvirtError('internalError', 'qemu', `No graphics backend with index ${index}`);
      const [listen] = one.listens;
      if (one.type !== 'vnc' || (listen?.type !== 'socket' && one.port === undefined)) {
        throw libvirtError('configUnsupported', 'qemu', `Can only open VNC, not ${one.type}`);
      }
      // A connection to the display itself: whoever gets it talks to the guest's VNC server.
      const any = listen?.address === undefined || listen.address === '0.0.0.0' || listen.address === '::';
      const to =
        listen?.type === 'socket'
          ? { path: listen.socket ?? '' }
          : { host: any ? '127.0.0.1' : listen.address!, port: one.port! };
      const { fd, close } = await daemon.host.sockets.connectFd(to);
      call.passFds([fd], close);
    },
  } satisfies RemoteHandlers);
}
