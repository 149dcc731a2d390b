// The state of one x86 vCPU as slots at fixed offsets in shared memory (the registers of Intel SDM volume 1, chapter 3, and
// volume 3, chapter 2, plus what translation needs). Interpreter, translator, snapshot and debugger all use these offsets.

import type { Slot } from '../../ir/ir.ts';
import { type AccessName, accesses } from '../../ir/ops.ts';

const slots: Record<string, Slot> = {};
let end = 0;

function slot(name: string, access: AccessName): Slot {
  const bytes = accesses[access].bits / 8;
  end = Math.ceil(end / bytes) * bytes;
  const s: Slot = { name, offset: end, access: accesses[access] };
  slots[name] = s;
  end += bytes;
  return s;
}
const many = (access: AccessName, names: readonly string[]): Slot[] => names.map((n) => slot(n, access));

/** Numbers of the general registers, as instructions encode them. */
export const R = {
  rax: 0,
  rcx: 1,
  rdx: 2,
  rbx: 3,
  rsp: 4,
  rbp: 5,
  rsi: 6,
  rdi: 7,
  r8: 8,
  r9: 9,
  r10: 10,
  r11: 11,
  r12: 12,
  r13: 13,
  r14: 14,
  r15: 15,
} as const;
/** Numbers of the segment registers, as instructions encode them; LDTR and TR follow. */
export const S = { es: 0, cs: 1, ss: 2, ds: 3, fs: 4, gs: 5, ldtr: 6, tr: 7 } as const;

/** General registers by number, 64 bits each. */
export const gpr = many('i64', Object.keys(R));
/** Instruction pointer (offset in CS). While tier 0 runs a block it is stale: see `pageBase`. */
export const rip = slot('rip', 'i64');

/**
 * The arithmetic flags, decoded when they are read. ZF = (fZ == 0); SF = (fN < 0); PF = even parity of fN's low byte;
 * CF = fC (0 or 1); OF = (fO < 0, as i32); AF = bit 4 of fA. Each slot is written and read on its own.
 */
export const fZ = slot('fZ', 'i64');
export const fN = slot('fN', 'i64');
export const fC = slot('fC', 'i32');
export const fO = slot('fO', 'i32');
export const fA = slot('fA', 'i32');
/** The other bits of RFLAGS at their places: TF 8, IF 9, DF 10, IOPL 12–13, NT 14, RF 16, VM 17, AC 18, VIF 19, VIP 20, ID 21. */
export const sysFlags = slot('sysFlags', 'i32');

const segNames = Object.keys(S);
/** Segment registers by number `S`: hidden part and selector. */
export const segBase = many(
  'i64',
  segNames.map((n) => `${n}.base`),
);
/** Limit in bytes, the granularity applied (unsigned 32 bits). */
export const segLimit = many(
  'i32',
  segNames.map((n) => `${n}.limit`),
);
export const segSelector = many(
  'i32',
  segNames.map((n) => `${n}.selector`),
);
/** Bits 40–55 of the descriptor in bits 0–15: type 0–3, S 4, DPL 5–6, P 7, AVL 12, L 13, D/B 14, G 15. Bit 16: unusable (null). */
export const segAttr = many(
  'i32',
  segNames.map((n) => `${n}.attr`),
);
export const gdtBase = slot('gdtr.base', 'i64');
export const idtBase = slot('idtr.base', 'i64');
export const gdtLimit = slot('gdtr.limit', 'i32');
export const idtLimit = slot('idtr.limit', 'i32');

export const cr0 = slot('cr0', 'i64');
export const cr2 = slot('cr2', 'i64');
export const cr3 = slot('cr3', 'i64');
export const cr4 = slot('cr4', 'i64');
export const efer = slot('efer', 'i64');
export const xcr0 = slot('xcr0', 'i64');
export const dr = many('i64', ['dr0', 'dr1', 'dr2', 'dr3', 'dr4', 'dr5', 'dr6', 'dr7']);

export const star = slot('star', 'i64');
export const lstar = slot('lstar', 'i64');
export const cstar = slot('cstar', 'i64');
export const sfmask = slot('sfmask', 'i64');
export const kernelGsBase = slot('kernelGsBase', 'i64');
export const sysenterCs = slot('sysenterCs', 'i64');
export const sysenterEsp = slot('sysenterEsp', 'i64');
export const sysenterEip = slot('sysenterEip', 'i64');
export const pat = slot('pat', 'i64');
export const tscAux = slot('tscAux', 'i64');
/** Added to the host's TSC by the guest's writes to IA32_TSC and IA32_TSC_ADJUST. */
export const tscOffset = slot('tscOffset', 'i64');

