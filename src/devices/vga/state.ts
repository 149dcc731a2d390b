// The registers of a VGA with Bochs's VBE extension as they lie in shared memory. IBM PS/2 Hardware Interface Technical Reference (1992), "Video Subsystem"; "VBE DISPI" of the Bochs project's vbe_display_api.txt.
import { struct, type ViewOf } from '../../bits/struct.ts';

export const vgaLayout = struct(
  {
    /** Sequencer, graphics controller, attribute controller, CRT controller: index and registers. */
    srIndex: 'u8',
    grIndex: 'u8',
    arIndex: 'u8',
    /** The next write to 3C0 is data. */
    arData: 'u8',
    crIndex: 'u8',
    sr: ['u8', 8],
    gr: ['u8', 16],
    ar: ['u8', 32],
    cr: ['u8', 256],
    /** Miscellaneous output, feature control, status 1. */
    misc: 'u8',
    feature: 'u8',
    status1: 'u8',
    dacState: 'u8',
    dacRead: 'u8',
    dacWrite: 'u8',
    dacPart: 'u8',
    dacCache: ['u8', 4],
    palette: ['u8', 768],
    latch: 'u32',
    /** Of the window at A0000, in bytes. */
    bank: 'u32',
    vbeIndex: 'u16',
    vbe: ['u16', 16],
    /** Bytes of a line and of the first pixel while VBE is on. */
    vbeLine: 'u32',
    vbeStart: 'u32',
  },
  { name: 'vga', version: 1 },
);
export type VgaState = ViewOf<typeof vgaLayout>;

/** Indexes of the VBE registers. */
export const Vbe = {
  id: 0,
  xres: 1,
  yres: 2,
  bpp: 3,
  enable: 4,
  bank: 5,
  virtWidth: 6,
  virtHeight: 7,
  xOffset: 8,
  yOffset: 9,
  memory64k: 10,
} as const;
/** Number of VBE registers. */
export const VBE_REGISTERS = 11;
export const VbeEnable = { on: 1, getCaps: 2, dac8: 0x20, linear: 0x40, keep: 0x80 } as const;
/** The largest that VBE lets ask for. */
export const VBE_MAX = { xres: 16000, yres: 12000, bpp: 32 } as const;

/** Whether the VBE mode is displayed. */
export const vbeOn = (s: VgaState): boolean => (s.vbe[Vbe.enable]! & VbeEnable.on) !== 0;
/** DAC entries have 8 bits. */
export const dac8 = (s: VgaState): boolean => (s.vbe[Vbe.enable]! & VbeEnable.dac8) !== 0;
