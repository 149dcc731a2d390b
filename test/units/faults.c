/* Exceptions of every kind that an instruction can raise: vector, error code, saved flags and instruction pointer. */
#include "units.h"

#define FAR 0x8000000000000000ul /* not canonical */
#define MISSING 0x8000000000ul   /* canonical, not mapped */

static void canonical(void) {
  report(TRY("mov (%%rdx), %%rax", FAR) == 13 && trap.error == 0, "load from a non-canonical address: #GP(0)");
  report(TRY("mov %%rax, (%%rdx)", FAR) == 13 && trap.error == 0, "store to a non-canonical address: #GP(0)");
  report(TRY("mov %%rdx, %%rsp\n push %%rax", FAR) == 12 && trap.error == 0, "push to a non-canonical stack: #SS(0)");
  report(TRY("mov %%rdx, %%rsp\n pop %%rax", FAR) == 12 && trap.error == 0, "pop from a non-canonical stack: #SS(0)");
  report(TRY("mov %%rdx, %%rsp\n call 1f\n 1:", FAR) == 12 && trap.error == 0, "call on a non-canonical stack: #SS(0)");
  report(TRY("mov %%rdx, %%rsp\n ret", FAR) == 12 && trap.error == 0, "ret on a non-canonical stack: #SS(0)");
  report(TRY("mov %%rdx, %%rsp\n mov 8(%%rsp), %%rax", FAR) == 12, "load by RSP from a non-canonical address: #SS");
  report(TRY("push %%rbp\n mov %%rdx, %%rbp\n mov (%%rbp), %%rax\n pop %%rbp", FAR) == 12, "load by RBP from a non-canonical address: #SS");
  asm volatile("" ::: "rbp");
  report(TRY("pushq (%%rdx)", FAR) == 13, "push of a non-canonical operand: #GP");
  report(TRY("mov %%rdx, %%rsp\n pushq recover_ip", FAR) == 12, "push of a good operand to a non-canonical stack: #SS");
  report(TRY("mov %%rdx, %%rsp\n pushq 16(%%rdx)", FAR) == 13, "push of a non-canonical operand to a non-canonical stack: #GP");
  report(TRY("mov %%rdx, %%rsp\n mov %%rax, 16(%%rsp)", FAR) == 12, "store by RSP to a non-canonical address: #SS");
  report(TRY("mov %%rdx, %%rsp\n lock incl (%%rsp)", FAR) == 12, "locked increment by RSP: #SS");
  report(TRY("mov %%rdx, %%rsp\n movups (%%rsp), %%xmm0", FAR) == 12, "vector load by RSP: #SS");
  report(TRY("mov %%rdx, %%rsp\n mov $0x1000, %%eax\n bt %%rax, (%%rsp)", FAR) == 12, "BT by RSP of a bit far from its operand: #SS");
  report(TRY("mov $0x1000, %%eax\n bt %%rax, (%%rdx)", FAR) == 13, "BT by RDX of a bit far from its operand: #GP");
  report(TRY("mov %%rsp, %%rcx\n mov $1, %%eax\n shl $50, %%rax\n bts %%rax, (%%rsp)\n mov %%rcx, %%rsp", 0) == 12, "BTS by RSP of a bit that is not canonical: #SS");
  report(TRY("mov %%rdx, %%rsi\n lodsb", FAR) == 13, "string load from a non-canonical address: #GP");
  report(TRY("mov %%rdx, %%rsp\n iretq", FAR) == 12, "iretq on a non-canonical stack: #SS");
  report(TRY("mov %%rdx, %%rsp\n .byte 0x65\n mov (%%rsp), %%rax", FAR) == 13, "load by RSP with a GS override: #GP");
  /* RSI and RDI hold where the branch and the stack are. */
#define BRANCH(code, name)                                                                                                       \
  report(TRY("lea 88f(%%rip), %%rsi\n" code, FAR) == 13 && trap.error == 0 && trap.rip == trap.frame.rsi && trap.rsp == trap.frame.rdi, name " a non-canonical address: #GP(0) at the branch, which has not happened (%x)", trap.rip)
  BRANCH("mov %%rsp, %%rdi\n 88: jmp *%%rdx", "jump to");
  BRANCH("push %%rdx\n mov %%rsp, %%rdi\n 88: jmp *(%%rsp)", "jump by memory to");
  BRANCH("mov %%rsp, %%rdi\n 88: call *%%rdx", "call of");
  BRANCH("push %%rdx\n mov %%rsp, %%rdi\n 88: ret", "return to");
  BRANCH("push %%rdx\n mov %%rsp, %%rdi\n 88: ret $16", "return with an operand to");
  BRANCH("mov $5000, %%ecx\n 1: call 2f\n dec %%ecx\n jnz 1b\n ud2\n 2: cmp $1, %%ecx\n jne 88f\n mov %%rdx, (%%rsp)\n mov %%rsp, %%rdi\n 88: ret", "after 4,999 good ones, return to");
  report(TRY("mov (%%rdx), %%rax", MISSING) == 14 && trap.error == 0 && trap.cr2 == MISSING, "load from nothing: #PF(0)");
  report(TRY("mov %%rax, 8(%%rdx)", MISSING) == 14 && trap.error == 2 && trap.cr2 == MISSING + 8, "store to nothing: #PF(2)");
}

