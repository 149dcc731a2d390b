// The virtual Ethernet segment as its router sees it: neighbours, ARP, sending of IP packets with fragmentation.
// RFC 826 (ARP); RFC 4861 and 2464 (neighbour discovery, multicast MACs); what is asked of the guest, not of the host's network.
import { type Address, addressKey, type Family, familyOf, isMulticast, type Mac } from './address.ts';
import { type GuestOffloads, maxFrame, noOffloads, type PacketOffload } from './backend.ts';
import { get16, put16, sameBytes } from './bytes.ts';
import { fold, pseudoSum, sum16 } from './checksum.ts';
import { etherHeader, etherType, ipHeader, protocol, writeFragmentHeader, writeIp } from './ip.ts';

export const broadcastMac: Mac = new Uint8Array(6).fill(255);

/** Limits on what guests can make the table hold. */
const limits = { neighbours: 256, held: 16, askEvery: 1000 } as const;

interface Neighbour {
  mac: Mac | undefined;
  /** Frames that wait for the MAC. */
  held: { readonly frame: Uint8Array; readonly offload: PacketOffload | undefined }[];
  asked: number;
}

export interface LinkOptions {
  /** Largest IP packet of a frame, in bytes. */
  readonly mtu: number;
  now(): number;
  /** Sends a frame to the guest. */
  deliver(frame: Uint8Array, offload?: PacketOffload): void;
  /** The router's own address that asks for a neighbour of this family. */
  asker(family: Family): Address;
  /** The address is one of the router's. */
  owns(address: Address): boolean;
  /** Start of the datagrams' identifications. */
  readonly firstId: number;
}

/** MAC of one of the router's addresses, locally administered, as QEMU's user network forms them. */
export const ownMac = (a: Address): Mac =>
  a.length === 4 ? Uint8Array.of(0x52, 0x55, ...a) : Uint8Array.of(0x52, 0x56, 0, ...a.subarray(13));

/** Options of one packet that is sent. */
export interface SendOptions {
  readonly hopLimit?: number;
  /** Bytes of payload of each segment, of a TCP packet that is longer than the cable takes and that the guest divides. */
  readonly segment?: number | undefined;
  /** Destination MAC, where the guest can't be asked for it. */
  readonly mac?: Mac;
}

export class Link {
  readonly mtu: number;
  /** What the guest does itself. */
  guest: GuestOffloads = noOffloads;
  readonly #o: LinkOptions;
  readonly #neighbours = new Map<string, Neighbour>();
  #id: number;

  constructor(options: LinkOptions) {
    this.#o = options;
    this.mtu = options.mtu;
    this.#id = options.firstId;
  }

  /** A frame with `length` bytes behind its IP header, which begin at `bodyAt`. */
  frame(family: Family, length: number): Uint8Array {
    return new Uint8Array(etherHeader + ipHeader(family) + length);
  }

  bodyAt(family: Family): number {
    return etherHeader + ipHeader(family);
  }

  /** As `send`, with the upper layer's checksum put in at `checksumAt` of the body first. */
  sendSummed(frame: Uint8Array, src: Address, dst: Address, proto: number, checksumAt: number, options: SendOptions = {}): void {
    const body = this.bodyAt(familyOf(src));
    const pseudo = proto === protocol.icmp ? 0 : pseudoSum(src, dst, proto, frame.length - body);
    if (this.guest.checksum && (proto === protocol.tcp || proto === protocol.udp) && this.#whole(frame, src, options)) {
      put16(frame, body + checksumAt, 0xffff ^ fold(pseudo));
      const gsoSize = frame.length - etherHeader > this.mtu ? (options.segment ?? 0) : 0;
      this.send(frame, src, dst, proto, options, { checksumStart: body, checksumOffset: checksumAt, gsoSize });
      return;
    }
    put16(frame, body + checksumAt, 0);
    const sum = fold(sum16(frame, body, frame.length, pseudo));
    // A UDP checksum of zero means that there is none (RFC 768).
    put16(frame, body + checksumAt, sum === 0 && proto === protocol.udp ? 0xffff : sum);
    this.send(frame, src, dst, proto, options);
  }

