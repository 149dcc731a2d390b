// Regular files below a folder of the host, to read, for the TFTP server: no link and no `..` leads out.

import type { HostFile } from '../../net/host.ts';
import { openFolder } from './folder.ts';

/** The file of these names below `root`; undefined where there is none. Never rejects. */
export async function fileBelow(root: string, names: readonly string[]): Promise<HostFile | undefined> {
  const folder = await openFolder(root, { readOnly: true }).catch(() => undefined);
  if (!folder) return undefined;
  try {
    let node = await folder.root();
    for (const name of names) node = await node.child(name);
    const stat = await node.stat();
    if ((stat.mode & 0o170000) !== 0o100000) throw new Error('It is no regular file');
    const file = await node.open(0);
    return {
      size: Number(stat.size),
      read: (offset, into) => file.read(offset, into),
      async close() {
        await file.close();
        await folder.close();
      },
    };
  } catch {
    await folder.close();
    return undefined;
  }
}
