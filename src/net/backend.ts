// The seam between a network device and what carries its frames: QEMU's `-netdev`.

/**
 * What a packet still lacks where both ends of a cable know how to do without: its TCP or UDP checksum, which covers the frame from
 * `checksumStart` on and belongs at `checksumOffset` from there (the field holds the pseudo-header's sum), and, where `gsoSize` is not
 * 0, its division into segments with that many bytes of payload.
 */
export interface PacketOffload {
  readonly checksumStart: number;
  readonly checksumOffset: number;
  readonly gsoSize: number;
}

/** What of that a guest's driver takes. */
export interface GuestOffloads {
  readonly checksum: boolean;
  readonly tso4: boolean;
  readonly tso6: boolean;
}
export const noOffloads: GuestOffloads = { checksum: false, tso4: false, tso6: false };

/**
 * One end of a virtual cable. Frames are Ethernet II from the destination address on, without FCS, 14 bytes or longer.
 * A frame belongs to the caller again when `send` or `receive` returns: who keeps it copies it.
 */
export interface NetBackend {
  /** Takes a frame from the guest. Never throws, whatever the bytes; a frame that can't be carried is dropped. */
  send(frame: Uint8Array, offload?: PacketOffload): void;
  /** Gets the frames for the guest. Set by the device; frames before that are dropped. It may call `send` at once. */
  receive: (frame: Uint8Array, offload?: PacketOffload) => void;
  /**
   * Tells what the guest takes unfinished. A back-end that has this takes unfinished packets itself; to others only whole frames are
   * sent.
   */
  offloads?: (guest: GuestOffloads) => void;
  /** Ends all that the back-end holds of the host: sockets, timers. Frames afterwards are dropped. */
  close(): void;
}

/** Longest frame that a back-end carries: a 64 KiB packet with its Ethernet and VLAN headers. */
export const maxFrame = 65_536 + 18;