/** Current privilege level, 0 to 3. */
export const cpl = slot('cpl', 'i32');
/** What decoding depends on besides the bytes: see `Ctx`. Kept up to date by whoever changes CS, SS, CR0, EFER, RFLAGS.VM. */
export const ctx = slot('ctx', 'i32');
/** Mask of the stack pointer: 0xffff, 0xffffffff, or -1 in 64-bit code. */
export const spMask = slot('spMask', 'i64');
/** One of `Shadow` while interrupts are held off for one instruction, else 0. */
export const shadow = slot('shadow', 'i32');

/** Pending exception: vector + 1, or 0 for none. */
export const exc = slot('exc', 'i32');
/** Its error code, or -1 for none. */
export const excError = slot('excError', 'i32');
/** 1 while an exception is being delivered (a further contributory one makes a double fault): the vector + 1. */
export const excDelivering = slot('excDelivering', 'i32');

/** Host address of the software TLB for current accesses, and for implicit supervisor accesses. */
export const tlb = slot('tlb', 'i32');
export const tlbSystem = slot('tlbSystem', 'i32');
/** Host addresses of the three TLBs by index: 0 supervisor, 1 supervisor that may touch user pages, 2 user. */
export const tlbs = many('i32', ['tlb0', 'tlb1', 'tlb2']);
/** Host address and mask of the jump cache. */
export const jumpCache = slot('jumpCache', 'i32');
/**
 * Host address of guest-physical 0; bytes of RAM below 4 GiB, without what is hidden at its end outside of system management mode; bytes of RAM
 * from 4 GiB up, which lie at `ramSplit` and may reach beyond host address 4 GiB: host addresses in RAM are i64, all others i32.
 */
export const ramBase = slot('ramBase', 'i32');
export const ramLow = slot('ramLow', 'i32');
export const ramHigh = slot('ramHigh', 'i64');
/** Host address of the table of memory slots (bits/slot-table.ts), or 0 for none. */
export const slotTable = slot('slotTable', 'i32');
/** Host address of one byte for each page of RAM: how many vCPUs hold decoded code of it. */
export const codeMap = slot('codeMap', 'i32');
/** Host address of one byte for each page of RAM, or 0 for none: 1 where the next write is to be noted by a 0 (see machine/board.ts). */
export const dirtyMap = slot('dirtyMap', 'i32');
/** Host address of one byte for each page of RAM, or 0 for none: 1 once a TLB has let stores to it through without a look. */
export const openMap = slot('openMap', 'i32');
/** Host address of the table of decoded blocks by guest-physical address, or 0 for none: see fetch.ts. */
export const blockTable = slot('blockTable', 'i32');
/** Host address of the table of pieces of pages that hold decoded code of this vCPU, or 0 for none: see memory.ts. */
export const codePieces = slot('codePieces', 'i32');
/** Index of this vCPU. */
export const cpuIndex = slot('cpuIndex', 'i32');

/** Set by any thread, with atomics, to make the vCPU look at interrupts and requests at its next block end. */
export const kick = slot('kick', 'i32');
/** Requests from other vCPUs, bits: 1 drop write permission for newly decoded pages, 2 code pages to invalidate. */
export const requests = slot('requests', 'i32');
/** Why the translated code gave control back: `Exit`. */
export const exitReason = slot('exitReason', 'i32');
/** Linear address of the page of the block that tier 0 runs, in CS offsets: instruction pointer = pageBase + place in the record. */
export const pageBase = slot('pageBase', 'i64');
/** Always zero: what an absent base, index or segment register reads. */
export const zero = slot('zero', 'i64');
/** 1 after a store has changed code that a region was translated from, until the host has seen it. */
export const codeChanged = slot('codeChanged', 'i32');
/** Instructions that the region which was just left has retired. */
export const retired = slot('retired', 'i32');
/** By how many bits what regions have retired counts for less in a slice, since they are faster; and what that has come to in this one. */
export const regionShift = slot('regionShift', 'i32');
export const spared = slot('spared', 'i32');
/** Instructions that regions have retired since they were last noted; how often they were in this slice, and where they were left then. */
export const unnoted = slot('unnoted', 'i32');
export const noted = slot('noted', 'i32');
export const notes = many('i64', ['note0', 'note1', 'note2', 'note3', 'note4', 'note5', 'note6', 'note7']);
/**
 * Numbers that change when an address may mean another place or other code: for the lower and the upper half of the addresses. The lower half's are
 * even and never 0, the upper half's odd: none is ever taken for one of the other half.
 */
