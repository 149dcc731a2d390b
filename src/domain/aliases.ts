// The names of a running domain's devices: `virtio-disk0`, `net0`, … (libvirt 9.0). A name that the document gives (`ua-…`) stays.
import type { Domain } from './domain.ts';
import { boardOf } from './emulator.ts';
import type { DeviceInfo } from './model/common.ts';
import type { Controller } from './model/controller.ts';
import { type Disk, diskIndex } from './model/disk.ts';

function diskAlias(one: Disk, domain: Domain): string {
  const bus = one.target?.bus;
  const { address } = one;
  if (address?.type === 'drive') {
    const { controller, bus: channel, target, unit } = address;
    const host = domain.devices.controllers.find((other) => other.type === bus && other.index === controller);
    const long = bus === 'scsi' && host?.model !== 'lsilogic';
    return [`${bus}${controller}`, channel, ...(long ? [target] : []), unit].join('-');
  }
  return `${bus}-disk${diskIndex(one.target?.dev ?? '') ?? 0}`;
}

function controllerAlias(one: Controller, board: string): string {
  const index = one.index ?? 0;
  if (one.type === 'pci') return one.model === 'pcie-root' ? 'pcie.0' : `pci.${index}`;
  if (index === 0 && one.type === 'usb') return 'usb';
  // The controller that the chipset has: its bus is the board's `ide`.
  if (index === 0 && ((one.type === 'ide' && board === 'pc') || (one.type === 'sata' && board === 'q35'))) return 'ide';
  return `${one.type}${index}`;
}

/** The device lists that are named by a word and their place. */
function* numbered(domain: Domain): Generator<[string, readonly DeviceInfo[]]> {
  const { devices } = domain;
  yield ['fs', devices.filesystems];
  yield ['net', devices.interfaces];
  yield ['smartcard', devices.smartcards];
  yield ['serial', devices.serials];
  yield ['parallel', devices.parallels];
  yield ['channel', devices.channels];
  yield ['console', devices.consoles];
  yield ['input', devices.inputs];
  yield ['tpm', devices.tpms];
  yield ['sound', devices.sounds];
  yield ['video', devices.videos];
  yield ['hostdev', devices.hostdevs];
  yield ['redir', devices.redirdevs];
  yield ['hub', devices.hubs];
  yield ['watchdog', devices.watchdogs];
  yield ['balloon', devices.memballoons.filter((one) => one.model !== 'none')];
  yield ['rng', devices.rngs];
  yield ['panic', devices.panics];
  yield ['shmem', devices.shmems];
  yield ['dimm', devices.memories];
  yield ['iommu', devices.iommus];
  yield ['vsock', devices.vsocks];
}

/** Names every device that has no name, in place; a device that is plugged in later gets a number that is not in use. */
export function assignAliases(domain: Domain): Domain {
  const { devices } = domain;
  const board = boardOf(domain.os.type?.machine ?? '');
  for (const one of devices.disks) one.alias ??= { name: diskAlias(one, domain) };
  for (const one of devices.controllers) one.alias ??= { name: controllerAlias(one, board) };
  const [console] = devices.consoles;
  for (const [word, list] of numbered(domain)) {
    const used = new Set(list.flatMap((one) => (one.alias ? [one.alias.name] : [])));
    for (const [index, one] of list.entries()) {
      if (one === console && console.target?.type === 'serial' && devices.serials[0]?.alias) {
        one.alias = { ...devices.serials[0].alias };
      }
      if (one.alias) continue;
      let number = index;
      while (used.has(`${word}${number}`)) number++;
      one.alias = { name: `${word}${number}` };
      used.add(one.alias.name);
    }
  }
  return domain;
}

/** The name of a device of a domain whose devices have names. */
export function aliasOf(info: DeviceInfo): string {
  if (info.alias) return info.alias.name;
  throw new Error('Cannot name a device: it has no alias, assignAliases gives every device one');
}
