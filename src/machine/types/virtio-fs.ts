// `virtio-fs-pci`: a folder of the host for kernels with virtiofs. QEMU has `vhost-user-fs-pci`, the same to the guest, over another
// process; here the folder is an fsdev, as virtio-9p's.

import { FuseServer } from '../../devices/fuse/server.ts';
import { FsIo, fsModel } from '../../devices/virtio/fs.ts';
import { named, str, uint16 } from '../properties.ts';
import { virtioTypes } from './virtio.ts';

export const virtioFs = virtioTypes({
  name: 'virtio-fs',
  category: 'Storage',
  description: 'a folder of the host (virtiofs)',
  classCode: 0x01_8000,
  vectors: () => 3,
  legacy: false,
  properties: { fsdev: named('fsdev'), tag: str('what the guest mounts'), 'queue-size': uint16(128) },
  parts(_, p) {
    const n = p['queue-size'];
    if (p.tag === undefined || p.tag.length > 36)
      throw new Error('Cannot share a folder: tag accepts up to 36 characters and must be given');
    if (n < 2 || n > 1024 || (n & (n - 1)) !== 0)
      throw new Error(`Cannot use queue-size=${n}: accepted are powers of two from 2 to 1024`);
    return {
      model: fsModel(p.tag, n),
      io(core, services) {
        if (p.fsdev === undefined) throw new Error("Cannot share a folder: property 'fsdev' is not set");
        const folder = services.backends.fsdevs.get(p.fsdev);
        const server = new FuseServer(folder);
        const io = new FsIo(core, server);
        return {
          unsaved: () =>
            server.mounted
              ? `Migration is disabled when export path '${folder.path}' is mounted in the guest using tag '${p.tag}'`
              : undefined,
          drain: () => io.drain(),
          reset: () => io.reset(),
          close: async () => {
            await io.drain();
            io.reset();
          },
        };
      },
    };
  },
});
