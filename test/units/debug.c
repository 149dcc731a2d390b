/* Debug registers, single step, and what follows MOV SS (Intel SDM volume 3, sections 17.2 and 17.3, 6.8.3). */
#include "units.h"

static volatile u64 data[64] __attribute__((aligned(4096)));
static u64 hits[64], status[64];
static int count, resumed;
static void on_debug(struct frame *f) {
  if (count < 64) { hits[count] = f->rip; status[count] = RDDR(6); }
  resumed += f->rflags >> 16 & 1;
  count++;
  WRDR(6, 0xffff0ff0);
  f->rflags |= 0x10000;
}
static int soft_debug;
static void on_soft(struct frame *f) { if (count == 1) soft_debug++; }
/* Where the gate of a vector leads. */
static u64 handler_of(int vector) {
  struct { u16 limit; u64 base; } __attribute__((packed)) idt;
  asm volatile("sidt %0" : "=m"(idt));
  u64 *gate = (u64 *)(idt.base + 16 * vector);
  return (gate[0] & 0xffff) | (gate[0] >> 32 & 0xffff0000) | gate[1] << 32;
}
#define LABEL(name) ({ u64 a_; asm volatile("lea " #name "(%%rip), %0" : "=r"(a_)); a_; })
static void begin(void) { count = resumed = 0; WRDR(6, 0xffff0ff0); }
static void clear(void) { WRDR(7, 0x400); }
/* Enables breakpoint n: kind 0 code, 1 write, 2 port, 3 access; length 0 to 3 as encoded. */
static void watch(int n, u64 at, int kind, int length) {
  if (n == 0) WRDR(0, at); else if (n == 1) WRDR(1, at); else if (n == 2) WRDR(2, at); else WRDR(3, at);
  WRDR(7, RDDR(7) | 1ul << (2 * n) | (u64)(kind | length << 2) << (16 + 4 * n));
}

static void stepping(void) {
  begin();
  asm volatile("pushfq\n orq $0x100, (%%rsp)\n popfq\n s1: nop\n s2: mov $1, %%eax\n s3: pushfq\n andq $~0x100, (%%rsp)\n s4: popfq\n s5: nop" ::: "rax", "memory", "cc");
  report(count == 5 && hits[0] == LABEL(s2) && hits[1] == LABEL(s3) && hits[4] == LABEL(s5), "single step: one trap after each instruction (%d)", count);
  report(status[0] == 0xffff4ff0, "single step sets DR6.BS: %x", status[0]);
  begin();
  asm volatile("mov $3, %%ecx\n mov %0, %%rdi\n pushfq\n orq $0x100, (%%rsp)\n popfq\n r1: rep stosb\n r2: pushfq\n andq $~0x100, (%%rsp)\n popfq" ::"r"(data) : "rcx", "rdi", "memory", "cc");
  report(count == 6 && hits[0] == LABEL(r1) && hits[1] == LABEL(r1) && hits[2] == LABEL(r2), "single step: a trap after each iteration of REP (%d)", count);
  begin();
  asm volatile("mov %%ss, %%ecx\n pushfq\n orq $0x100, (%%rsp)\n popfq\n mov %%ecx, %%ss\n m1: nop\n m2: pushfq\n andq $~0x100, (%%rsp)\n popfq" ::: "rcx", "memory", "cc");
  report(count == 4 && hits[0] == LABEL(m2), "single step: MOV SS holds the trap off for one instruction (%d)", count);
  begin();
  asm volatile("pushfq\n orq $0x100, (%%rsp)\n popfq\n int $0x51\n i2: nop\n pushfq\n andq $~0x100, (%%rsp)\n popfq" ::: "memory", "cc");
  report(count >= 4 && hits[0] != LABEL(i2), "single step: INT n clears TF and its trap (%d)", count);
}

static void code(void) {
  begin();
  watch(0, LABEL(c1), 0, 0);
  asm volatile("mov $1, %%eax\n c1: mov $2, %%eax\n nop" ::: "rax");
  report(count == 1 && hits[0] == LABEL(c1) && (status[0] & 0xe00f) == 1, "instruction breakpoint: before the instruction, once with RF");
  begin();
  for (int i = 0; i < 5; i++) asm volatile("call c2\n jmp 1f\n c2: ret\n 1:");
  clear(); begin();
  watch(1, LABEL(c2), 0, 0);
  for (int i = 0; i < 5; i++) asm volatile("call c2");
  report(count == 5 && (status[0] & 0xe00f) == 2, "instruction breakpoint in code that ran before: %d", count);
  clear(); begin();
  watch(0, LABEL(c3), 0, 0);
  watch(1, (u64)&data[1] + 1, 1, 0);
  asm volatile("mov $3000, %%ecx\n mov %0, %%rdi\n c3: rep stosb\n c4: nop" ::"r"(data) : "rcx", "rdi", "memory");
  report(count == 2 && hits[0] == LABEL(c3) && hits[1] == LABEL(c3) && (status[0] & 0xf) == 1 && (status[1] & 0xf) == 2 && resumed == 1,
    "instruction breakpoint on REP: once, before the first iteration; RF is set in the frame of a trap behind it (%d, %d)", count, resumed);
  clear(); begin();
  asm volatile("mov %1, %%ecx\n mov %0, %%rdi\n pushfq\n orq $0x100, (%%rsp)\n popfq\n c5: rep stosb\n pushfq\n andq $~0x100, (%%rsp)\n popfq" ::"r"(data), "i"(3) : "rcx", "rdi", "memory", "cc");
  report(count == 6 && resumed == 2, "single step: RF is set in the frames of all iterations but the last (%d, %d)", count, resumed);
  clear(); begin();
  WRDR(0, LABEL(c1));
  asm volatile("call c2");
  report(count == 0, "breakpoint that is not enabled");
}

