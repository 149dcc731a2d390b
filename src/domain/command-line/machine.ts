// The machine's part of the command line: board, CPU, memory, SMP, clock, firmware, boot (as libvirt 9.0 composes it for QEMU 7.2).
import { boardOf } from '../emulator.ts';
import { unsupported } from '../errors.ts';
import { featureState } from '../model/system.ts';
import { addedVcpus } from '../model/vcpus.ts';
import { cellDistances } from '../numa.ts';
import { childNamed, elementsOf, textOf, type XmlElement } from '../xml.ts';
import { type Arguments, escapeCommas } from './arguments.ts';

const hasCells = ({ domain }: Arguments): boolean => (domain.cpu?.numa?.cells.length ?? 0) > 0;

export function addMachine(to: Arguments): void {
  const { domain, context } = to;
  const { loader } = domain.os;
  const parts = [domain.os.type?.machine ?? context.machine.name, 'usb=off'];
  for (const name of ['vmport', 'smm']) {
    const state = featureState(domain.features, name);
    if (state !== undefined) parts.push(`${name}=${state}`);
  }
  if (loader?.secure === 'yes' && !domain.features?.has('smm')) parts.push('smm=on');
  const ioapic = domain.features?.get('ioapic')?.attributes['driver'];
  if (ioapic !== undefined) parts.push(`kernel_irqchip=${ioapic === 'qemu' ? 'split' : 'on'}`);
  parts.push('dump-guest-core=off');
  if (context.machine.ramId !== undefined && !hasCells(to)) parts.push(`memory-backend=${context.machine.ramId}`);
  if (loader?.type === 'pflash') {
    parts.push('pflash0=libvirt-pflash0-format');
    if (domain.os.nvram?.path !== undefined) parts.push('pflash1=libvirt-pflash1-format');
  }
  to.add('-machine', parts.join(','));
  to.add('-accel', domain.type === 'kvm' ? 'kvm' : 'tcg');
}

/** Firmware in flash: the code, read-only, and the guest's own variables. */
export function addFlash(to: Arguments): void {
  const { loader, nvram } = to.domain.os;
  if (loader?.type !== 'pflash') return;
  const flash = (id: number, filename: string, readOnly: boolean, format: string): void => {
    const node = `libvirt-pflash${id}`;
    to.json('-blockdev', {
      driver: 'file',
      filename,
      'node-name': `${node}-storage`,
      'auto-read-only': true,
      discard: 'unmap',
    });
    to.json('-blockdev', { 'node-name': `${node}-format`, 'read-only': readOnly, driver: format, file: `${node}-storage` });
  };
  flash(0, loader.path ?? '', loader.readonly !== 'no', loader.format ?? 'raw');
  if (nvram?.path !== undefined) flash(1, nvram.path, false, nvram.format ?? 'raw');
}

export function addFirmware(to: Arguments): void {
  const { loader } = to.domain.os;
  if (loader?.type === 'pflash') {
    if (loader.secure === 'yes') to.add('-global', 'driver=cfi.pflash01,property=secure,value=on');
  } else if (loader?.path !== undefined) to.add('-bios', loader.path);
}

/** Hyper-V's features by libvirt's names, in its order. */
const hypervFeatures = [
  ...['relaxed', 'vapic', 'spinlocks', 'vpindex', 'runtime', 'synic', 'stimer', 'reset', 'vendor_id', 'frequencies'],
  ...['reenlightenment', 'tlbflush', 'ipi', 'evmcs', 'avic'],
];

function hypervParts(hyperv: XmlElement | undefined): string[] {
  if (!hyperv) return [];
  if (hyperv.attributes['mode'] === 'passthrough') return ['hv-passthrough=on'];
  return hypervFeatures.flatMap((name) => {
    const feature = childNamed(hyperv, name);
    if (feature?.attributes['state'] !== 'on') return [];
    const option = `hv-${name.replaceAll('_', '-')}`;
    if (name === 'spinlocks') return [`${option}=0x${Number(feature.attributes['retries'] ?? 4095).toString(16)}`];
    if (name === 'vendor_id') return [`${option}=${escapeCommas(feature.attributes['value'] ?? '')}`];
    const direct = childNamed(feature, 'direct')?.attributes['state'] === 'on';
    return [`${option}=on`, ...(direct ? ['hv-stimer-direct=on'] : [])];
  });
}

