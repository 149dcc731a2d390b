// Runs short pieces of x86 code on the host CPU and tells what they did to registers, memory and floating-point state.
// Built by native.ts with the host's C compiler; the layout of the records is that of native.ts. x86-64 Linux only.
//
// Standard input: the initial contents of the five data pages, then cases. Standard output: one result for each case.
// Every case ends by a signal: INT3 at the end of its code, or the fault that it runs into.

#define _GNU_SOURCE
#include <asm/ldt.h>
#include <asm/prctl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <setjmp.h>
#include <stddef.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/ucontext.h>
#include <unistd.h>

#define CODE 0x10000000ul
#define CODE_BYTES 0x2000
// The code pages once more, as near to the edge of the canonical addresses as the kernel lets programs be.
#define EDGE 0x7fffffffd000ul
#define DATA 0x20000000ul
#define DATA_BYTES 0x5000
#define WRITABLE_BYTES 0x4000
#define GS_BASE 0x20001000ul
// Selectors of the local descriptor table: 16-bit code and data, with the code and data pages from offset 0 on.
#define CODE16 0x07
#define DATA16 0x0f

struct patch { uint32_t offset, unused; uint64_t value; };

struct state { uint64_t gpr[16], rip, rflags; };

struct testcase {
  uint32_t mode, length;
  uint8_t unused[8];
  uint8_t code[64];
  uint32_t patches, unused2;
  struct patch patch[16];
  uint8_t unused3[8];
  struct state in;
  uint8_t unused4[16];
  uint8_t fx[512];
  uint8_t ymm[256];
};
_Static_assert(sizeof(struct testcase) == 1280, "layout of a case");

struct result {
  uint32_t signal, vector;
  uint64_t error, address;
  struct state out;
  uint32_t changes, unused;
  uint8_t fx[512];
  uint8_t ymm[256];
};
_Static_assert(sizeof(struct result) == 944, "layout of a result");

static struct testcase current;
static struct result result;
static sigjmp_buf back;
static volatile int running, ticks;
static uint8_t *code_rw, *data_rw;
static uint8_t pristine[DATA_BYTES], before[DATA_BYTES];

// What the entry stub reads: general registers in encoding order, then the flags, then the far or near target.
struct entry { uint64_t gpr[16], rflags, target; struct { uint32_t offset; uint16_t selector; } far; uint8_t fx[512] __attribute__((aligned(64))); uint64_t header[8]; uint8_t ymm[256]; };
struct entry entry_state __attribute__((aligned(64)));

void enter_long(void);
void enter_compat(void);
void enter_16(void);
__asm__(
  ".text\n"
  ".macro load_all\n"
  "  movl $7, %eax\n  xorl %edx, %edx\n  xrstor64 entry_state+192(%rip)\n"
  "  pushq entry_state+128(%rip)\n"
  "  popfq\n"
  "  movq entry_state+0(%rip), %rax\n  movq entry_state+8(%rip), %rcx\n  movq entry_state+16(%rip), %rdx\n"
  "  movq entry_state+24(%rip), %rbx\n  movq entry_state+40(%rip), %rbp\n  movq entry_state+48(%rip), %rsi\n"
  "  movq entry_state+56(%rip), %rdi\n  movq entry_state+64(%rip), %r8\n  movq entry_state+72(%rip), %r9\n"
  "  movq entry_state+80(%rip), %r10\n  movq entry_state+88(%rip), %r11\n  movq entry_state+96(%rip), %r12\n"
  "  movq entry_state+104(%rip), %r13\n  movq entry_state+112(%rip), %r14\n  movq entry_state+120(%rip), %r15\n"
  "  movq entry_state+32(%rip), %rsp\n"
  ".endm\n"
  ".globl enter_long\nenter_long:\n  movl $0x2b, %eax\n  movl %eax, %ss\n  load_all\n  jmpq *entry_state+136(%rip)\n"
  ".globl enter_compat\nenter_compat:\n"
  "  movl $0x2b, %eax\n  movl %eax, %ds\n  movl %eax, %es\n  movl %eax, %ss\n"
  "  load_all\n  ljmpl *entry_state+144(%rip)\n"
  ".globl enter_16\nenter_16:\n"
  "  movl $0x0f, %eax\n  movl %eax, %ds\n  movl %eax, %es\n"
  "  load_all\n  movw entry_ss(%rip), %ss\n  ljmpl *entry_state+144(%rip)\n");
