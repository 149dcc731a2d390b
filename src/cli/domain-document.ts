// The `<domain>` that `nonroot create` makes of its options. libvirt "Domain XML format".
import { parseSize } from './img-options.ts';

export interface NewDomain {
  readonly name: string;
  /** KiB. */
  readonly memory: number;
  readonly cpus: number;
  readonly machine: string;
  readonly emulator: string | undefined;
  readonly disks: readonly NewDisk[];
  readonly cdrom: string | undefined;
  readonly kernel: string | undefined;
  readonly initrd: string | undefined;
  readonly append: string | undefined;
  /** `user`, `none`, or a network's name. */
  readonly network: string;
  readonly graphics: boolean;
}
export interface NewDisk {
  readonly path: string;
  readonly format: 'raw' | 'qcow2';
}

const entities: Readonly<Record<string, string>> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', "'": '&apos;' };
const escaped = (text: string): string => text.replace(/[&<>']/g, (c) => entities[c]!);
const leaf = (name: string, text: string | undefined): string =>
  text === undefined ? '' : `<${name}>${escaped(text)}</${name}>`;

/** Memory as `512M` or `2G`; a bare number is MiB. In KiB. */
export const memoryOf = (text: string): number => Math.ceil(parseSize(/^\d+$/.test(text) ? `${text}M` : text) / 1024);

export function domainDocument(given: NewDomain): string {
  const disks = given.disks.map(
    ({ path, format }, index) =>
      `<disk type='file' device='disk'><driver name='qemu' type='${format}'/><source file='${escaped(path)}'/><target dev='vd${String.fromCharCode(97 + index)}' bus='virtio'/></disk>`,
  );
  const q35 = given.machine.includes('q35');
  const cdrom =
    given.cdrom === undefined
      ? ''
      : `<disk type='file' device='cdrom'><driver name='qemu' type='raw'/><source file='${escaped(given.cdrom)}'/><target dev='${q35 ? 'sda' : 'hdc'}' bus='${q35 ? 'sata' : 'ide'}'/><readonly/></disk>`;
  const card =
    given.network === 'none'
      ? ''
      : given.network === 'user'
        ? "<interface type='user'><model type='virtio'/></interface>"
        : `<interface type='network'><source network='${escaped(given.network)}'/><model type='virtio'/></interface>`;
  const boot = given.cdrom === undefined ? ['hd'] : ['cdrom', 'hd'];
  return [
    `<domain type='qemu'>${leaf('name', given.name)}<memory unit='KiB'>${given.memory}</memory><vcpu>${given.cpus}</vcpu>`,
    `<os><type arch='x86_64' machine='${escaped(given.machine)}'>hvm</type>${leaf('kernel', given.kernel)}${leaf('initrd', given.initrd)}${leaf('cmdline', given.append)}`,
    `${boot.map((dev) => `<boot dev='${dev}'/>`).join('')}</os><features><acpi/><apic/></features>`,
    `<devices>${leaf('emulator', given.emulator)}${disks.join('')}${cdrom}${card}<serial type='pty'/>`,
    "<controller type='usb' model='none'/>",
    given.graphics ? "<graphics type='vnc' port='-1' autoport='yes'/><video><model type='vga'/></video>" : '',
    '</devices></domain>\n',
  ].join('');
}
