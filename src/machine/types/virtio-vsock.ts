// `virtio-vsock-pci`: sockets between guest and host, over unix sockets of the host. QEMU's `vhost-vsock-pci` needs the host's kernel and
// its `vhost-user-vsock-pci` another process; to the guest all are the same. `guest-cid` is QEMU's name, `uds-path` vhost-device-vsock's.

import { vsockModel } from '../../devices/virtio/vsock.ts';
import { VsockIo } from '../../devices/virtio/vsock-io.ts';
import { str, uint64 } from '../properties.ts';
import { virtioTypes } from './virtio.ts';

export const virtioVsock = virtioTypes({
  name: 'virtio-vsock',
  category: 'Misc',
  description: 'sockets between guest and host, over unix sockets',
  classCode: 0x07_8000,
  vectors: () => 4,
  legacy: false,
  properties: {
    'guest-cid': uint64(0, "the guest's address, 3 or more"),
    'uds-path': str('unix socket by which the host connects; the guest reaches PATH_PORT'),
  },
  parts(_, p) {
    const cid = p['guest-cid'];
    if (cid < 3 || cid > 0xffff_fffe) throw new Error(`Cannot use guest-cid=${cid}: accepted are 3 to ${0xffff_fffe}`);
    return {
      model: vsockModel(cid),
      io(core, services) {
        const path = p['uds-path'];
        if (path === undefined) throw new Error("Cannot connect guest and host: property 'uds-path' is not set");
        if (!services.sockets) throw new Error('Cannot connect guest and host: this host has no unix sockets');
        // Also that of a port of ten digits has to fit into a socket's address.
        if (new TextEncoder().encode(path).length > 96)
          throw new Error(`Cannot use uds-path=${path}: accepted are up to 96 bytes`);
        const io = new VsockIo(core, { cid, path, sockets: services.sockets, after: services.after });
        return {
          ready: io.ready,
          resumed: () => io.resumed(),
          reset: () => io.reset(),
          close: () => io.close(),
        };
      },
    };
  },
});
