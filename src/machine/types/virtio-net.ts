// `virtio-net-pci`: a network card for the guest over a netdev.

import { NetFeature, type NetOptions, netLayout, netModel } from '../../devices/virtio/net.ts';
import { NetIo } from '../../devices/virtio/net-io.ts';
import { guestMac, takeNetdev } from '../netdevs.ts';
import { bool, choice, int32, macaddr, named, uint16 } from '../properties.ts';
import { virtioTypes } from './virtio.ts';

/** Features by QEMU's properties, all on. */
const switches = {
  csum: NetFeature.checksum,
  guest_csum: NetFeature.guestChecksum,
  guest_tso4: NetFeature.guestTso4,
  guest_tso6: NetFeature.guestTso6,
  guest_ecn: NetFeature.guestEcn,
  host_tso4: NetFeature.hostTso4,
  host_tso6: NetFeature.hostTso6,
  host_ecn: NetFeature.hostEcn,
  mrg_rxbuf: NetFeature.mergeable,
  status: NetFeature.status,
  ctrl_vq: NetFeature.ctrlQueue,
  ctrl_rx: NetFeature.ctrlRx,
  ctrl_vlan: NetFeature.ctrlVlan,
  ctrl_rx_extra: NetFeature.ctrlRxExtra,
  ctrl_mac_addr: NetFeature.ctrlMac,
  ctrl_guest_offloads: NetFeature.ctrlGuestOffloads,
  guest_announce: NetFeature.guestAnnounce,
} as const;
type Switch = keyof typeof switches;
const on = Object.fromEntries(Object.keys(switches).map((name) => [name, bool(true)])) as Record<Switch, ReturnType<typeof bool>>;

export const virtioNet = virtioTypes({
  name: 'virtio-net',
  category: 'Network',
  bootRom: 'efi-virtio.rom',
  description: 'a network card',
  classCode: 0x02_0000,
  vectors: (model) => model.queues.length + 1,
  legacy: true,
  properties: {
    ...on,
    netdev: named('netdev', 'ID of a netdev to use as a backend'),
    mac: macaddr(),
    bootindex: int32(-1),
    mq: bool(false),
    rx_queue_size: uint16(256),
    tx_queue_size: uint16(256),
    host_mtu: uint16(0),
    speed: int32(-1),
    duplex: choice(['', 'half', 'full'], ''),
    tx: choice(['', 'bh', 'timer'], '', 'str', 'accepted; packets go at once'),
  },
  parts(ctx, p) {
    for (const n of [p.rx_queue_size, p.tx_queue_size])
      if (n < 256 || n > 1024 || (n & (n - 1)) !== 0)
        throw new Error(`Cannot use a queue of ${n} entries: accepted are powers of two from 256 to 1024`);
    let features = NetFeature.mac;
    for (const [name, bit] of Object.entries(switches)) if (p[name as Switch]) features |= bit;
    if (p.host_mtu > 0) features |= NetFeature.mtu;
    if (p.mq) features |= NetFeature.multiqueue;
    const options: NetOptions = {
      mac: p.mac ?? guestMac(ctx.ordinal),
      pairs: p.mq ? Math.max(1, ctx.cpus) : 1,
      rxQueueSize: p.rx_queue_size,
      txQueueSize: p.tx_queue_size,
      mtu: p.host_mtu,
      speed: p.speed,
      duplex: p.duplex === 'full' ? 1 : p.duplex === 'half' ? 0 : 0xff,
      features,
    };
    const s = ctx.arena.alloc(netLayout, ctx.name);
    return {
      model: netModel(s, options),
      bootNode: 'ethernet/ethernet-phy@0',
      mac: options.mac,
      io(core, services) {
        if (p.netdev === undefined) return {};
        const netdev = takeNetdev(services.backends, p.netdev, ctx.path);
        const io = new NetIo(core, s, netdev.port, options.pairs);
        netdev.setLink = (up) => io.setLink(up);
        return {
          drain: async () => io.drain(),
          reset: () => io.reset(),
          close: () => {
            io.close();
            netdev.user = netdev.setLink = undefined;
          },
        };
      },
    };
  },
});