static void memory(void) {
  begin();
  watch(0, (u64)&data[0], 1, 3);
  asm volatile("movl $1, (%0)\n d1: nop" ::"r"(data) : "memory");
  report(count == 1 && hits[0] == LABEL(d1) && (status[0] & 0xe00f) == 1, "write breakpoint: after the store (%d)", count);
  begin();
  asm volatile("mov (%0), %%eax\n movb $1, 3(%0)\n d2: movb $1, 4(%0)\n nop" ::"r"(data) : "rax", "memory");
  report(count == 1 && hits[0] == LABEL(d2), "write breakpoint: not for loads, any byte of it, not the next (%d)", count);
  begin();
  asm volatile("movq $1, -6(%0)\n d3: nop" ::"r"(data + 1) : "memory");
  report(count == 1 && hits[0] == LABEL(d3), "write breakpoint: an access that overlaps (%d)", count);
  begin();
  for (int i = 0; i < 100; i++) data[i & 7] = i;
  report(count == 13, "write breakpoint in a loop: %d", count);
  begin();
  asm volatile("lock incl (%0)\n pushq (%0)\n popq (%0)\n d4: nop" ::"r"(data) : "memory");
  report(count == 2 && hits[1] == LABEL(d4), "write breakpoint: read-modify-write and POP (%d)", count);
  begin();
  asm volatile("mov $16, %%ecx\n mov %0, %%rdi\n d5: rep stosb\n" ::"r"(data) : "rcx", "rdi", "memory");
  report(count == 4 && hits[0] == LABEL(d5), "write breakpoint: REP STOS stops after each byte of it (%d)", count);
  clear(); begin();
  watch(2, (u64)&data[4], 3, 2);
  asm volatile("mov 32(%0), %%rax\n d6: nop\n mov %%rax, 32(%0)\n d7: nop\n mov 40(%0), %%rax" ::"r"(data) : "rax", "memory");
  report(count == 2 && hits[0] == LABEL(d6) && hits[1] == LABEL(d7) && (status[0] & 0xe00f) == 4, "access breakpoint of 8 bytes: loads and stores (%d)", count);
  begin();
  u64 sum = 0;
  for (int i = 0; i < 40000; i++) sum += data[i & 7];
  report(count == 5000, "access breakpoint in a hot loop: %d", count);
  begin();
  asm volatile("movups 24(%0), %%xmm0\n movups %%xmm0, 40(%0)\n" ::"r"(data) : "memory");
  report(count == 1, "access breakpoint: vector loads (%d)", count);
  begin();
  asm volatile("fldt 28(%0)\n fstp %%st\n" ::"r"(data) : "memory");
  report(count == 1, "access breakpoint: x87 loads (%d)", count);
  data[4] = 0x10;
  begin();
  asm volatile("mov %0, %%rax\n mov 32(%%rax), %%ss\n nop\n d8: nop" ::"r"(data) : "rax", "memory");
  report(count == 1 && hits[0] == LABEL(d8), "access breakpoint of MOV SS waits for the next instruction (%d)", count);
  begin();
  soft_debug = 0;
  asm volatile("mov %0, %%rax\n mov 32(%%rax), %%ss\n int $0x51\n d9: nop" ::"r"(data) : "rax", "memory");
  report(count == 1 && soft_debug == 1 && hits[0] == handler_of(0x51) && (status[0] & 0xe00f) == 4, "access breakpoint of MOV SS before INT n: at its handler (%d)", count);
  begin();
  idt_set(3, (void *)handler_of(3), 0, 0); /* #DB has the stack of the IST that #BP had */
  asm volatile("mov %0, %%rax\n mov 32(%%rax), %%ss\n int3" ::"r"(data) : "rax", "memory");
  report(count == 1 && soft_debug == 2 && hits[0] == handler_of(3), "access breakpoint of MOV SS before INT3: at its handler (%d)", count);
  begin();
  asm volatile("mov %0, %%rax\n mov 32(%%rax), %%ss\n .byte 0xf1" ::"r"(data) : "rax", "memory");
  report(count == 1, "access breakpoint of MOV SS before INT1: one #DB (%d)", count);
  /* An instruction that faults drops it: so does the host's processor, where a debugger watches what a program loads SS from. */
  begin();
  long v = TRY("mov 32(%%rdx), %%ss\n ud2", data);
  report(v == 6 && count == 0, "access breakpoint of MOV SS before UD2: gone (%d)", count);
  begin();
  v = TRY("xor %%ecx, %%ecx\n mov 32(%%rdx), %%ss\n div %%ecx", data);
  report(v == 0 && count == 0, "access breakpoint of MOV SS before a #DE: gone (%d)", count);
  begin();
  v = TRY("mov $1, %%rcx\n shl $63, %%rcx\n mov 32(%%rdx), %%ss\n mov (%%rcx), %%eax\n nop", data);
  report(v == 13 && count == 0, "access breakpoint of MOV SS before a #GP: gone (%d)", count);
  clear(); begin();
  data[4] = 1;
  report(count == 0, "disabled breakpoints rest");
  begin();
  watch(3, 0xe0, 2, 0);
  WRCR(4, RDCR(4) | 8);
  outb(0xe0, 1);
  outb(0xe1, 1);
  WRCR(4, RDCR(4) & ~8ul);
  report(count == 1 && (status[0] & 0xe00f) == 8, "port breakpoint (%d, %x)", count, status[0]);
  clear();
}
static void registers(void) {
  WRDR(7, 0x2400);
  handlers[1] = NULL;
  report(TRY("mov %%dr0, %%rax", 0) == 1 && (RDDR(6) & 0x2000), "DR7.GD: #DB with DR6.BD");
  report(!(RDDR(7) & 0x2000), "the handler runs with DR7.GD clear");
  WRCR(4, RDCR(4) | 8);
  report(TRY("mov %%dr4, %%rax", 0) == 6, "DR4 with CR4.DE: #UD");
  WRCR(4, RDCR(4) & ~8ul);
  report(TRY("mov %%dr4, %%rax", 0) == -1, "DR4 without CR4.DE is DR6");
  report(TRY("mov %%rdx, %%dr7", 1ul << 32) == 13 && TRY("mov %%rdx, %%dr6", 1ul << 32) == 13, "upper half of DR6 and DR7: #GP");
  WRDR(6, 0);
  report(RDDR(6) == 0xffff0ff0, "fixed bits of DR6: %x", RDDR(6));
  WRDR(7, 0);
  report(RDDR(7) == 0x400, "fixed bits of DR7: %x", RDDR(7));
}
static void nothing(void) {}
static void system_calls(void) {
  user(nothing, 0); /* Sets the stack for what interrupts CPL 3. */
  wrmsr(0xc0000080, rdmsr(0xc0000080) | 1);
  wrmsr(0xc0000081, 0x28ul << 48 | 8ul << 32);
  wrmsr(0xc0000082, LABEL(t3)); wrmsr(0xc0000084, 0x100);
  begin();
  asm volatile("lea t1(%%rip), %%rcx\n mov $0x102, %%r11d\n sysretq\n t1: nop\n t2: syscall\n t3: nop\n nop" ::: "rcx", "r11", "memory", "cc");
  report(count == 2 && hits[0] == LABEL(t1) && hits[1] == LABEL(t2), "single step: SYSRET that sets TF traps at its target, SYSCALL that masks TF does not (%d)", count);
  wrmsr(0xc0000082, LABEL(t6)); wrmsr(0xc0000084, 0);
  begin();
  asm volatile("lea t4(%%rip), %%rcx\n mov $0x102, %%r11d\n sysretq\n t4: nop\n t5: syscall\n t6: pushfq\n andq $~0x100, (%%rsp)\n popfq" ::: "rcx", "r11", "memory", "cc");
  report(count == 6 && hits[1] == LABEL(t5) && hits[2] == LABEL(t6), "single step: SYSCALL that keeps TF traps at its target (%d)", count);
  wrmsr(0xc0000082, LABEL(t9)); wrmsr(0xc0000084, 0x100);
  data[4] = 0x10;
  begin();
  watch(2, (u64)&data[4], 3, 2);
  asm volatile("mov %0, %%rax\n mov 32(%%rax), %%ss\n syscall\n nop\n t9: nop" ::"r"(data) : "rax", "rcx", "r11", "memory", "cc");
  report(count == 1 && hits[0] == LABEL(t9) && (status[0] & 0xe00f) == 4, "access breakpoint of MOV SS before SYSCALL strikes at its target (%d)", count);
  clear();
}
int main(void) {
  handlers[1] = on_debug;
  handlers[0x51] = handlers[3] = on_soft;
  stepping(); code(); memory(); system_calls(); registers();
  return done();
}