u64 word[4] __attribute__((aligned(32)));
static long vector;
#define USER_TRY(name, code)                                                                             \
  static void name(void) { asm volatile(code ::"d"(word) : "rax", "rcx", "memory", "cc"); }
USER_TRY(load1, "mov 1(%%rdx), %%eax")
USER_TRY(load8, "mov 4(%%rdx), %%rax")
USER_TRY(store2, "mov %%ax, 3(%%rdx)")
USER_TRY(byte1, "mov 1(%%rdx), %%al")
USER_TRY(aligned, "mov 8(%%rdx), %%rax")
USER_TRY(locked, "lock incl 2(%%rdx)")
USER_TRY(movups1, "movups 1(%%rdx), %%xmm0")
USER_TRY(push1, "mov %%rsp, %%rcx\n add $-3, %%rsp\n push %%rax\n mov %%rcx, %%rsp")
static void alignment(void) {
  WRCR(0, RDCR(0) | 0x40000);
  const long ac = 0x40000;
  report(user(load8, 0) == 0x20, "misaligned load at CPL 3 without RFLAGS.AC");
  report(user(load1, ac) == 17 && trap.error == 0, "misaligned load of 4 bytes at CPL 3: #AC(0)");
  report(user(load8, ac) == 17 && trap.error == 0, "misaligned load of 8 bytes: #AC(0)");
  report(user(store2, ac) == 17, "misaligned store of 2 bytes: #AC");
  report(user(byte1, ac) == 0x20, "a byte is always aligned");
  report(user(aligned, ac) == 0x20, "an aligned load");
  report(user(locked, ac) == 17, "misaligned locked increment: #AC");
  report(user(push1, ac) == 17, "push to a misaligned stack: #AC");
  (void)vector;
  report(TRY("pushfq\n orq $0x40000, (%%rsp)\n popfq\n mov 1(%%rdx), %%eax\n pushfq\n andq $~0x40000, (%%rsp)\n popfq", word) == -1, "no #AC at CPL 0");
  WRCR(0, RDCR(0) & ~0x40000ul);
  report(user(load8, ac) == 0x20, "no #AC without CR0.AM");
  (void)movups1;
}