export const epochs = many('i32', ['epochLower', 'epochUpper']);
/**
 * What is added to a linear address so that bit 63 tells the upper half, where kernels are: 0 in IA-32e mode; `NARROW_HALF` elsewhere, which
 * makes it the last of the 4 GiB.
 */
export const halves = slot('halves', 'i64');
export const NARROW_HALF = (1n << 63n) - 0xc0000000n;
/**
 * What cells are filled under (accel/dbt/cells.ts): in bits 14 and up, a number that changes whenever an entry of a TLB may have to be forgotten; in
 * bits 12 and 13, which TLB `tlb` is. The others are 0.
 */
export const cellKey = slot('cellKey', 'i64');
export const CELL_KEY_STEP = 1n << 14n;
/** Host address of the first cell in the chain of those filled from non-global pages under this number, or 0: see tlb.ts. */
export const cellChain = slot('cellChain', 'i32');
/** 1 while a cell may hold a global page of the lower half, which is in no chain: INVLPG then ends all of them. */
export const lowerGlobal = slot('lowerGlobal', 'i32');
/** Host address of the top entry of the shadow stack: return addresses that callers in translated code wait for. */
export const callTop = slot('callTop', 'i32');
/** Instructions that regions have retired. */
export const inRegions = slot('inRegions', 'i64');
/** Instructions retired, in blocks completed. */
export const instructions = slot('instructions', 'i64');
/** Counters that translated code and its subroutines keep, 32 bits that wrap; accel/dbt/counters.ts says what they count. */
export const counters = many('i32', ['tlbMisses', 'slowAccesses', 'pageFlushes', 'fullFlushes', 'regionEntries']);

/** x87: physical registers R0–R7: significand, then sign and exponent (16 bits) in the next 8 bytes. */
export const fpr = Array.from({ length: 8 }, (_, i) => ({ mant: slot(`r${i}.mant`, 'i64'), exp: slot(`r${i}.exp`, 'i64') }));
/** Top of stack 0–7, status word without TOP (bits 11–13 zero), control word, and one bit for each register that is not empty. */
export const fpTop = slot('fpTop', 'i32');
export const fpSw = slot('fpSw', 'i32');
export const fpCw = slot('fpCw', 'i32');
export const fpValid = slot('fpValid', 'i32');
export const fpIp = slot('fpIp', 'i64');
export const fpDp = slot('fpDp', 'i64');
export const fpOpcode = slot('fpOpcode', 'i32');
/** MXCSR in bits 0–15. Bit 31 asks for exact exception flags: see rows/sse-math.ts. */
export const mxcsr = slot('mxcsr', 'i32');
/** SSE registers 0–15, and the upper halves of the AVX registers. */
export const xmm = many(
  'v128',
  Array.from({ length: 16 }, (_, i) => `xmm${i}`),
);
export const ymmHigh = many(
  'v128',
  Array.from({ length: 16 }, (_, i) => `ymm${i}h`),
);

/** 1 from the delivery of an NMI until the next IRET: further NMIs wait. */
export const nmiBlocked = slot('nmiBlocked', 'i32');
/** Debug traps after the running instruction: see `Trap`. */
export const stepTrap = slot('stepTrap', 'i32');
/** What a debugger outside of the guest has taken over: see `GuestDebug`. */
export const guestDebug = slot('guestDebug', 'i32');
/** 1 where the pending exception was found after a task switch committed: `taskIp` is then the instruction pointer, not that of the switching instruction. */
export const taskFault = slot('taskFault', 'i32');
export const taskIp = slot('taskIp', 'i64');
/** Scratch of the stack frames that far transfers push and pop: see frame.ts. */
export const frameBase = slot('frame.base', 'i64');
export const frameSp = slot('frame.sp', 'i64');
export const frameMask = slot('frame.mask', 'i64');
export const frameLimit = slot('frame.limit', 'i32');
export const frameAttr = slot('frame.attr', 'i32');
export const frameHow = slot('frame.how', 'i32');