uint16_t entry_ss = DATA16;
_Static_assert(__builtin_offsetof(struct entry, rflags) == 128 && __builtin_offsetof(struct entry, target) == 136 &&
               __builtin_offsetof(struct entry, far) == 144 && __builtin_offsetof(struct entry, fx) == 192, "layout of the entry state");

static void on_signal(int signal, siginfo_t *info, void *context) {
  // The code may have left RFLAGS.AC set.
  __asm__ volatile("pushfq\n  andq $~0x40000, (%%rsp)\n  popfq" ::: "cc", "memory");
  const greg_t *g = ((ucontext_t *)context)->uc_mcontext.gregs;
  static const int order[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                REG_R8, REG_R9, REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
  (void)info;
  if (signal == SIGVTALRM) {
    if (!running || ++ticks < 4) return;
  } else if (!running) {
    _exit(3);
  }
  running = 0;
  result.signal = signal;
  result.vector = g[REG_TRAPNO];
  result.error = g[REG_ERR];
  result.address = g[REG_CR2];
  for (int i = 0; i < 16; i++) result.out.gpr[i] = g[order[i]];
  result.out.rip = g[REG_RIP];
  result.out.rflags = g[REG_EFL];
  const uint8_t *fp = (const uint8_t *)((ucontext_t *)context)->uc_mcontext.fpregs;
  memcpy(result.fx, fp, 512);
  // The kernel's frame continues as XSAVE's standard format.
  if (fp[512] & 4) memcpy(result.ymm, fp + 576, 256);
  else memset(result.ymm, 0, 256);
  siglongjmp(back, 1);
}

static void run(void) {
  memcpy(data_rw, pristine, DATA_BYTES);
  for (uint32_t i = 0; i < current.patches && i < 16; i++)
    if (current.patch[i].offset <= DATA_BYTES - 8) memcpy(data_rw + current.patch[i].offset, &current.patch[i].value, 8);
  memcpy(before, data_rw, DATA_BYTES);
  memset(code_rw, 0xcc, CODE_BYTES);
  uint64_t at = current.mode == 16 ? current.in.rip : current.in.rip >= EDGE ? current.in.rip - EDGE : current.in.rip - CODE;
  if (current.length > 64 || at > CODE_BYTES - 64) exit(4);
  memcpy(code_rw + at, current.code, current.length);
  memcpy(entry_state.gpr, current.in.gpr, sizeof entry_state.gpr);
  entry_state.rflags = current.in.rflags;
  entry_state.target = current.in.rip;
  entry_state.far.offset = current.in.rip;
  entry_state.far.selector = current.mode == 16 ? CODE16 : 0x23;
  memcpy(entry_state.fx, current.fx, 512);
  memset(entry_state.header, 0, sizeof entry_state.header);
  entry_state.header[0] = 7;
  memcpy(entry_state.ymm, current.ymm, 256);
  ticks = 0;
  if (!sigsetjmp(back, 0)) {
    running = 1;
    if (current.mode == 16) enter_16();
    else if (current.mode == 32) enter_compat();
    else enter_long();
  }
}

static void write_result(void) {
  static struct patch changes[DATA_BYTES / 8];
  result.changes = 0;
  for (uint32_t i = 0; i < DATA_BYTES; i += 8)
    if (memcmp(data_rw + i, before + i, 8)) {
      struct patch *p = &changes[result.changes++];
      p->offset = i;
      memcpy(&p->value, data_rw + i, 8);
    }
  fwrite(&result, sizeof result, 1, stdout);
  fwrite(changes, sizeof *changes, result.changes, stdout);
}

static uint8_t *mapped(unsigned long address, size_t bytes, int protection, int fd) {
  uint8_t *p = mmap((void *)address, bytes, protection, MAP_SHARED | (address ? MAP_FIXED_NOREPLACE : 0), fd, 0);
  if (p == MAP_FAILED) {
    perror("mmap");
    exit(5);
  }
  return p;
}

// Whatever the code under test does, it makes no system call: all but the few of this program become SIGSYS.
static int confine(void) {
#define ALLOW(nr) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
  struct sock_filter rules[] = {
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
    ALLOW(SYS_read), ALLOW(SYS_write), ALLOW(SYS_rt_sigreturn), ALLOW(SYS_exit_group),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
  };
  struct sock_fprog program = {sizeof rules / sizeof *rules, rules};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

int main(void) {
  int code = memfd_create("code", 0), data = memfd_create("data", 0);
  if (code < 0 || data < 0 || ftruncate(code, CODE_BYTES) || ftruncate(data, DATA_BYTES)) {
    perror("memfd");
    return 5;
  }
  code_rw = mapped(0, CODE_BYTES, PROT_READ | PROT_WRITE, code);
  data_rw = mapped(0, DATA_BYTES, PROT_READ | PROT_WRITE, data);
  memset(code_rw, 0xcc, CODE_BYTES);
  memset(data_rw, 0, DATA_BYTES);
  mapped(CODE, CODE_BYTES, PROT_READ | PROT_EXEC, code);
  mapped(EDGE, CODE_BYTES, PROT_READ | PROT_EXEC, code);
  mapped(DATA, WRITABLE_BYTES, PROT_READ | PROT_WRITE, data);
  if (mmap((void *)(DATA + WRITABLE_BYTES), DATA_BYTES - WRITABLE_BYTES, PROT_READ, MAP_SHARED | MAP_FIXED_NOREPLACE, data, WRITABLE_BYTES) == MAP_FAILED) return 5;
  // Every page is touched, so that a fault means a permission and not the first use.
  for (unsigned long p = CODE; p < CODE + CODE_BYTES; p += 0x1000) (void)*(volatile uint8_t *)p, (void)*(volatile uint8_t *)(p - CODE + EDGE);
  for (unsigned long p = DATA; p < DATA + DATA_BYTES; p += 0x1000) (void)*(volatile uint8_t *)p;
  for (unsigned long p = DATA; p < DATA + WRITABLE_BYTES; p += 0x1000) *(volatile uint8_t *)p = 0;
  if (syscall(SYS_arch_prctl, ARCH_SET_GS, GS_BASE)) return 5;

  // Where the kernel has no local descriptor tables, 16-bit cases fail at once and the caller leaves them out.
  struct user_desc code16 = {.entry_number = 0, .base_addr = CODE, .limit = CODE_BYTES - 1, .contents = MODIFY_LDT_CONTENTS_CODE};
  struct user_desc data16 = {.entry_number = 1, .base_addr = DATA, .limit = 0xffff, .contents = MODIFY_LDT_CONTENTS_DATA};
  syscall(SYS_modify_ldt, 0x11, &code16, sizeof code16);
  syscall(SYS_modify_ldt, 0x11, &data16, sizeof data16);

  static uint8_t stack[65536];
  stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
  if (sigaltstack(&alternate, NULL)) return 5;
  struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
  static const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGSYS, SIGVTALRM};
  for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) sigaction(signals[i], &action, NULL);
  struct itimerval timer = {{0, 5000}, {0, 5000}};
  setitimer(ITIMER_VIRTUAL, &timer, NULL);

  // Buffers of our own, so that standard I/O asks the kernel for nothing else.
  static char input[1 << 16], output[1 << 16];
  setvbuf(stdin, input, _IOFBF, sizeof input);
  setvbuf(stdout, output, _IOFBF, sizeof output);
  if (confine()) {
    perror("seccomp");
    return 8;
  }
  if (fread(pristine, DATA_BYTES, 1, stdin) != 1) return 6;
  while (fread(&current, sizeof current, 1, stdin) == 1) {
    run();
    write_result();
  }
  return fflush(stdout) ? 7 : 0;
}