/* Arithmetic flags of the frame: CF 1, PF 4, AF 0x10, ZF 0x40, SF 0x80, OF 0x800. */
#define FLAGS (trap.rflags & 0x8d5)
static void flags(void) {
  TRY("mov $0x7fffffff, %%eax\n add $1, %%eax\n mov (%%rdx), %%rcx\n xor %%eax, %%eax", FAR);
  report(FLAGS == 0x894, "flags of an addition in a fault's frame: %x", FLAGS);
  TRY("xor %%eax, %%eax\n sub $1, %%eax\n mov %%rax, (%%rdx)\n add $1, %%eax", FAR);
  report(FLAGS == 0x95, "flags of a subtraction: %x", FLAGS);
  TRY("mov $5, %%eax\n cmp $5, %%eax\n mov (%%rdx), %%eax\n cmp $6, %%eax", FAR);
  report(FLAGS == 0x44, "flags of a comparison: %x", FLAGS);
  TRY("stc\n mov $-2, %%eax\n inc %%eax\n mov (%%rdx), %%rcx\n xor %%eax, %%eax", FAR);
  report((FLAGS & 1) == 1 && (FLAGS & 0x80) == 0x80, "flags of an increment: %x", FLAGS);
  TRY("mov $0x80000001, %%eax\n shl $1, %%eax\n mov (%%rdx), %%rcx\n test %%eax, %%eax", FAR);
  report((FLAGS & 0x8c5) == 0x801, "flags of a shift: %x", FLAGS);
  TRY("mov $3, %%eax\n or $0x80000000, %%eax\n ud2", 0);
  report((FLAGS & 0x8c5) == 0x84, "flags of a logic operation before #UD: %x", FLAGS);
  TRY("mov $3, %%eax\n sub $3, %%eax\n xor %%edx, %%edx\n mov $1, %%ecx\n sub $2, %%ecx\n div %%edx\n add $1, %%eax", 0);
  report((FLAGS & 0x8d5) == 0x95, "flags before a division by zero: %x", FLAGS);
}