/** Scratch: exception flags that the running SSE instruction found: see softfloat-core.ts. */
export const sseFlags = slot('sseFlags', 'i32');

/** Model-specific registers without another home: IA32_TSC_ADJUST, IA32_MISC_ENABLE, IA32_DEBUGCTL, AMD's HWCR and DE_CFG. */
export const tscAdjust = slot('tscAdjust', 'i64');
export const miscEnable = slot('miscEnable', 'i64');
export const debugCtl = slot('debugCtl', 'i64');
export const hwcr = slot('hwcr', 'i64');
export const deCfg = slot('deCfg', 'i64');
/** MTRRs: base and mask of the eight variable ranges in turn, the eleven fixed ranges, the default type. */
export const mtrrVariable = many(
  'i64',
  Array.from({ length: 16 }, (_, i) => `mtrr${i & 1 ? 'Mask' : 'Base'}${i >> 1}`),
);
export const mtrrFixed = many(
  'i64',
  ['64K', '16K8', '16KA', '4KC0', '4KC8', '4KD0', '4KD8', '4KE0', '4KE8', '4KF0', '4KF8'].map((n) => `mtrrFix${n}`),
);
export const mtrrDefault = slot('mtrrDefault', 'i64');
/** EAX, EBX, ECX, EDX as the host's `cpuid` gives them. */
export const cpuidResult = many('i32', ['cpuidEax', 'cpuidEbx', 'cpuidEcx', 'cpuidEdx']);
/** Host address of the first TLB entry in the chain of those filled from non-global pages, or 0: see tlb.ts. */
export const tlbChain = slot('tlbChain', 'i32');
/** 1 once an instruction was fetched from a non-global page of the upper half: the jump cache's upper groups are then not kept. */
export const upperNonGlobal = slot('upperNonGlobal', 'i32');
/** Filters over the large pages in the TLBs: one bit by hash of the 4 MiB number (2,048 bits), and of the 1 GiB number (64). */
export const largePages = many(
  'v128',
  Array.from({ length: 16 }, (_, i) => `largePages${i}`),
);
export const hugePages = slot('hugePages', 'i64');

/** Whether the vCPU executes: `Activity`. */
export const activity = slot('activity', 'i32');
/** 1 while a non-maskable interrupt waits; vector of an interrupt that was acknowledged and is not delivered yet, or 0. */
export const nmiPending = slot('nmiPending', 'i32');
export const inFlight = slot('inFlight', 'i32');
/** Id of the host's thread that runs this vCPU on KVM, 0 for none, and 1 while it is or is about to be in the guest. */
export const hostThread = slot('hostThread', 'i32');
export const hostEntered = slot('hostEntered', 'i32');
/** Data and port breakpoints that DR7 enables, bits 0 to 3: accesses to their pages miss the TLB. */
export const watch = slot('watch', 'i32');
/** 1 while misaligned accesses raise #AC (CPL 3, CR0.AM, RFLAGS.AC): every access then misses, by way of a TLB that holds nothing. */
export const alignCheck = slot('alignCheck', 'i32');
/** Host address of that TLB. */
export const tlbNone = slot('tlbNone', 'i32');
/** Machine-check controls: all banks, and one for each of ten. */
export const mcgCtl = slot('mcgCtl', 'i64');
export const mcCtl = many(
  'i64',
  Array.from({ length: 10 }, (_, i) => `mc${i}Ctl`),
);
/** Address and miscellaneous information of each bank in turn. */
export const mcAbout = many(
  'i64',
  Array.from({ length: 20 }, (_, i) => `mc${i >> 1}${i & 1 ? 'Misc' : 'Addr'}`),
);
/** Rights of the protection keys: two bits each, access disabled and write disabled. */
export const pkru = slot('pkru', 'i32');
/** The same for supervisor pages: IA32_PKRS. */
export const pkrs = slot('pkrs', 'i32');
/** 1 while this vCPU holds the machine's lock for atomics that no single one of the host serves: see memory.ts. */
export const splitHeld = slot('splitHeld', 'i32');
/** Instructions and bits of CR4 that the CPU model does not have: `Absent`, and a mask. */
export const absent = slot('absent', 'i32');
export const cr4Absent = slot('cr4Absent', 'i32');
/** Bits of physical addresses that are reserved and would not be in one of 40 bits, or the other way round: see mmu.ts. */
export const reservedChange = slot('reservedChange', 'i64');
/** Host address of the record of the last instruction in tier 0 whose store went the slow way, or 0. */
export const storing = slot('storing', 'i32');
/** 1 where the next block is one instruction long: an interrupt waits in the shadow of STI or MOV SS. */
export const oneStep = slot('oneStep', 'i32');
/** 1 where relaxed_madd of the host rounds once: see rows/fma.ts. */
export const fusedMadd = slot('fusedMadd', 'i32');
/** The address that is not canonical behind a pending #GP(0), or 0: where the stack was meant, #SS(0) is delivered. */
export const offLimits = slot('offLimits', 'i64');

