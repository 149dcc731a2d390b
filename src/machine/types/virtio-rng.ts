// `virtio-rng-pci`: entropy for the guest from an rng object, or from the host.

import { rngIo, rngModel } from '../../devices/virtio/rng.ts';
import { named, uint32, uint64 } from '../properties.ts';
import { virtioTypes } from './virtio.ts';

export const virtioRng = virtioTypes({
  name: 'virtio-rng',
  category: 'Misc',
  description: 'entropy for the guest',
  classCode: 0x00_ff00,
  vectors: () => 2,
  legacy: true,
  properties: {
    rng: named('rng object', 'ID of an rng object; the host’s entropy when not given'),
    'max-bytes': uint64(Number.MAX_SAFE_INTEGER),
    period: uint32(65536),
  },
  parts: (_, p) => ({
    model: rngModel,
    io(core, services) {
      const backend = p.rng === undefined ? undefined : services.backends.rngs.get(p.rng);
      const random = backend ? (n: number) => backend.bytes(n) : services.random;
      const limited = p['max-bytes'] < Number.MAX_SAFE_INTEGER;
      return rngIo(core, random, limited ? { bytes: p['max-bytes'], period: p.period, after: services.after } : undefined);
    },
  }),
});
