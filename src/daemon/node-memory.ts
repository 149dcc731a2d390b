// Memory of the host's NUMA nodes, and its pools of huge pages (Linux, Documentation/admin-guide/mm/hugetlbpage.rst). libvirt 9.0's answers.
import { libvirtError } from '../rpc/libvirt/errors.ts';
import type { DaemonHost, HostCell } from './host.ts';

/** KiB. */
export const SMALL_PAGE = 4;
/** A flag of `nodeAllocPages`: so many pages altogether, not so many more. */
export const ALLOC_SET = 1;

const ALL_CELLS = -1;

/** The host's nodes from one on. @throws LibvirtError when there is no such node */
export function cellsFrom({ facts }: DaemonHost, start: number): readonly HostCell[] {
  const cells = facts.cells();
  if (start >= cells.length) {
    throw libvirtError('internalError', 'none', `start cell ${start} out of range (0-${cells.length - 1})`);
  }
  if (start < ALL_CELLS) throw libvirtError('operationFailed', 'none', `NUMA node ${start} is not available`);
  return cells.slice(Math.max(0, start));
}

/** `size` in KiB. @throws LibvirtError for a size that the node has no pages of */
export function freePages(cell: HostCell, size: number): number {
  if (size === SMALL_PAGE) return Math.floor(cell.free / SMALL_PAGE);
  const found = cell.hugePages.find((one) => one.size === size);
  if (!found) throw libvirtError('operationFailed', 'none', `page size ${size} is not available on node ${cell.id}`);
  return found.free;
}

/** Changes a node's pool of huge pages. @throws LibvirtError when the kernel does not have or give them */
export async function allocatePages(
  { files, facts }: DaemonHost,
  cell: HostCell,
  size: number,
  count: number,
  add: boolean,
): Promise<void> {
  if (size === SMALL_PAGE) throw libvirtError('operationUnsupported', 'none', "system pages pool can't be modified");
  const pool = (one: HostCell | undefined): HostCell['hugePages'][number] | undefined =>
    one?.hugePages.find((pages) => pages.size === size);
  const now = pool(cell);
  if (!now) throw libvirtError('operationFailed', 'none', `page size ${size} is not available`);
  const wanted = add ? now.count + count : count;
  if (wanted === now.count) return;
  const path = `/sys/devices/system/node/node${cell.id}/hugepages/hugepages-${size}kB/nr_hugepages`;
  const file = await files.open(path, 'write');
  try {
    await file.write(0, new TextEncoder().encode(String(wanted)));
  } finally {
    await file.close();
  }
  const got = pool(facts.cells().find((one) => one.id === cell.id))?.count ?? 0;
  if (got !== wanted) {
    throw libvirtError('operationFailed', 'none', `Unable to allocate ${wanted} pages. Allocated only ${got}`);
  }
}
