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
        const io = new NinepIo(core, new NinepServer(services.backends.fsdevs.get(p.fsdev)));
        return {
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