static void software(void) {
  u64 at;
  report(TRY("int3", 0) == 3, "int3: #BP");
  report(TRY(".byte 0xcd, 3", 0) == 3, "int 3: #BP");
  report(TRY(".byte 0xf1", 0) == 1, "int1: #DB");
  report(TRY("ud2", 0) == 6, "ud2: #UD");
  report(TRY(".byte 0x0f, 0xb9, 0xc0", 0) == 6, "ud1: #UD");
  report(TRY(".byte 0x0f, 0xff, 0xc0", 0) == 6, "ud0: #UD");
  report(TRY("lea 1f(%%rip), %%rax\n mov %%rax, (%%rdx)\n int3\n 1:", &at) == 3 && trap.rip == at, "int3 saves the next instruction's address");
  report(TRY(".byte 0xf0\n mov %%eax, (%%rdx)", &at) == 6, "lock before mov: #UD");
  report(TRY(".byte 0xf0\n add %%eax, %%edx", 0) == 6, "lock with a register destination: #UD");
  report(TRY("xor %%ecx, %%ecx\n div %%ecx", 0) == 0, "division by zero: #DE");
  report(TRY("mov $1, %%ecx\n mov $2, %%edx\n div %%ecx", 0) == 0, "quotient too large: #DE");
  report(TRY(".rept 15\n .byte 0x66\n .endr\n nop", 0) == 13, "16 bytes: #GP");
  report(TRY("mov $0x1234, %%ecx\n mov %%ecx, %%ds", 0) == 13 && trap.error == 0x1234, "selector beyond the GDT: #GP(selector)");
  report(TRY("mov $0, %%ecx\n mov %%ecx, %%ss\n mov $0x10, %%ecx\n mov %%ecx, %%ss", 0) == -1, "null SS at CPL 0 in 64-bit mode is fine");
  report(TRY("mov %%rdx, %%cr4", 1ul << 40) == 13, "reserved bits of CR4: #GP");
  report(TRY("mov %%cr0, %%rax\n btr $0, %%rax\n mov %%rax, %%cr0", 0) == 13, "PG without PE: #GP");
  report(TRY("mov %%cr0, %%rax\n bts $29, %%rax\n mov %%rax, %%cr0", 0) == 13, "NW without CD: #GP");
  report(TRY("mov %%cr4, %%rax\n btr $5, %%rax\n mov %%rax, %%cr4", 0) == 13, "PAE off in long mode: #GP");
  report(TRY("mov %%rdx, %%cr8", 16) == 13, "CR8 above 15: #GP");
  report(TRY(".byte 0x0f, 0x22, 0xc8", 0) == 6, "CR1: #UD");
  report(TRY("int $0x50", 0) == 0x50, "int n");
  at = RDCR(4);
  WRCR(4, at & ~(1ul << 9));
  report(TRY("xorps %%xmm0, %%xmm0", 0) == 6, "SSE without CR4.OSFXSR: #UD");
  WRCR(4, at);
  at = RDCR(0);
  WRCR(0, at | 8);
  report(TRY("xorps %%xmm0, %%xmm0", 0) == 7, "SSE with CR0.TS: #NM");
  report(TRY("fnop", 0) == 7, "x87 with CR0.TS: #NM");
  report(TRY("fwait", 0) == 7, "fwait with CR0.TS and CR0.MP: #NM");
  WRCR(0, (at | 4) & ~8ul);
  report(TRY("xorps %%xmm0, %%xmm0", 0) == 6, "SSE with CR0.EM: #UD");
  report(TRY("fnop", 0) == 7, "x87 with CR0.EM: #NM");
  WRCR(0, at);
  report(TRY("fld1\n fldz\n fdivrp\n fnstcw -8(%%rsp)\n fnclex\n movw $0x37b, -16(%%rsp)\n fldcw -16(%%rsp)\n fld1\n fldz\n fdivrp %%st, %%st(1)\n fwait", 0) == 16, "unmasked x87 exception: #MF");
  asm volatile("fninit");
  u32 mxcsr = 0x1f80 & ~0x200;
  asm volatile("ldmxcsr %0" ::"m"(mxcsr));
  report(TRY("mov $0x3f800000, %%eax\n movd %%eax, %%xmm0\n xorps %%xmm1, %%xmm1\n divss %%xmm1, %%xmm0", 0) == 19, "unmasked SSE exception: #XM");
  mxcsr = 0x1f80;
  asm volatile("ldmxcsr %0" ::"m"(mxcsr));
  report(TRY("movl $0xffffffff, -8(%%rsp)\n ldmxcsr -8(%%rsp)", 0) == 13, "reserved bits of MXCSR: #GP");
  report(TRY("movaps 1(%%rdx), %%xmm0", word) == 13, "misaligned movaps: #GP");
}
#define P(name, code) static void name(void) { asm volatile(code ::: "rax", "rcx", "rdx", "memory"); }
P(p_hlt, "hlt") P(p_cli, "cli") P(p_in, "in $0x60, %%al") P(p_rdmsr, "rdmsr") P(p_cr0, "mov %%cr0, %%rax") P(p_dr, "mov %%dr0, %%rax")
P(p_lgdt, "lgdt -16(%%rsp)") P(p_invlpg, "invlpg (%%rsp)") P(p_clts, "clts") P(p_wbinvd, "wbinvd") P(p_swapgs, "swapgs") P(p_int, "int $0x50")
P(p_ltr, "ltr %%ax") P(p_sysret, "sysretq") P(p_iopl, "pushfq\n popfq")
static void privilege(void) {
  wrmsr(0xc0000080, rdmsr(0xc0000080) | 1);
  static const struct { void (*f)(void); const char *name; int vector; u64 error; } list[] = {
    { p_hlt, "hlt", 13, 0 }, { p_cli, "cli", 13, 0 }, { p_in, "in", 13, 0 }, { p_rdmsr, "rdmsr", 13, 0 }, { p_cr0, "mov from cr0", 13, 0 }, { p_dr, "mov from dr0", 13, 0 },
    { p_lgdt, "lgdt", 13, 0 }, { p_invlpg, "invlpg", 13, 0 }, { p_clts, "clts", 13, 0 }, { p_wbinvd, "wbinvd", 13, 0 }, { p_swapgs, "swapgs", 13, 0 },
    { p_int, "int of a supervisor gate", 13, 0x50 * 8 + 2 }, { p_ltr, "ltr", 13, 0 }, { p_sysret, "sysret", 13, 0 }, { p_iopl, "popf", 0x20, -1ul } };
  for (unsigned i = 0; i < sizeof list / sizeof *list; i++) {
    long v = user(list[i].f, 0);
    report(v == list[i].vector && trap.error == list[i].error, "%s at CPL 3", list[i].name);
  }
}
int main(void) {
  canonical(); alignment(); flags(); software(); privilege();
  return done();
}
