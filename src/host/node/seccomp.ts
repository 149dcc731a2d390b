// System calls that a confined process is refused, as one table, and the classic BPF program that the kernel runs for each call.
// Linux: Documentation/userspace-api/seccomp_filter.rst, include/uapi/linux/{seccomp,filter,audit}.h; numbers from
// arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h.

import type { Sandbox } from '../../cli/sandbox.ts';

/** Processors whose numbers the table has, by Node's names; AUDIT_ARCH_X86_64 and AUDIT_ARCH_AARCH64. */
const processors = { x64: { audit: 0xc000003e, column: 0 }, arm64: { audit: 0xc00000b7, column: 1 } } as const;
export type Processor = keyof typeof processors;
export const isProcessor = (name: string): name is Processor => Object.hasOwn(processors, name);

const EPERM = 1;
const ENOSYS = 38;
const EAFNOSUPPORT = 97;
const AF_UNIX = 1;
const AF_INET = 2;
const AF_INET6 = 10;
const AF_NETLINK = 16;
const CLONE_THREAD = 0x10000;
const TIOCSTI = 0x5412;
const TIOCLINUX = 0x541c;

/** Of a call, what is refused: where argument `argument` (0 to 5) passes the test. Words are its low 32 bits. */
type Condition =
  | { readonly argument: number; readonly is: 'among' | 'not among'; readonly values: readonly number[] }
  | { readonly argument: number; readonly is: 'without bits'; readonly bits: number }
  /** All 64 bits. */
  | { readonly argument: number; readonly is: 'not zero' };

/** A call by its name with its numbers on x86-64 and arm64; `null` where the processor has no such call. */
export interface Refusal {
  readonly name: string;
  readonly numbers: readonly [x64: number | null, arm64: number | null];
  readonly errno: number;
  readonly when?: Condition;
}

const refused = (
  calls: Readonly<Record<string, readonly [number | null, number | null]>>,
  errno = EPERM,
  when?: Condition,
): Refusal[] => Object.entries(calls).map(([name, numbers]) => ({ name, numbers, errno, ...(when ? { when } : {}) }));

/** Calls that other calls are made through, unseen by a filter. libuv does without where they are not there. */
export const rings: readonly Refusal[] = refused(
  { io_uring_setup: [425, 425], io_uring_enter: [426, 426], io_uring_register: [427, 427] },
  ENOSYS,
);

/** What no emulator needs: the machine as a whole, other processes, other ways into the kernel. */
const always: readonly Refusal[] = [
  ...refused({
    reboot: [169, 142],
    swapon: [167, 224],
    swapoff: [168, 225],
    syslog: [103, 116],
    acct: [163, 89],
    quotactl: [179, 60],
    quotactl_fd: [443, 443],
    sethostname: [170, 161],
    setdomainname: [171, 162],
    settimeofday: [164, 170],
    clock_settime: [227, 112],
    vhangup: [153, 58],
    iopl: [172, null],
    ioperm: [173, null],
    modify_ldt: [154, null],
  }),
  // Kernel code.
  ...refused({
    kexec_load: [246, 104],
    kexec_file_load: [320, 294],
    init_module: [175, 105],
    finit_module: [313, 273],
    delete_module: [176, 106],
    bpf: [321, 280],
    perf_event_open: [298, 241],
    userfaultfd: [323, 282],
    add_key: [248, 217],
    request_key: [249, 218],
    keyctl: [250, 219],
  }),
  // Mounts and namespaces.
  ...refused({
    mount: [165, 40],
    umount2: [166, 39],
    pivot_root: [155, 41],
    chroot: [161, 51],
    setns: [308, 268],
    unshare: [272, 97],
    open_tree: [428, 428],
    move_mount: [429, 429],
    fsopen: [430, 430],
    fsconfig: [431, 431],
    fsmount: [432, 432],
    fspick: [433, 433],
    mount_setattr: [442, 442],
    name_to_handle_at: [303, 264],
    open_by_handle_at: [304, 265],
    fanotify_init: [300, 262],
    fanotify_mark: [301, 263],
  }),
  // Other processes.
  ...refused({
    ptrace: [101, 117],
    process_vm_readv: [310, 270],
    process_vm_writev: [311, 271],
    process_madvise: [440, 440],
    process_mrelease: [448, 448],
    pidfd_open: [434, 434],
    pidfd_getfd: [438, 438],
    pidfd_send_signal: [424, 424],
    kcmp: [312, 272],
    tkill: [200, 130],
  }),
  ...rings,
  ...refused({ socket: [41, 198] }, EAFNOSUPPORT, {
    argument: 0,
    is: 'not among',
    values: [AF_UNIX, AF_INET, AF_INET6, AF_NETLINK],
  }),
  // Input put into the terminal that the process was started from.
  ...refused({ ioctl: [16, 29] }, EPERM, { argument: 1, is: 'among', values: [TIOCSTI, TIOCLINUX] }),
];

