// Firmware of `nonroot-system-x86_64`: the options that choose it, and its images for the machine (QEMU 7.2, "System Emulation", section
// "Invocation", "Debug/Expert options").

import { openDisk } from '../disk/open.ts';
import { romFiles, romSize } from '../machine/extra.ts';
import { flashOf } from '../machine/flash.ts';
import { linuxBootRom } from '../machine/kernel-items.ts';
import type { FirmwareShape } from '../machine/rom.ts';
import type { FirmwareImages, FlashImage } from '../machine/running.ts';
import { optionMap } from '../monitor/keyval.ts';
import type { SystemHost } from './host.ts';
import { does, parameters, type SystemOption } from './system-option.ts';
import { Refused, type Settings } from './system-settings.ts';

/** What boards start with when nothing else is said. */
const STANDARD = 'bios-256k.bin';
const MICROVM = 'bios-microvm.bin';

function fwCfg(s: Settings, text: string): void {
  const map = optionMap(text, 'name');
  const name = map.get('name');
  const file = map.get('file');
  const string = map.get('string');
  for (const key of map.keys())
    if (!['name', 'file', 'string'].includes(key)) throw new Refused(`-fw_cfg ${key}=${map.get(key)}: not supported`);
  if (name === undefined || (file === undefined) === (string === undefined))
    throw new Refused(`-fw_cfg ${text}: accepted is name=NAME with file=FILE or string=TEXT`);
  if (name.length > 55) throw new Refused(`-fw_cfg name=${name}: accepted are names of up to 55 characters`);
  s.fwCfg.push({ name, ...(file === undefined ? {} : { file }), ...(string === undefined ? {} : { text: string }) });
}

export const firmwareOptions: readonly SystemOption[] = [
  {
    names: ['-bios'],
    value: 'FILE',
    help: `firmware in ROM (default ${STANDARD}); it is fetched when it is not there`,
    apply: does((s, v) => {
      s.bios = v;
    }),
  },
  {
    names: ['-L'],
    value: 'FOLDER',
    help: 'where firmware is looked for first',
    apply: does((s, v) => void s.firmwareFolders.push(v)),
  },
  {
    names: ['-pflash'],
    value: 'FILE',
    help: 'a flash chip with firmware, as -drive if=pflash',
    apply: does((s, v) => void s.flash.push(v)),
  },
  {
    names: ['-fw_cfg'],
    value: '[name=]NAME,file=FILE|string=TEXT',
    help: 'a file for the firmware and the guest',
    group: 'fw_cfg',
    parameters: parameters({ string: 'name file string gen_id' }),
    apply: does(fwCfg),
  },
];

/** Firmware for a machine; no shape where a kernel is started directly, and nothing at all where that has no files of its own by fw_cfg either. */
export async function firmwareOf(
  s: Settings,
  host: SystemHost,
  more: readonly FlashImage[] = [],
): Promise<{ readonly shape?: FirmwareShape; readonly images: FirmwareImages } | undefined> {
  const flash: FlashImage[] = [...more];
  for (const path of s.flash) {
    const { device } = await openDisk(host.disks, path, { format: 'raw', readOnly: s.readOnlyFlash.has(path) });
    const chip = await flashOf(path, device);
    flash.push(chip);
    // What cannot be programmed is not needed any more.
    if (!chip.save) await device.close();
  }
  const files = new Map<string, Uint8Array>();
  for (const { name, file, text } of s.fwCfg)
    files.set(name, file === undefined ? new TextEncoder().encode(text) : await host.readFile(file));
  if (flash.length === 0 && s.bios === undefined && s.kernel !== undefined)
    return files.size === 0 ? undefined : { images: { flash, roms: new Map(), files } };
  if (flash.length > 0 && s.bios !== undefined) throw new Refused('-bios: not supported together with flash');
  const report = (): void => {};
  const rom =
    flash.length > 0
      ? undefined
      : await host.firmware(s.bios ?? (s.machine.board === 'microvm' ? MICROVM : STANDARD), s.firmwareFolders, report);
  const roms = new Map<string, Uint8Array>();
  for (const file of romFiles(s.devices)) roms.set(file, await host.firmware(file, s.firmwareFolders, report));
  // SeaBIOS starts a kernel by an option ROM, UEFI firmware by itself.
  if (rom && s.kernel !== undefined)
    files.set(linuxBootRom.file, await host.firmware(linuxBootRom.image, s.firmwareFolders, report));
  return {
    shape: {
      ...(rom ? { rom: rom.length } : {}),
      flash: flash.map((f) => ({ bytes: f.bytes.length, readOnly: f.save === undefined })),
      ...(s.secureFlash ? { secure: true } : {}),
      roms: Object.fromEntries([...roms].map(([file, bytes]) => [file, romSize(bytes.length)])),
    },
    images: { ...(rom ? { rom } : {}), flash, roms, files },
  };
}
