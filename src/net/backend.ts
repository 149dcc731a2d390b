// The seam between a network device and what carries its frames: QEMU's `-netdev`.

/**
 * One end of a virtual cable. Frames are Ethernet II from the destination address on, without FCS, 14 bytes or longer.
 * A frame belongs to the caller again when `send` or `receive` returns: who keeps it copies it.
 */
export interface NetBackend {
  /** Takes a frame from the guest. Never throws, whatever the bytes; a frame that can't be carried is dropped. */
  send(frame: Uint8Array): void;
  /** Gets the frames for the guest. Set by the device; frames before that are dropped. It may call `send` at once. */
  receive: (frame: Uint8Array) => void;
  /** Ends all that the back-end holds of the host: sockets, timers. Frames afterwards are dropped. */
  close(): void;
}

/** Longest frame that a back-end carries: a 64 KiB packet with its Ethernet and VLAN headers. */
export const maxFrame = 65_536 + 18;