/** Signals to any process but this one. */
const signals = (pid: number): Refusal[] =>
  refused({ kill: [62, 129], tgkill: [234, 131], rt_sigqueueinfo: [129, 138], rt_tgsigqueueinfo: [297, 240] }, EPERM, {
    argument: 0,
    is: 'not among',
    values: [pid],
  });

const obsolete: readonly Refusal[] = refused(
  {
    _sysctl: [156, null],
    create_module: [174, null],
    get_kernel_syms: [177, null],
    query_module: [178, null],
    sysfs: [139, null],
    uselib: [134, null],
    ustat: [136, null],
    afs_syscall: [183, null],
    getpmsg: [181, null],
    putpmsg: [182, null],
    security: [185, null],
    tuxcall: [184, null],
    vserver: [236, null],
    epoll_ctl_old: [214, null],
    epoll_wait_old: [215, null],
    nfsservctl: [180, 42],
    lookup_dcookie: [212, 18],
    personality: [135, 92],
  },
  ENOSYS,
);

const elevatePrivileges: readonly Refusal[] = refused({
  setuid: [105, 146],
  setgid: [106, 144],
  setreuid: [113, 145],
  setregid: [114, 143],
  setresuid: [117, 147],
  setresgid: [119, 149],
  setfsuid: [122, 151],
  setfsgid: [123, 152],
  setgroups: [116, 159],
  setpgid: [109, 154],
  setsid: [112, 157],
  capset: [126, 91],
});

const spawn: readonly Refusal[] = [
  ...refused({ fork: [57, null], vfork: [58, null], execve: [59, 221], execveat: [322, 281] }),
  // Threads are made by clone with this flag; libc goes there when there is no clone3, whose flags a filter cannot see.
  ...refused({ clone: [56, 220] }, EPERM, { argument: 0, is: 'without bits', bits: CLONE_THREAD }),
  ...refused({ clone3: [435, 435] }, ENOSYS),
];

const resourceControl: readonly Refusal[] = [
  ...refused({
    setpriority: [141, 140],
    sched_setparam: [142, 118],
    sched_setscheduler: [144, 119],
    sched_setattr: [314, 274],
    sched_setaffinity: [203, 122],
    setrlimit: [160, 164],
    ioprio_set: [251, 30],
    mbind: [237, 235],
    set_mempolicy: [238, 237],
    set_mempolicy_home_node: [450, 450],
    migrate_pages: [256, 238],
    move_pages: [279, 239],
  }),
  // Reading limits is the same call without new ones.
  ...refused({ prlimit64: [302, 261] }, EPERM, { argument: 2, is: 'not zero' }),
];

const network: readonly Refusal[] = refused({ socket: [41, 198] }, EPERM, {
  argument: 0,
  is: 'among',
  values: [AF_INET, AF_INET6],
});

