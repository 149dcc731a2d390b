// Throttles of disks: `<iotune>`, the typed parameters and QMP's block_set_io_throttle are one table (libvirt 9.0).
import type { Disk } from '../../domain/model/disk.ts';
import type { TypedParam } from '../../rpc/libvirt/types.ts';
import type { Guest } from './guest.ts';

/** Name in XML and of the parameter, and QMP's; those with a length come last. */
const throttles = [
  ['total_bytes_sec', 'bps'],
  ['read_bytes_sec', 'bps_rd'],
  ['write_bytes_sec', 'bps_wr'],
  ['total_iops_sec', 'iops'],
  ['read_iops_sec', 'iops_rd'],
  ['write_iops_sec', 'iops_wr'],
  ['total_bytes_sec_max', 'bps_max'],
  ['read_bytes_sec_max', 'bps_rd_max'],
  ['write_bytes_sec_max', 'bps_wr_max'],
  ['total_iops_sec_max', 'iops_max'],
  ['read_iops_sec_max', 'iops_rd_max'],
  ['write_iops_sec_max', 'iops_wr_max'],
  ['size_iops_sec', 'iops_size'],
  ['total_bytes_sec_max_length', 'bps_max_length'],
  ['read_bytes_sec_max_length', 'bps_rd_max_length'],
  ['write_bytes_sec_max_length', 'bps_wr_max_length'],
  ['total_iops_sec_max_length', 'iops_max_length'],
  ['read_iops_sec_max_length', 'iops_rd_max_length'],
  ['write_iops_sec_max_length', 'iops_wr_max_length'],
] as const;

type IoTune = Record<string, string | undefined>;
const tuneOf = (disk: Disk): IoTune => (disk.iotune ?? {}) as IoTune;

/** The QOM path or id under which the emulator knows a drive. */
export const driveId = (disk: Disk): string => {
  const alias = disk.alias?.name ?? '';
  return disk.target?.bus === 'virtio' ? `/machine/peripheral/${alias}/virtio-backend` : alias;
};

/** Makes the emulator keep the throttles of a disk. */
export async function applyIoTune(guest: Guest, disk: Disk): Promise<void> {
  const tune = tuneOf(disk);
  const values = throttles.flatMap(([xml, qmp]) => {
    const value = Number(tune[xml] ?? 0);
    // A length without its maximum is refused by the emulator, and 0 too.
    return qmp.endsWith('_length') && value === 0 ? [] : [[qmp, value] as const];
  });
  const group = tune['group_name'];
  await guest.qmp('block_set_io_throttle', {
    id: driveId(disk),
    ...Object.fromEntries(values),
    ...(group !== undefined && { group }),
  });
}

/** The throttles as typed parameters, in libvirt's order. */
export function tuneParams(disk: Disk): TypedParam[] {
  const tune = tuneOf(disk);
  const row = (name: string): TypedParam => ({ field: name, value: { type: 'ullong', value: BigInt(tune[name] ?? 0) } });
  const rows = throttles.map(([name]) => row(name));
  const group: TypedParam = { field: 'group_name', value: { type: 'string', value: tune['group_name'] ?? '' } };
  return [...rows.slice(0, 13), group, ...rows.slice(13)];
}

/** Takes parameters into a disk's `<iotune>`: of a total and its parts, what is given replaces the other. */
export function setTune(disk: Disk, params: readonly TypedParam[]): void {
  const tune: IoTune = { ...tuneOf(disk) };
  for (const { field, value } of params) {
    if (field === 'group_name') tune[field] = String(value.value);
    else tune[field] = String(value.value);
    const total = /^total_(bytes|iops)_sec(.*)$/.exec(field);
    const part = /^(?:read|write)_(bytes|iops)_sec(.*)$/.exec(field);
    if (total) for (const way of ['read', 'write']) delete tune[`${way}_${total[1]}_sec${total[2]}`];
    if (part) delete tune[`total_${part[1]}_sec${part[2]}`];
  }
  const kept = Object.entries(tune).filter(([name, value]) => value !== undefined && (name === 'group_name' || value !== '0'));
  if (kept.length === 0) delete disk.iotune;
  else disk.iotune = Object.fromEntries(kept) as NonNullable<Disk['iotune']>;
}