function cpuName(to: Arguments): string {
  const { domain, context } = to;
  const { cpu, type } = domain;
  const host = type === 'kvm' ? 'host' : 'max';
  switch (cpu?.mode) {
    case 'host-passthrough':
      if (type !== 'kvm') {
        const arch = domain.os.type?.arch;
        throw unsupported(
          `CPU mode 'host-passthrough' for ${arch} ${type} domain on ${arch} host is not supported by hypervisor`,
        );
      }
      return cpu.migratable === undefined ? 'host' : `host,migratable=${cpu.migratable}`;
    case 'maximum':
      return cpu.migratable === undefined || type !== 'kvm' ? 'max' : `max,migratable=${cpu.migratable}`;
    case 'host-model':
      return context.hostModel ?? host;
    default:
      return cpu?.model?.name ?? 'qemu64';
  }
}

export function addCpu(to: Arguments): void {
  const { domain } = to;
  const { cpu, features } = domain;
  const parts = [cpuName(to)];
  if (cpu?.model?.vendorId !== undefined) parts.push(`vendor=${cpu.model.vendorId}`);
  for (const { name, policy } of cpu?.features ?? []) {
    parts.push(`${name.replaceAll('_', '-')}=${policy === 'disable' || policy === 'forbid' ? 'off' : 'on'}`);
  }
  for (const timer of domain.clock?.timers ?? []) {
    if (timer.name === 'kvmclock' && timer.present !== undefined)
      parts.push(`kvmclock=${timer.present === 'yes' ? 'on' : 'off'}`);
    else if (timer.name === 'hypervclock' && timer.present === 'yes') parts.push('hv-time=on');
    else if (timer.name === 'tsc' && timer.frequency !== undefined) parts.push(`tsc-frequency=${timer.frequency}`);
  }
  const eoi = features?.get('apic')?.attributes['eoi'];
  if (eoi !== undefined) parts.push(`kvm-pv-eoi=${eoi}`);
  const spinlock = featureState(features, 'pvspinlock');
  if (spinlock !== undefined) parts.push(`kvm-pv-unhalt=${spinlock}`);
  parts.push(...hypervParts(features?.get('hyperv')));
  if (domain.devices.panics.some((one) => one.model === 'hyperv')) parts.push('hv-crash');
  const kvm = features?.get('kvm');
  const kvmState = (name: string): boolean => (kvm && childNamed(kvm, name)?.attributes['state'] === 'on') ?? false;
  if (kvmState('hidden')) parts.push('kvm=off');
  if (kvmState('hint-dedicated')) parts.push('kvm-hint-dedicated=on');
  if (kvmState('poll-control')) parts.push('kvm-poll-control=on');
  const pmu = featureState(features, 'pmu');
  if (pmu !== undefined) parts.push(`pmu=${pmu}`);
  const width = cpu?.maxphysaddr?.attributes;
  if (width?.['mode'] === 'passthrough') parts.push('host-phys-bits=on');
  else if (width?.['bits'] !== undefined) parts.push(`phys-bits=${width['bits']}`);
  to.add('-cpu', parts.join(','));
}

/** RAM comes in whole MiB. */
const wholeMib = (kib: number): number => Math.ceil(kib / 1024);