/** The calls that a process of this number is refused when it keeps what `kept` says. */
export function refusals(kept: Sandbox, pid: number): Refusal[] {
  return [
    ...always,
    ...signals(pid),
    ...(kept.obsolete ? [] : obsolete),
    ...(kept.elevatePrivileges ? [] : elevatePrivileges),
    ...(kept.spawn ? [] : spawn),
    ...(kept.resourceControl ? [] : resourceControl),
    ...(kept.network ? [] : network),
  ];
}

// linux/bpf_common.h: classes, sizes and modes, as far as they are used here.
const LD_W_ABS = 0x20;
const JEQ = 0x15;
const JGE = 0x35;
const JSET = 0x45;
const RET = 0x06;
const ALLOW = 0x7fff0000;
const KILL_PROCESS = 0x80000000;
const ERRNO = 0x00050000;
/** struct seccomp_data: number, processor, instruction pointer, six arguments of 64 bits. */
const NUMBER = 0;
const ARCH = 4;
const ARGUMENTS = 16;
/** Numbers from here on are the x32 ABI's, which reach the same calls. */
const X32 = 0x40000000;

type Instruction = readonly [code: number, constant: number, ifTrue?: number, ifFalse?: number];

/** Instructions that fall through when the condition does not hold, and return `verdict` when it does. The number is lost. */
function check(when: Condition, verdict: number): Instruction[] {
  const at = ARGUMENTS + 8 * when.argument;
  switch (when.is) {
    case 'among':
      return [
        [LD_W_ABS, at],
        ...when.values.flatMap((v): Instruction[] => [
          [JEQ, v, 0, 1],
          [RET, verdict],
        ]),
      ];
    case 'not among':
      return [[LD_W_ABS, at], ...when.values.map((v, i): Instruction => [JEQ, v, when.values.length - i, 0]), [RET, verdict]];
    case 'without bits':
      return [
        [LD_W_ABS, at],
        [JSET, when.bits, 1, 0],
        [RET, verdict],
      ];
    case 'not zero':
      // The halves one after the other; both processors are little-endian.
      return [
        [LD_W_ABS, at],
        [JEQ, 0, 0, 2],
        [LD_W_ABS, at + 4],
        [JEQ, 0, 1, 0],
        [RET, verdict],
      ];
  }
}

/**
 * The program: an array of struct sock_filter, 8 bytes each. Calls by another processor's numbers end the process.
 * @throws Error where the kernel would refuse its length
 */
export function filterProgram(list: readonly Refusal[], processor: Processor): Uint8Array {
  const { audit, column } = processors[processor];
  const code: Instruction[] = [
    [LD_W_ABS, ARCH],
    [JEQ, audit, 1, 0],
    [RET, KILL_PROCESS],
    [LD_W_ABS, NUMBER],
  ];
  if (processor === 'x64') code.push([JGE, X32, 0, 1], [RET, ERRNO | EPERM]);
  for (const { numbers, errno, when } of list) {
    const number = numbers[column];
    if (number === null) continue;
    if (!when) {
      code.push([JEQ, number, 0, 1], [RET, ERRNO | errno]);
      continue;
    }
    const test = check(when, ERRNO | errno);
    // Behind the test the accumulator holds the number again.
    code.push([JEQ, number, 0, test.length + 1], ...test, [LD_W_ABS, NUMBER]);
  }
  code.push([RET, ALLOW]);
  if (code.length > 4096) throw new Error(`Cannot make a filter of ${code.length} instructions: the kernel takes 4096`);
  const bytes = new DataView(new ArrayBuffer(8 * code.length));
  for (const [i, [op, constant, ifTrue = 0, ifFalse = 0]] of code.entries()) {
    bytes.setUint16(8 * i, op, true);
    bytes.setUint8(8 * i + 2, ifTrue);
    bytes.setUint8(8 * i + 3, ifFalse);
    bytes.setUint32(8 * i + 4, constant, true);
  }
  return new Uint8Array(bytes.buffer);
}