/** Host address of the line that MONITOR watches, or 0 for none, and a digest of what it held: see rows/monitor.ts. */
export const monitorLine = slot('monitorLine', 'i64');
export const monitorSum = slot('monitorSum', 'i64');

/** One bit for each lower group of the jump cache that holds something: see tlb.ts. */
export const jumpGroups = slot('jumpGroups', 'i64');

/** The page-directory-pointer-table entries of PAE paging, as they were when CR3 was loaded (SDM volume 3, 4.4.1). */
export const pointers = many('i64', ['pdptr0', 'pdptr1', 'pdptr2', 'pdptr3']);

/** Performance counters with their event selects, fixed ones, and the registers over all: see pmu.ts. */
export const pmCounter = many(
  'i64',
  Array.from({ length: 4 }, (_, i) => `pmCounter${i}`),
);
export const pmSelect = many(
  'i64',
  Array.from({ length: 4 }, (_, i) => `pmSelect${i}`),
);
export const pmFixed = many(
  'i64',
  Array.from({ length: 3 }, (_, i) => `pmFixed${i}`),
);
export const pmFixedControl = slot('pmFixedControl', 'i64');
export const pmControl = slot('pmControl', 'i64');
export const pmStatus = slot('pmStatus', 'i64');
/** 1 while a counter counts at CPL 3 only, or below it only: a change of CPL then gives control back. */
export const pmSplit = slot('pmSplit', 'i32');
/** Scratch: 1 where what RDMSR or RDPMC reads depends on instructions that the host has not counted yet. */
export const pmAsked = slot('pmAsked', 'i32');
/** Iterations of repeated string instructions that were taken off the budget: they are no instructions. */
export const repeats = slot('repeats', 'i32');

/** The complement of the address of a repeated string instruction that is left between two of its iterations, until it goes on; else 0. */
export const iterated = slot('iterated', 'i64');

/** Host address of guest-physical 4 GiB: memory slots below it, RAM above. */
export const ramSplit = slot('ramSplit', 'i32');
/** 0, or 12 where host addresses may be beyond 4 GiB: see tlb.ts. */
export const addendShift = slot('addendShift', 'i32');
/** Bits of `Smm`; where the vCPU's part of SMRAM begins; 1 while an SMI waits; 1 while an INIT waits for the mode's end: see smm.ts. */
export const smm = slot('smm', 'i32');
export const smbase = slot('smbase', 'i32');
export const smiPending = slot('smiPending', 'i32');
export const initPending = slot('initPending', 'i32');

/** All slots by name, for snapshots, tests and the monitor. */
export const stateSlots: Readonly<Record<string, Slot>> = slots;
/** Bytes of one vCPU's state. */
export const STATE_BYTES = Math.ceil(end / 64) * 64;