function addRam(to: Arguments, id: string, kib: number, shared: boolean): void {
  const { memoryBacking } = to.domain;
  const size = wholeMib(kib) * 1024 * 1024;
  if (memoryBacking?.hugepages) throw unsupported('hugepages are not available to this daemon');
  const share = shared || memoryBacking?.access?.mode === 'shared' || undefined;
  // Only the board's own RAM goes by its name.
  const canonical = id === to.context.machine.ramId ? { 'x-use-canonical-path-for-ramblock-id': false } : {};
  // Memory that others can map has to be a file's.
  switch (memoryBacking?.source?.type ?? (shared ? 'file' : undefined)) {
    case 'memfd':
      to.object({ 'qom-type': 'memory-backend-memfd', id, share, ...canonical, size });
      break;
    case 'file':
      to.object({
        'qom-type': 'memory-backend-file',
        id,
        'mem-path': `${to.context.directory}/ram/${id}`,
        share,
        ...canonical,
        size,
      });
      break;
    default:
      to.object({ 'qom-type': 'memory-backend-ram', id, share, size });
  }
}

export function addMemory(to: Arguments): void {
  const { domain, context } = to;
  const dimms = domain.devices.memories.reduce((sum, one) => sum + (one.target?.size ?? 0), 0);
  const boot = wholeMib((domain.memory ?? 0) - dimms);
  const max = domain.maxMemory;
  to.add('-m', max ? `size=${boot * 1024}k,slots=${max.slots},maxmem=${wholeMib(max.kib) * 1024}k` : String(boot));
  if (context.machine.ramId !== undefined && !hasCells(to)) addRam(to, context.machine.ramId, boot * 1024, false);
  to.add('-overcommit', `mem-lock=${domain.memoryBacking?.locked ? 'on' : 'off'}`);
}

export function addSmp(to: Arguments): void {
  const { vcpu, cpu } = to.domain;
  const { sockets, dies, cores, threads } = cpu?.topology ?? { sockets: vcpu.count, dies: undefined, cores: 1, threads: 1 };
  // The others are added once it runs.
  const current = (vcpu.current ?? vcpu.count) - addedVcpus(to.domain).length;
  const parts = [String(current), ...(current === vcpu.count ? [] : [`maxcpus=${vcpu.count}`]), `sockets=${sockets}`];
  if (dies !== undefined) parts.push(`dies=${dies}`);
  to.add('-smp', [...parts, `cores=${cores}`, `threads=${threads}`].join(','));
  for (let id = 1; id <= (to.domain.iothreads ?? 0); id++) to.object({ 'qom-type': 'iothread', id: `iothread${id}` });
}

export function addNuma(to: Arguments): void {
  for (const cell of to.domain.cpu?.numa?.cells ?? []) {
    const id = cell.id ?? 0;
    addRam(to, `ram-node${id}`, Number(cell.memory), cell.memAccess === 'shared');
    // One `cpus=` for each range of the list.
    const cpus = (cell.cpus ?? '').split(',').filter((range) => range !== '');
    to.add('-numa', [`node,nodeid=${id}`, ...cpus.map((range) => `cpus=${range}`), `memdev=ram-node${id}`].join(','));
  }
  for (const { src, dst, val } of cellDistances(to.domain.cpu?.numa?.cells ?? []))
    to.add('-numa', `dist,src=${src},dst=${dst},val=${val}`);
  addModules(to);
}

/** Modules of memory, beside what the nodes have at the start. */
export function addModules(to: Arguments): void {
  for (const [index, one] of to.domain.devices.memories.entries()) {
    if (one.model !== 'dimm') throw unsupported(`memory device model '${one.model}' is not supported`);
    const id = one.alias?.name ?? `dimm${index}`;
    addRam(to, `mem${id}`, one.target?.size ?? 0, one.access === 'shared');
    const node = one.target?.node;
    const slot = one.address && 'attributes' in one.address ? one.address.attributes['slot'] : undefined;
    to.device({
      driver: 'pc-dimm',
      node: node ? Number(textOf(node)) : undefined,
      memdev: `mem${id}`,
      id,
      slot: slot === undefined ? undefined : Number(slot),
    });
  }
}

/** SMBIOS tables by the element that describes them. */
const smbiosTypes: readonly ['bios' | 'system' | 'chassis', number][] = [
  ['bios', 0],
  ['system', 1],
  ['chassis', 3],
];

