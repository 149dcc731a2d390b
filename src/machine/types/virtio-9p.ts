// `virtio-9p-pci`: a folder of the host for the guest to mount.

import { NinepServer } from '../../devices/ninep/server.ts';
import { NinepIo, ninepModel } from '../../devices/virtio/ninep.ts';
import { named, str } from '../properties.ts';
import { virtioTypes } from './virtio.ts';

export const virtio9p = virtioTypes({
  name: 'virtio-9p',
  category: 'Storage',
  description: 'a folder of the host (9P2000.L)',
  classCode: 0x00_0200,
  vectors: () => 2,
  legacy: true,
  properties: { fsdev: named('fsdev'), mount_tag: str('what the guest mounts') },
  parts(_, p) {
    if (p.mount_tag === undefined || p.mount_tag.length > 32)
      throw new Error('Cannot share a folder: mount_tag accepts up to 32 characters and must be given');
    return {
      model: ninepModel(p.mount_tag),
      io(core, services) {
        if (p.fsdev === undefined) throw new Error("Cannot share a folder: property 'fsdev' is not set");
        const folder = services.backends.fsdevs.get(p.fsdev);
        const server = new NinepServer(folder);
        const io = new NinepIo(core, server);
        return {
          // What the guest has open is known here only.
          unsaved: () =>
            server.size === 0
              ? undefined
              : `Migration is disabled when VirtFS export path '${folder.path}' is mounted in the guest using mount_tag '${p.mount_tag}'`,
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