/** Bits of `ctx`. Code decoded under one context is never run under another. */
export const Ctx = {
  /** 64-bit code (EFER.LMA and CS.L). */
  long: 1,
  /** CS.D: 32-bit operands and addresses by default (outside 64-bit code). */
  big: 2,
  /** Protected mode (CR0.PE). */
  protected: 4,
  /** Virtual-8086 mode. */
  v86: 8,
  /** CPL 3. */
  user: 16,
  /** CR0.TS or CR0.EM or (for SSE) not CR4.OSFXSR: floating point instructions check the state. */
  fpTrap: 32,
  /** RFLAGS.TF or enabled debug breakpoints: one instruction per block, then a look at #DB. */
  step: 64,
  /** AVX is enabled (CR4.OSXSAVE, XCR0) and CR0.TS clear: AVX instructions need not check the state. */
  avx: 128,
  /**
   * The code segment ends below 4 GiB: near branches are held against its limit. In 64-bit code never in the slot `ctx`, but in the context under
   * which blocks beside the edge of the canonical addresses are decoded (`edgeContext`).
   */
  limited: 256,
  /**
   * Outside 64-bit code: CS begins at 0, and DS, ES and SS are writable data from 0 to 4 GiB, SS with a 32-bit stack pointer. An offset in
   * them is the linear address; an access that reaches over the end may raise an exception or go on at 0 (Intel SDM volume 3, 5.3).
   */
  flat: 512,
  /** System management mode: the same address may be other memory. */
  smm: 1024,
} as const;
/** Contexts are below. */
export const CONTEXTS = 2048;

/** Entries of each software TLB, bytes of an entry: tag (i64), addend (i32), unused (i32). */
export const TLB_ENTRIES = 4096;
export const TLB_ENTRY_BYTES = 16;
/** Entries of the jump cache; an entry is: linear address (i64), context (i32), record address (i32). */
export const JUMP_ENTRIES = 16384;
export const JUMP_ENTRY_BYTES = 16;
/** Entries of the table of pieces, and bytes of one. */
export const PIECE_ENTRIES = 1024;
export const PIECE_ENTRY_BYTES = 16;
/** Entries of the table of decoded blocks; an entry is: guest-physical address and context (i64, see fetch.ts), record address (i32). */
export const BLOCK_ENTRIES = 65536;
export const BLOCK_ENTRY_BYTES = 16;

/** Host addresses, below everything else: the word of that lock, and one that fences go over. */
export const SPLIT_LOCK = 64;
export const FENCE = 128;

/** Bits of `absent`. */
export const Absent = {
  invpcid: 1, rdtscp: 2, rdpid: 4, smap: 8, pku: 16, monitor: 32, pks: 64, nx: 128, syscall: 256, lm: 512, 'tsc-adjust': 1024, xsaves: 2048, xgetbv1: 4096,
} as const; // biome-ignore format: a table

/** Reasons in `exitReason`. */
export const Exit = {
  none: 0,
  budget: 1,
  kick: 2,
  hlt: 3,
  shutdown: 4,
  host: 5,
  hot: 6,
  mode: 7,
  debug: 8,
  wait: 9,
  pmc: 10,
  rsm: 11,
} as const;

/** Bits of `smm`: the vCPU is in system management mode; NMIs were blocked before. */
export const Smm = { in: 1, nmiBlocked: 2 } as const;

/**
 * Bits of `stepTrap`: TF was set when the instruction started; its RF and the `Shadow` that it was in, which its start has cleared; data and port
 * breakpoints that it met.
 */
export const Trap = { step: 1, resumed: 2, shadowed: 12, hits: 0xf00 } as const;
export const SHADOWED_SHIFT = 2;

/**
 * Bits of `guestDebug`. Exceptions by their vector: #DB and #BP leave the vCPU with `Exit.debug` instead of being delivered, `rip` at the
 * instruction (INT3 itself, or the next one after a trap). `step`: no interrupt is taken. `registers`: DR0 to DR7 are the debugger's,
 * what the guest writes to them is lost.
 */
export const GuestDebug = { step: 1, db: 1 << 1, registers: 1 << 2, bp: 1 << 3 } as const;

/** What holds interrupts off for one instruction: STI; or MOV SS and POP SS, which hold off debug traps as well. */
export const Shadow = { sti: 1, stack: 2 } as const;

/** What a vCPU does: it executes, has halted until an interrupt, or waits for INIT and SIPI. */
export const Activity = { running: 0, halted: 1, waitsForSipi: 2 } as const;

/** Exception vectors. */
export const X = {
  de: 0,
  db: 1,
  nmi: 2,
  bp: 3,
  of: 4,
  br: 5,
  ud: 6,
  nm: 7,
  df: 8,
  ts: 10,
  np: 11,
  ss: 12,
  gp: 13,
  pf: 14,
  mf: 16,
  ac: 17,
  mc: 18,
  xm: 19,
} as const;