export function addSmbios(to: Arguments): void {
  const { domain } = to;
  if (domain.os.smbios?.mode === 'host') throw unsupported("smbios mode 'host' is not available to this daemon");
  if (domain.os.smbios?.mode !== 'sysinfo') return;
  const info = domain.sysinfos.find((one) => one.type === 'smbios');
  if (!info) throw unsupported("Domain XML does not have sysinfo, which smbios mode 'sysinfo' needs");
  const table = (type: number, tree: XmlElement): void => {
    const fields = elementsOf(tree).map((entry) => `${entry.attributes['name']}=${escapeCommas(textOf(entry))}`);
    to.add('-smbios', [`type=${type}`, ...fields].join(','));
  };
  for (const [name, type] of smbiosTypes) {
    const tree = info[name];
    if (tree) table(type, tree);
    if (name === 'system') for (const board of info.baseBoard) table(2, board);
  }
  if (info.oemStrings) {
    const values = elementsOf(info.oemStrings).map((entry) => `value=${escapeCommas(textOf(entry))}`);
    to.add('-smbios', ['type=11', ...values].join(','));
  }
}

function rtcBase(to: Arguments): string {
  const { clock } = to.domain;
  switch (clock?.offset) {
    case 'localtime':
      return 'localtime';
    case 'variable': {
      const adjustment = clock.adjustment === 'reset' ? 0 : Number(clock.adjustment ?? 0);
      return new Date((to.context.now + adjustment) * 1000).toISOString().slice(0, 19);
    }
    case 'absolute':
      return new Date((clock.start ?? 0) * 1000).toISOString().slice(0, 19);
    case 'timezone':
      return 'localtime';
    default:
      return 'utc';
  }
}

export function addClock(to: Arguments): void {
  const timers = to.domain.clock?.timers ?? [];
  const named = (name: string) => timers.find((one) => one.name === name);
  const rtc = [`base=${rtcBase(to)}`];
  const track = named('rtc')?.track;
  if (track !== undefined) rtc.push(`clock=${track === 'guest' ? 'vm' : track === 'realtime' ? 'rt' : 'host'}`);
  if (named('rtc')?.tickpolicy === 'catchup') rtc.push('driftfix=slew');
  to.add('-rtc', rtc.join(','));
  const pit = named('pit')?.tickpolicy;
  if (pit === 'delay' || pit === 'discard') to.add('-global', `kvm-pit.lost_tick_policy=${pit}`);
  if (named('hpet')?.present === 'no') to.add('-no-hpet');
}

export function addPower(to: Arguments): void {
  const { domain } = to;
  const board = boardOf(domain.os.type?.machine ?? '');
  to.add('-no-shutdown');
  if (!domain.features?.has('acpi') && board !== 'other') to.add('-no-acpi');
  const chip = board === 'q35' ? 'ICH9-LPC' : 'PIIX4_PM';
  const sleep = (name: string, enabled: 'yes' | 'no' | undefined): void => {
    if (enabled !== undefined) to.add('-global', `${chip}.${name}=${enabled === 'no' ? 1 : 0}`);
  };
  sleep('disable_s3', domain.pm?.mem?.enabled);
  sleep('disable_s4', domain.pm?.disk?.enabled);
}

export function addBoot(to: Arguments): void {
  const { bootmenu, bios, kernel, initrd, cmdline, dtb } = to.domain.os;
  const parts: string[] = [];
  if (bootmenu) parts.push(`menu=${bootmenu.enable === 'yes' ? 'on' : 'off'}`);
  if (bootmenu?.enable === 'yes' && bootmenu.timeout !== undefined) parts.push(`splash-time=${bootmenu.timeout}`);
  if (bios?.rebootTimeout !== undefined) parts.push(`reboot-timeout=${bios.rebootTimeout}`);
  to.add('-boot', [...parts, 'strict=on'].join(','));
  if (kernel !== undefined) to.add('-kernel', kernel);
  if (initrd !== undefined) to.add('-initrd', initrd);
  if (cmdline !== undefined) to.add('-append', cmdline);
  if (dtb !== undefined) to.add('-dtb', dtb);
}
