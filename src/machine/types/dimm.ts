// `pc-dimm`: a module of memory, for a machine with room for more (`-m 1G,slots=2,maxmem=4G`).

import { struct } from '../../bits/struct.ts';
import { deviceType } from '../device-type.ts';
import { DIMM } from '../dimms.ts';
import { int32, named, uint32, uint64 } from '../properties.ts';

/** Nothing but a name in saved machines: the guest's memory suits only where the same modules lie at the same places. */
const placeLayout = struct({ slot: 'u32' }, { name: DIMM, version: 1 });

export const dimm = deviceType({
  name: DIMM,
  bus: 'memory',
  description: 'DIMM memory module',
  category: 'Misc',
  parents: ['device'],
  properties: {
    memdev: { ...named('memory back-end', ''), type: 'link<memory-backend>' },
    node: uint32(0),
    addr: uint64(0),
    slot: int32(-1),
    /** Of the back-end: whoever makes the device knows that, users cannot say it. */
    size: uint64(0),
  },
  build(ctx, p) {
    ctx.onRemove(ctx.bus.add(ctx.path, p));
    const s = ctx.arena.alloc(placeLayout, `0x${p.addr.toString(16)}+0x${p.size.toString(16)}`);
    return {
      reset() {
        s.slot = p.slot;
      },
    };
  },
});
