// Limits of a guest on one block device of the host: the `<device>` elements of `<blkiotune>`, their typed parameters, and the kernel's files.
// libvirt 9.0 formatdomain, virDomainSetBlkioParameters; kernel documentation, admin-guide/cgroup-v1/blkio-controller, cgroup-v2 "IO".
import type { Domain } from '../../domain/domain.ts';
import { childNamed, elementsOf, newElement, textOf, type XmlElement } from '../../domain/xml.ts';
import type { TypedParam } from '../../rpc/libvirt/types.ts';
import type { Group } from '../cgroups.ts';
import type { Daemon } from '../daemon.ts';
import { invalidArgument, systemError } from '../errors.ts';

/** Parameter, element, the file of version 1, the key in version 2's `io.max`; in the order of both documents. */
const rows = [
  ['device_weight', 'weight', 'blkio.weight_device', undefined],
  ['device_read_iops_sec', 'read_iops_sec', 'blkio.throttle.read_iops_device', 'riops'],
  ['device_write_iops_sec', 'write_iops_sec', 'blkio.throttle.write_iops_device', 'wiops'],
  ['device_read_bytes_sec', 'read_bytes_sec', 'blkio.throttle.read_bps_device', 'rbps'],
  ['device_write_bytes_sec', 'write_bytes_sec', 'blkio.throttle.write_bps_device', 'wbps'],
] as const;
type Row = (typeof rows)[number];
export const deviceParams: readonly string[] = rows.map(([param]) => param);

/** Limits of one device by element; 0 is none. */
interface DeviceLimits {
  readonly path: string;
  readonly limits: Readonly<Partial<Record<Row[1], bigint>>>;
}

const isDevice = (element: XmlElement): boolean => element.name === 'device';

function devicesOf(blkiotune: XmlElement | undefined): DeviceLimits[] {
  return (blkiotune ? elementsOf(blkiotune) : []).filter(isDevice).map((device) => {
    const text = (name: string): string | undefined => {
      const found = childNamed(device, name);
      return found && textOf(found).trim();
    };
    const limits = rows.flatMap(([, element]) => {
      const value = text(element) ?? '';
      return /^\d+$/.test(value) ? [[element, BigInt(value)] as const] : [];
    });
    return { path: text('path') ?? '', limits: Object.fromEntries(limits) };
  });
}

/** `path,value,path,value`. @throws {LibvirtError} */
function parseList(param: string, list: string): (readonly [path: string, value: bigint])[] {
  if (list === '') return [];
  const words = list.split(',');
  const pairs: (readonly [string, bigint])[] = [];
  for (let i = 0; i < words.length; i += 2) {
    const [path = '', value] = words.slice(i, i + 2);
    if (value === undefined || path === '') throw invalidArgument(`unable to parse blkio device '${param}' '${list}'`);
    const most = /_(iops_sec|weight)$/.test(param) ? 2n ** 32n : 2n ** 64n;
    if (!/^\d+$/.test(value) || BigInt(value) >= most)
      throw invalidArgument(`invalid value '${value}' for parameter '${param}' of device '${path}'`);
    pairs.push([path, BigInt(value)]);
  }
  return pairs;
}

/** Takes one parameter into a definition: devices that it names get its values, others keep theirs. @throws {LibvirtError} */
export function setDeviceLimits(domain: Domain, param: string, list: string): void {
  const element = rows.find(([name]) => name === param)![1];
  const devices = new Map(devicesOf(domain.blkiotune).map(({ path, limits }) => [path, limits]));
  for (const [path, value] of parseList(param, list)) devices.set(path, { ...devices.get(path), [element]: value });
  const others = domain.blkiotune ? elementsOf(domain.blkiotune).filter((one) => !isDevice(one)) : [];
  const kept = [...devices].flatMap(([path, limits]) => {
    const parts = rows.flatMap(([, name]) => ((limits[name] ?? 0n) > 0n ? [newElement(name, {}, [String(limits[name])])] : []));
    return parts.length === 0 ? [] : [newElement('device', {}, [newElement('path', {}, [path]), ...parts])];
  });
  if (others.length + kept.length === 0) delete domain.blkiotune;
  else domain.blkiotune = newElement('blkiotune', {}, [...others, ...kept]);
}

/** The parameters that a definition comes to, each with all devices that have such a limit. */
export const deviceLimitParams = ({ blkiotune }: Domain): TypedParam[] =>
  rows.map(([field, element]) => {
    const pairs = devicesOf(blkiotune).flatMap(({ path, limits }) =>
      (limits[element] ?? 0n) > 0n ? [`${path},${limits[element]}`] : [],
    );
    return { field, value: { type: 'string', value: pairs.join(',') } };
  });

/** Whether `domain` limits a device, or `before` did. */
export const limitsDevices = (domain: Domain, before?: Domain): boolean =>
  devicesOf(domain.blkiotune).length > 0 || devicesOf(before?.blkiotune).length > 0;

/** Puts the limits in force that `domain` has, and takes back those that only `before` has. @throws {LibvirtError} for what is no block device, or the kernel refuses */
export async function applyDeviceLimits(daemon: Daemon, group: Group, domain: Domain, before: Domain | undefined): Promise<void> {
  const old = new Map(devicesOf(before?.blkiotune).map(({ path, limits }) => [path, limits]));
  const wanted = new Map(devicesOf(domain.blkiotune).map(({ path, limits }) => [path, limits]));
  for (const path of new Set([...wanted.keys(), ...old.keys()])) {
    const number = await deviceNumber(daemon, path);
    for (const [, element, first, second] of rows) {
      const [value, was] = [wanted.get(path)?.[element] ?? 0n, old.get(path)?.[element] ?? 0n];
      if (value === was) continue;
      const [file, text] =
        group.version === 1
          ? [first, `${number} ${value}`]
          : second === undefined
            ? ['io.weight', `${number} ${value === 0n ? 'default' : value}`]
            : ['io.max', `${number} ${second}=${value === 0n ? 'max' : value}`];
      try {
        await daemon.cgroups.write(`${group.path}/${file}`, text);
      } catch (error) {
        throw systemError('qemu', `Unable to write to '${group.path}/${file}'`, error);
      }
    }
  }
}

async function deviceNumber(daemon: Daemon, path: string): Promise<string> {
  const status = await daemon.host.files.status(path);
  if (!status) throw systemError('qemu', `Unable to stat path: '${path}'`, new Error('No such file or directory'));
  if (status.kind !== 'block')
    throw systemError('qemu', `Path '${path}' must identify a block device`, new Error('Invalid argument'));
  return status.device;
}
