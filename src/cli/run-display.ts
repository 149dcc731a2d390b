// The display of `nonroot run`: a VGA that the firmware sets up, shown by VNC or on a page; a keyboard and a tablet for who looks at it.

import { parseVncPlace, VNC_PORT, type VncListen, type VncServer } from '../display/vnc.ts';
import type { Backends } from '../machine/backends.ts';
import type { DeviceConfig } from '../machine/device-type.ts';
import { romFiles, romSize } from '../machine/extra.ts';
import { linuxBootRom } from '../machine/kernel-items.ts';
import type { FirmwareShape } from '../machine/rom.ts';
import type { FirmwareImages } from '../machine/running.ts';
import type { CliHost } from './host.ts';
import type { Grant } from './sandbox.ts';
import { socketAt } from './system-files.ts';

export type DisplayChoice = { readonly kind: 'vnc'; readonly listen: VncListen } | { readonly kind: 'web' };

/** What a guest with a display is started with. */
export interface DisplayParts {
  readonly devices: readonly DeviceConfig[];
  readonly firmware: { readonly shape: FirmwareShape; readonly images: FirmwareImages };
}

const ACCEPTED = 'accepted are none, web, vnc and vnc=HOST:DISPLAY|unix:PATH';
/** Ports that are tried for `vnc` alone. */
const TRIED = 100;
const LOOPBACK = '127.0.0.1';
const BIOS = 'bios-256k.bin';
const devices: readonly DeviceConfig[] = [{ driver: 'VGA' }, { driver: 'virtio-tablet-pci' }];

/**
 * The value of `--display`; undefined for none. A place without a host is on this machine only: nobody is asked for a password.
 * @throws Error
 */
export function displayChoice(text: string): DisplayChoice | undefined {
  if (text === 'none') return undefined;
  if (text === 'web') return { kind: 'web' };
  if (text === 'vnc') return { kind: 'vnc', listen: { kind: 'tcp', host: LOOPBACK, port: VNC_PORT, to: VNC_PORT + TRIED - 1 } };
  const place = text.startsWith('vnc=') ? parseVncPlace(text.slice(4)) : undefined;
  if (!place) throw new Error(`Cannot use --display ${text}: ${ACCEPTED}`);
  return { kind: 'vnc', listen: place.kind === 'tcp' && place.host === '' ? { ...place, host: LOOPBACK } : place };
}

/** The files of the host that a display makes. */
export const filesOfDisplay = (choice: DisplayChoice): Grant[] =>
  choice.kind === 'vnc' && choice.listen.kind === 'unix' ? [socketAt(choice.listen.path)] : [];

/** The kernel is started by SeaBIOS, which draws the first text; so there is a text mode when the kernel comes. */
export async function displayParts(host: CliHost): Promise<DisplayParts> {
  const read = (name: string): Promise<Uint8Array> => host.firmware(name, [], () => {});
  const rom = await read(BIOS);
  const roms = new Map<string, Uint8Array>();
  for (const file of romFiles(devices)) roms.set(file, await read(file));
  const files = new Map([[linuxBootRom.file, await read(linuxBootRom.image)]]);
  const sizes = Object.fromEntries([...roms].map(([file, bytes]) => [file, romSize(bytes.length)]));
  return {
    devices,
    firmware: { shape: { rom: rom.length, flash: [], roms: sizes }, images: { rom, flash: [], roms, files } },
  };
}

/** Shows the display of a machine that was made; says where on standard error. Rejects with one line where it cannot. */
export async function showDisplay(choice: DisplayChoice, host: CliHost, backends: Backends): Promise<{ close(): void }> {
  const screen = backends.displays.find();
  if (!screen) throw new Error('Cannot show the display: the machine has none');
  const { input } = backends;
  const server = await host.startVnc({
    id: 'default',
    name: 'Nonroot',
    screen,
    input,
    password: false,
    share: 'ignore',
    listen: choice.kind === 'vnc' ? choice.listen : undefined,
    event: () => {},
    report: () => {},
  });
  if (choice.kind === 'vnc') {
    await host.err.write(`nonroot: the display is at vnc://${placeOf(server)}\n`);
    return server;
  }
  const page = await host.webDisplay(server.vnc);
  await host.err.write(`nonroot: the display is at ${page.url}\n`);
  return {
    close() {
      server.close();
      void page.close();
    },
  };
}

function placeOf(server: VncServer): string {
  const { host, service, family } = server.addresses[0]!;
  if (family === 'unix') return service;
  return family === 'ipv6' ? `[${host}]:${service}` : `${host}:${service}`;
}
