// A prepared domain as the emulator's command line, in the order in which libvirt 9.0 writes it for QEMU 7.2.
import type { Domain } from '../domain.ts';
import type { Disk } from '../model/disk.ts';
import type { NetworkInterface } from '../model/interface.ts';
import { Arguments, type CommandLine, type CommandLineContext, escapeCommas } from './arguments.ts';
import { addChannels, addConsoles, addRedirected, addSerials, addSmartcards } from './characters.ts';
import {
  addBalloon,
  addControllers,
  addFilesystems,
  addHostDevices,
  addInterface,
  addIommu,
  addPanics,
  addRandom,
  addVsocks,
  addWatchdogs,
  refuseUnsupported,
} from './devices.ts';
import { addAudio, addGraphics, addInputs, addSounds, addVideos } from './display.ts';
import {
  addBoot,
  addClock,
  addCpu,
  addFirmware,
  addFlash,
  addMachine,
  addMemory,
  addNuma,
  addPower,
  addSmbios,
  addSmp,
} from './machine.ts';
import { addDisks } from './storage.ts';

/** The boot order as numbers from 1: from the devices' own `<boot order>`, or from the kinds that `<os>` lists. */
function bootOrder(domain: Domain): Map<Disk | NetworkInterface, number> {
  const { disks, interfaces } = domain.devices;
  const order = new Map<Disk | NetworkInterface, number>();
  domain.os.boot.forEach(({ dev }, place) => {
    const kinds: Partial<Record<typeof dev, readonly string[]>> = { hd: ['disk', 'lun'], cdrom: ['cdrom'], fd: ['floppy'] };
    const first = dev === 'network' ? interfaces[0] : disks.find((one) => kinds[dev]?.includes(one.device));
    if (first && !order.has(first)) order.set(first, place + 1);
  });
  for (const one of [...disks, ...interfaces]) if (one.boot?.order !== undefined) order.set(one, one.boot.order);
  return order;
}

function addMonitor(to: Arguments): void {
  const { monitorPath, passDescriptors } = to.context;
  const where = passDescriptors ? `fd=${to.listen(monitorPath, 'charmonitor')}` : `path=${escapeCommas(monitorPath)}`;
  to.add('-chardev', `socket,id=charmonitor,${where},server=on,wait=off`);
  to.add('-mon', 'chardev=charmonitor,id=monitor,mode=control');
}

/**
 * The arguments for a domain that `prepareDomain` has prepared; the same domain and context always give the same arguments.
 * @throws DomainXmlError when the domain has what cannot be run.
 */
export function commandLine(domain: Domain, context: CommandLineContext): CommandLine {
  const to = new Arguments(domain, context);
  const order = bootOrder(domain);
  refuseUnsupported(to);
  to.add('-name', `guest=${escapeCommas(domain.name)},debug-threads=on`, '-S');
  if (context.masterKey !== undefined) {
    to.object({ 'qom-type': 'secret', id: 'masterKey0', format: 'raw', file: context.masterKey });
  }
  addFlash(to);
  addMachine(to);
  addCpu(to);
  addFirmware(to);
  addMemory(to);
  addSmp(to);
  addNuma(to);
  to.add('-uuid', domain.uuid ?? '');
  addSmbios(to);
  if (domain.devices.graphics.length === 0) to.add('-display', 'none');
  to.add('-no-user-config', '-nodefaults');
  addMonitor(to);
  addClock(to);
  addPower(to);
  addBoot(to);
  addIommu(to);
  addControllers(to);
  addDisks(to, (disk) => order.get(disk));
  addFilesystems(to);
  for (const one of domain.devices.interfaces) addInterface(to, one, order.get(one));
  addSmartcards(to);
  addSerials(to);
  addChannels(to);
  addConsoles(to);
  addInputs(to);
  addAudio(to);
  addGraphics(to);
  addVideos(to);
  addSounds(to);
  addWatchdogs(to);
  addRedirected(to);
  addHostDevices(to);
  if (context.incoming !== undefined) to.add('-incoming', context.incoming);
  addBalloon(to);
  addRandom(to);
  if (domain.features?.get('vmcoreinfo')?.attributes['state'] === 'on') to.device({ driver: 'vmcoreinfo' });
  if (context.loadSnapshot !== undefined) to.add('-loadvm', context.loadSnapshot);
  to.add(...(domain.commandLine?.args.map((one) => one.value) ?? []));
  const files = context.reachable === undefined ? '' : `,files=deny,folder=${escapeCommas(context.reachable)}`;
  to.add('-sandbox', `on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny${files}`);
  addPanics(to);
  addVsocks(to);
  to.add('-msg', 'timestamp=on');
  const sasl = domain.devices.graphics.some((one) => one.type === 'vnc') ? context.vnc?.sasl : undefined;
  const own = Object.fromEntries(domain.commandLine?.env.map((one) => [one.name, one.value ?? '']) ?? []);
  const environment = { ...(sasl ? { SASL_CONF_PATH: sasl } : {}), ...own };
  return { args: to.args, environment, files: to.files };
}
