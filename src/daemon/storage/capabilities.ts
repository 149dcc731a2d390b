// `pool-capabilities`: kinds of pools and the formats in them (libvirt 9.0, formatstoragecaps).
import { formats } from '../../domain/model/disk.ts';
import { formatXml, newElement, type XmlElement } from '../../domain/xml.ts';

const fileSystems = [
  'auto',
  'ext2',
  'ext3',
  'ext4',
  'ufs',
  'iso9660',
  'udf',
  'gfs',
  'gfs2',
  'vfat',
  'hfs+',
  'xfs',
  'ocfs2',
  'vmfs',
];

interface Kind {
  readonly supported: boolean;
  readonly source?: { readonly standard: string; readonly formats: readonly string[] };
  readonly volumes?: { readonly standard: string; readonly formats: readonly string[] };
}
const files = { standard: 'raw', formats };
const kinds: Readonly<Record<string, Kind>> = {
  dir: { supported: true, volumes: files },
  fs: { supported: true, source: { standard: 'auto', formats: fileSystems }, volumes: files },
  netfs: { supported: true, source: { standard: 'auto', formats: ['auto', 'nfs', 'glusterfs', 'cifs'] }, volumes: files },
  logical: { supported: true, source: { standard: 'lvm2', formats: ['unknown', 'lvm2'] } },
  disk: { supported: false },
  iscsi: { supported: false },
  'iscsi-direct': { supported: false },
  scsi: { supported: false },
  mpath: { supported: false },
  rbd: { supported: false },
  sheepdog: { supported: false },
  gluster: { supported: false },
  zfs: { supported: false },
  vstorage: { supported: false },
};

const options = (
  name: string,
  list: string,
  given: { standard: string; formats: readonly string[] } | undefined,
): XmlElement[] => {
  if (!given) return [];
  const values = given.formats.map((one) => newElement('value', {}, [one]));
  return [
    newElement(name, {}, [newElement('defaultFormat', { type: given.standard }), newElement('enum', { name: list }, values)]),
  ];
};

export function poolCapabilities(): string {
  const pools = Object.entries(kinds).map(([type, kind]) => {
    const parts = [
      ...options('poolOptions', 'sourceFormatType', kind.source),
      ...options('volOptions', 'targetFormatType', kind.volumes),
    ];
    return newElement('pool', { type, supported: kind.supported ? 'yes' : 'no' }, parts.length > 0 ? parts : ['\n  ']);
  });
  return formatXml(newElement('storagepoolCapabilities', {}, pools));
}