  /** The packet goes as it is: it fits the cable, or the guest divides it. */
  #whole(frame: Uint8Array, src: Address, options: SendOptions): boolean {
    if (frame.length - etherHeader <= this.mtu) return true;
    return options.segment !== undefined && (src.length === 4 ? this.guest.tso4 : this.guest.tso6);
  }

  /** Fills in the headers of a frame from `frame` and sends it, in fragments where it is too long for the cable. */
  send(frame: Uint8Array, src: Address, dst: Address, proto: number, options: SendOptions = {}, offload?: PacketOffload): void {
    const family = familyOf(src);
    const body = this.bodyAt(family);
    const length = frame.length - body;
    const hopLimit = options.hopLimit ?? 64;
    if (length + ipHeader(family) > 65_535) return;
    const id = (this.#id = (this.#id + 1) >>> 0);
    if (offload || length + ipHeader(family) <= this.mtu) {
      writeIp(frame, etherHeader, length, { src, dst, protocol: proto, hopLimit, id: id & 0xffff });
      this.#sendTo(frame, src, dst, options.mac, offload);
      return;
    }
    const extra = family === 4 ? 0 : 8;
    const step = (this.mtu - ipHeader(family) - extra) & ~7;
    for (let offset = 0; offset < length; offset += step) {
      const n = Math.min(step, length - offset);
      const fragment = { id: family === 4 ? id & 0xffff : id, offset, more: offset + n < length };
      const part = this.frame(family, extra + n);
      writeIp(part, etherHeader, extra + n, { src, dst, protocol: proto, hopLimit, fragment });
      if (extra > 0) writeFragmentHeader(part, body, proto, fragment);
      part.set(frame.subarray(body + offset, body + offset + n), body + extra);
      this.#sendTo(part, src, dst, options.mac);
    }
  }

  /** The guest's `address` is at `mac`: frames that wait for it go. The caller says that the address is one of the cable's. */
  learn(address: Address, mac: Mac): void {
    if ((mac[0] & 1) !== 0 || this.#o.owns(address)) return;
    const key = addressKey(address);
    const known = this.#neighbours.get(key);
    if (known?.mac !== undefined && sameBytes(known.mac, mac)) return;
    const held = known?.held ?? [];
    this.#remember(key, { mac: mac.slice(), held: [], asked: 0 });
    for (const { frame, offload } of held) {
      frame.set(mac, 0);
      this.#o.deliver(frame, offload);
    }
  }

  /** Answers ARP for the router's addresses and learns from all of it. `b` is the frame. `onCable`: the address may be a guest's. */
  inputArp(b: Uint8Array, onCable: (a: Address) => boolean): void {
    const p = b.subarray(etherHeader);
    if (p.length < 28 || get16(p, 0) !== 1 || get16(p, 2) !== etherType.ipv4 || p[4] !== 6 || p[5] !== 4) return;
    const [op, mac, sender, target] = [get16(p, 6), p.subarray(8, 14), p.subarray(14, 18), p.subarray(24, 28)];
    if (onCable(sender)) this.learn(sender, mac);
    if (op === 1 && this.#o.owns(target)) this.#arp(2, mac, target, mac, sender);
  }

  #arp(op: 1 | 2, to: Mac, src: Address, targetMac: Mac, target: Address): void {
    const b = new Uint8Array(etherHeader + 28);
    const own = ownMac(src);
    b.set(to, 0);
    b.set(own, 6);
    put16(b, 12, etherType.arp);
    b.set([0, 1, 8, 0, 6, 4, 0, op], 14);
    b.set(own, 22);
    b.set(src, 28);
    b.set(targetMac, 32);
    b.set(target, 38);
    this.#o.deliver(b);
  }

  #sendTo(frame: Uint8Array, src: Address, dst: Address, mac: Mac | undefined, offload?: PacketOffload): void {
    if (frame.length > maxFrame) return;
    put16(frame, 12, src.length === 4 ? etherType.ipv4 : etherType.ipv6);
    frame.set(ownMac(src), 6);
    const to = mac ?? this.#macOf(dst);
    if (to !== undefined) {
      frame.set(to, 0);
      this.#o.deliver(frame, offload);
      return;
    }
    const key = addressKey(dst);
    const n = this.#neighbours.get(key) ?? { mac: undefined, held: [], asked: Number.NEGATIVE_INFINITY };
    if (n.held.length < limits.held) n.held.push({ frame, offload });
    const now = this.#o.now();
    const ask = now - n.asked >= limits.askEvery;
    if (ask) n.asked = now;
    this.#remember(key, n);
    if (ask) this.#ask(dst);
  }

  #macOf(dst: Address): Mac | undefined {
    if (dst.length === 4 && dst[0] === 255) return broadcastMac;
    if (isMulticast(dst)) {
      return dst.length === 4
        ? Uint8Array.of(1, 0, 0x5e, dst[1] & 0x7f, dst[2], dst[3])
        : Uint8Array.of(0x33, 0x33, ...dst.subarray(12));
    }
    return this.#neighbours.get(addressKey(dst))?.mac;
  }

  #remember(key: string, n: Neighbour): void {
    this.#neighbours.delete(key);
    this.#neighbours.set(key, n);
    if (this.#neighbours.size > limits.neighbours) this.#neighbours.delete(this.#neighbours.keys().next().value!);
  }

  #ask(target: Address): void {
    const asker = this.#o.asker(familyOf(target));
    if (target.length === 4) return this.#arp(1, broadcastMac, asker, new Uint8Array(6), target);
    this.sendNeighbour(135, asker, solicitedNode(target), target, 0);
  }

  /** A neighbour solicitation (135) or advertisement (136) of `src`, with its MAC as the option (RFC 4861, sections 4.3, 4.4). */
  sendNeighbour(type: 135 | 136, src: Address, dst: Address, target: Address, flags: number, mac?: Mac): void {
    const frame = this.frame(6, 32);
    const at = this.bodyAt(6);
    frame[at] = type;
    frame[at + 4] = flags;
    frame.set(target, at + 8);
    frame[at + 24] = type === 135 ? 1 : 2;
    frame[at + 25] = 1;
    frame.set(ownMac(type === 135 ? src : target), at + 26);
    this.sendSummed(frame, src, dst, protocol.icmpv6, 2, { hopLimit: 255, mac });
  }
}

/** ff02::1:ffXX:XXXX of an address (RFC 4291, section 2.7.1). */
export function solicitedNode(a: Address): Address {
  const s = new Uint8Array(16);
  s.set([0xff, 2]);
  s.set([1, 0xff, a[13], a[14], a[15]], 11);
  return s;
}
