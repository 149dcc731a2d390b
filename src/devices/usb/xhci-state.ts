// What an xHCI controller keeps in shared memory, and the numbers of its specification. eXtensible Host Controller Interface for Universal Serial Bus, revision 1.2.
import { struct, type ViewOf } from '../../bits/struct.ts';

export const SLOTS = 64;
export const INTERRUPTERS = 16;
/** Ports of both kinds together. */
export const PORTS_MAX = 30;
/** Endpoint contexts of a slot, by device context index 1 to 31. */
export const ENDPOINTS = 31;

const interrupterLayout = struct({
  iman: 'u32',
  imod: 'u32',
  erstsz: 'u32',
  /** Guest-physical addresses, as numbers. */
  erstba: 'f64',
  erdp: 'f64',
  /** The event ring's segment, and where the next event goes. */
  start: 'f64',
  size: 'u32',
  index: 'u32',
  cycle: 'u32',
});
const endpointLayout = struct({
  /** In use: configured by the guest. */
  on: 'u8',
  /** `EpState`. */
  state: 'u8',
  type: 'u8',
  cycle: 'u8',
  maxPacket: 'u16',
  dequeue: 'f64',
  context: 'f64',
});
const slotLayout = struct({
  on: 'u8',
  addressed: 'u8',
  port: 'u8',
  interrupter: 'u8',
  route: 'u32',
  context: 'f64',
  /** Bits of endpoints whose doorbells rang (by device context index). */
  rung: ['i32', 1],
  endpoints: [endpointLayout, ENDPOINTS + 1],
});

export const xhciLayout = struct(
  {
    command: 'u32',
    status: 'u32',
    notification: 'u32',
    config: 'u32',
    crcr: 'f64',
    dcbaap: 'f64',
    /** The command ring: running, place, cycle. */
    ringOn: 'u8',
    ringCycle: 'u8',
    ring: 'f64',
    /** The command ring's doorbell rang; what registers ask the other thread to do. */
    rung: ['i32', 1],
    portsc: ['u32', PORTS_MAX],
    /** Bits of ports whose change has not been told. */
    portNews: 'u32',
    interrupters: [interrupterLayout, INTERRUPTERS],
    slots: [slotLayout, SLOTS + 1],
  },
  { name: 'xhci', version: 1 },
);
export type XhciState = ViewOf<typeof xhciLayout>;
export type Slot = XhciState['slots'][number];
export type EndpointState = Slot['endpoints'][number];

/** USBCMD and USBSTS, section 5.4. */
export const Command = { run: 1, reset: 2, interrupts: 4 } as const;
export const Status = { halted: 1, hostError: 4, event: 8, port: 0x10, saveError: 0x400 } as const;
/** CRCR. */
export const Ring = { cycle: 1, stop: 2, abort: 4, running: 8 } as const;
/** IMAN. */
export const Iman = { pending: 1, enable: 2 } as const;
/** Event handler busy, in ERDP. */
export const BUSY = 8;

/** PORTSC, section 5.4.8. */
export const Portsc = {
  connected: 1,
  enabled: 2,
  reset: 0x10,
  linkShift: 5,
  linkMask: 0x1e0,
  power: 0x200,
  speedShift: 10,
  linkWrite: 0x10000,
  connectChange: 0x20000,
  enableChange: 0x40000,
  warmResetChange: 0x80000,
  resetChange: 0x200000,
  linkChange: 0x400000,
  changes: 0xfe0000,
  /** Bits that are written as they are: wake on connect, disconnect, over-current. */
  wake: 0xe000000,
  warmReset: 0x80000000,
} as const;
export const Link = { u0: 0, u3: 3, disabled: 4, rxDetect: 5, polling: 7, resume: 15 } as const;
export const speedIds = { full: 1, low: 2, high: 3 } as const;

export const Trb = {
  normal: 1,
  setup: 2,
  data: 3,
  status: 4,
  isoch: 5,
  link: 6,
  eventData: 7,
  noop: 8,
  enableSlot: 9,
  disableSlot: 10,
  addressDevice: 11,
  configureEndpoint: 12,
  evaluateContext: 13,
  resetEndpoint: 14,
  stopEndpoint: 15,
  setDequeue: 16,
  resetDevice: 17,
  noopCommand: 23,
  transferEvent: 32,
  commandEvent: 33,
  portEvent: 34,
  hostEvent: 37,
  necFirmware: 49,
} as const;
export const TrbFlag = {
  cycle: 1,
  /** Of a link: the cycle bit's meaning turns. */
  toggle: 2,
  shortPacket: 4,
  chain: 0x10,
  interrupt: 0x20,
  immediate: 0x40,
  /** Of address device: no request goes to the device. */
  block: 0x200,
  /** Of a data or status stage. */
  toHost: 0x10000,
  eventData: 4,
} as const;

export const Code = {
  success: 1,
  transaction: 4,
  trb: 5,
  stall: 6,
  noSlots: 9,
  slotNotOn: 11,
  endpointNotOn: 12,
  shortPacket: 13,
  parameter: 17,
  contextState: 19,
  ringStopped: 24,
  stopped: 26,
} as const;

export const EpState = { disabled: 0, running: 1, halted: 2, stopped: 3, error: 4 } as const;
export const EpType = { isochOut: 1, bulkOut: 2, interruptOut: 3, control: 4, isochIn: 5, bulkIn: 6, interruptIn: 7 } as const;
export const SlotState = { default: 1, addressed: 2, configured: 3 } as const;
