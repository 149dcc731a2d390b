// The images that `nonroot run` and `nonroot pull` know by name, as data: Debian packages, the files to take of them, and how to boot.

/** An image: two packages, and how its kernel is started. */
export type ImageRow = {
  readonly name: string;
  readonly description: string;
  /** Debian's name of the architecture; `guest` is the emulator's. */
  readonly arch: string;
  readonly guest: 'x86_64' | 'i386';
  /** A package that holds a kernel, or depends on the one that does. */
  readonly kernel: string;
  readonly busybox: string;
  /** Drivers to take along with what they need; those that the kernel has built in or not at all are skipped. */
  readonly modules: readonly string[];
  /** Kernel command line. */
  readonly append: string;
};

const VIRTIO = [
  'virtio_pci',
  'virtio_mmio',
  'virtio_net',
  'virtio_blk',
  'virtio_scsi',
  'virtio_rng',
  'virtio_console',
  'virtio_balloon',
  'vmw_vsock_virtio_transport',
  'virtiofs',
  '9pnet_virtio',
  '9p',
  'sd_mod',
  'sr_mod',
  'isofs',
];
const PC = [
  'ata_piix',
  'ahci',
  'nvme',
  'e1000',
  'e1000e',
  '8139cp',
  'floppy',
  'ext4',
  'loop',
  'overlay',
  'squashfs',
  'vfat',
  'nls_ascii',
  'nls_cp437',
];
/** What only kernels for PCs have drivers of. */
const OLD_PC = ['parport_pc', 'lp', 'pvpanic_mmio', 'pvpanic_pci'];
const APPEND = 'console=ttyS0 quiet panic=-1';

/** Every image by name. The first is the default. */
export const catalog: readonly ImageRow[] = [
  {
    name: 'debian-cloud',
    description: "Debian's kernel for cloud machines, amd64, with busybox",
    arch: 'amd64',
    guest: 'x86_64',
    kernel: 'linux-image-cloud-amd64',
    busybox: 'busybox-static',
    modules: [...VIRTIO, ...PC],
    append: APPEND,
  },
  {
    name: 'debian-amd64',
    description: "Debian's kernel for PCs, amd64, with busybox",
    arch: 'amd64',
    guest: 'x86_64',
    kernel: 'linux-image-amd64',
    busybox: 'busybox-static',
    modules: [...VIRTIO, ...PC, ...OLD_PC, 'kvm_amd', 'kvm_intel'],
    append: APPEND,
  },
  {
    name: 'debian-i386',
    description: "Debian's kernel for 32-bit PCs, i386, with busybox",
    arch: 'i386',
    guest: 'i386',
    kernel: 'linux-image-686',
    busybox: 'busybox-static',
    modules: [...VIRTIO, ...PC],
    append: APPEND,
  },
];

/** The default guest of `nonroot run`. */
export const defaultImage: ImageRow = catalog[0]!;

/**
 * An image by name.
 * @throws Error that lists the names there are
 */
export function findImage(name: string): ImageRow {
  const row = catalog.find((image) => image.name === name);
  if (!row) throw new Error(`Cannot find image "${name}": accepted are ${catalog.map((image) => image.name).join(', ')}`);
  return row;
}
