/* Task switches: jumps, calls, gates, returns, what each saves and checks, TSSs of 16 and 32 bits (Intel SDM volume 3, chapter 7). */
#include "units.h"

static struct tss other, third;
static struct { u16 link, sp0, ss0, sp1, ss1, sp2, ss2, ip, flags, ax, cx, dx, bx, sp, bp, si, di, es, cs, ss, ds, ldt; } small;
static u8 stack[4096] __attribute__((aligned(16))), stack3[4096] __attribute__((aligned(16)));
static u64 ldt[4];
static volatile u32 seen[8];
static u32 far_a[2] = { 0, A }, far_b[2] = { 0, B };
#define CODE_AT(name, text) asm(".text\n .globl " #name "\n" #name ":\n" text); void name(void);
/* The other task notes what it finds and goes back: by IRET, again and again. */
CODE_AT(task_iret, "1: mov %eax, seen\n str seen + 4\n pushf\n pop seen + 8\n mov %cr0, %eax\n mov %eax, seen + 12\n mov %ebx, seen + 16\n incl seen + 20\n iret\n jmp 1b")
CODE_AT(task_jump, "1: mov %eax, seen\n str seen + 4\n pushf\n pop seen + 8\n incl seen + 20\n ljmp $0x28, $0\n jmp 1b")
/* It also takes the faulting task past its instruction. */
CODE_AT(task_error, "1: pop seen + 24\n incl seen + 20\n mov recover_ip, %eax\n mov %eax, tss + 32\n iret\n jmp 1b")
/* A handler of its own, since the task that failed may have no stack. */
CODE_AT(task_fault, "1: pop seen + 24\n incl seen + 20\n ljmp $0x28, $0\n jmp 1b")
CODE_AT(task_double, "pop seen + 24\n incl seen + 20\n andb $0xfd, gdt + 0x2d\n mov $0x28, %eax\n ltr %ax\n jmp recover")

static void fresh(struct tss *t, void (*f)(void), u32 selector) {
  for (u32 *p = (u32 *)t; p < (u32 *)(t + 1); p++) *p = 0;
  t->eip = (u32)f; t->eflags = 2; t->cs = CODE; t->ss = t->ds = t->es = DATA; t->esp = (u32)stack + sizeof stack - 16;
  t->eax = 0x11111111; t->ebx = 0x22222222; t->cr3 = RDCR(3); t->esp0 = t->esp; t->ss0 = DATA; t->map = 104;
  descriptor(selector, (u32)t, 0x67, TSS32);
  for (int i = 0; i < 8; i++) seen[i] = 0;
}
static int busy(u32 selector) { return gdt[selector >> 3] >> 41 & 1; }
static u32 tr(void) { u32 v = 0; asm volatile("str %0" : "=r"(v)); return v; }
static void switches(void) {
  fresh(&other, task_iret, A);
  int v = TRY("mov $0xabcd, %%ebx\n stc\n lcall *(%%edx)", far_a);
  report(v == -1 && seen[5] == 1, "CALL to a TSS runs the task, IRET comes back");
  report(seen[0] == 0x11111111 && seen[4] == 0x22222222 && seen[1] == A, "it starts with the registers of its TSS");
  report((seen[2] & 0x4000) && other.link == TSS, "a called task has NT and a link back");
  report(seen[3] & 8, "a task switch sets CR0.TS");
  report(tr() == TSS && busy(TSS) && !busy(A), "TR and the busy bits after the return");
  report(tss.ebx == 0xabcd && (tss.eflags & 1) && tss.cs == CODE && tss.ss == DATA, "the caller's registers were saved: %x %x %x %x", tss.ebx, tss.eflags, tss.cs, tss.ss);
  report((other.eflags & 0x4000) == 0, "IRET saves the task's flags with NT clear");
  asm volatile("clts");
  v = TRY("lcall *(%%edx)", far_a);
  report(v == -1 && seen[5] == 2, "a second call goes on behind the IRET");
  fresh(&other, task_jump, A);
  v = TRY("ljmp *(%%edx)", far_a);
  report(v == -1 && seen[5] == 1 && !(seen[2] & 0x4000) && !busy(A) && tr() == TSS, "JMP to a TSS and back: no NT, not busy");
  gdt[C >> 3] = gate(A, 0, TASK, 0);
  static u32 far_c[2] = { 0, C };
  v = TRY("ljmp *(%%edx)", far_c);
  report(v == -1 && seen[5] == 2, "JMP to a task gate");
  fresh(&other, task_iret, A);
  idt_set(0x30, A, 0, TASK);
  v = TRY("int $0x30", 0);
  report(v == -1 && seen[5] == 1 && (seen[2] & 0x4000), "INT through a task gate");
  fresh(&other, task_error, A);
  u64 old = idt[13];
  idt_set(13, A, 0, TASK);
  TRY("movw $0xfff8, %%ax\n mov %%ax, %%ds", 0);
  idt[13] = old;
  report(seen[5] == 1 && seen[6] == 0xfff8, "an exception through a task gate pushes its error code: %x", seen[6]);
}
static void checks(void) {
  int v;
  fresh(&other, task_jump, A);
  gdt[A >> 3] |= 2ull << 40;
  report(TRY("ljmp *(%%edx)", far_a) == 13 && trap.error == A, "JMP to a busy TSS: #GP(selector)");
  report(TRY("lcall *(%%edx)", far_a) == 13 && trap.error == A, "CALL to a busy TSS: #GP(selector)");
  descriptor(A, (u32)&other, 0x67, TSS32 & ~PRESENT);
  report(TRY("ljmp *(%%edx)", far_a) == 11 && trap.error == A, "TSS not present: #NP(selector)");
  descriptor(A, (u32)&other, 0x66, TSS32);
  report(TRY("ljmp *(%%edx)", far_a) == 10 && trap.error == A, "TSS too short: #TS(selector)");
  idt_set(0x30, DATA, 0, TASK);
  report(TRY("int $0x30", 0) == 13 && trap.error == DATA, "a task gate to data: #GP(selector)");
  idt_set(0x30, A | 4, 0, TASK);
  report(TRY("int $0x30", 0) == 13 && trap.error == (A | 4), "a task gate to the LDT: #GP(selector)");
  report(TRY("pushf\n orl $0x4000, (%%esp)\n popf\n iret", 0) == 10 && trap.error == 0, "IRET with NT and a null link: #TS");
  tss.link = A;
  descriptor(A, (u32)&other, 0x67, TSS32);
  report(TRY("pushf\n orl $0x4000, (%%esp)\n popf\n iret", 0) == 10 && trap.error == A, "IRET with NT to a task that is not busy: #TS(selector)");
  tss.link = 0;
  /* Faults in the new task, which has to survive them: it goes back by itself. */
  static const struct { const char *name; u32 offset, value, vector, error; } bad[] = {
    { "a null CS", 0x4c, 0, 10, 0 }, { "data as CS", 0x4c, DATA, 10, DATA }, { "CS beyond the GDT", 0x4c, 33 * 8, 10, 33 * 8 },
    { "an ES of a system type", 0x48, A, 10, A }, { "a DS of execute-only code", 0x54, D, 10, D }, { "an FS that is not present", 0x58, E, 11, E },
    { "an LDT that is none", 0x60, DATA, 10, DATA }, { "an LDT in the LDT", 0x60, A | 4, 10, A | 4 } };
  descriptor(D, 0, 0xfffff, EXECUTE | BIG | GRANULAR);
  descriptor(E, 0, 0xfffff, (WRITE & ~PRESENT) | BIG | GRANULAR);
  u64 old[2] = { idt[10], idt[11] };
  for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
    fresh(&third, task_fault, H);
    idt_set(10, bad[i].vector == 10 ? H : 0, 0, TASK);
    idt_set(11, bad[i].vector == 11 ? H : 0, 0, TASK);
    fresh(&other, task_jump, A);
    *(u32 *)((u8 *)&other + bad[i].offset) = bad[i].value;
    v = TRY("ljmp *(%%edx)", far_a);
    report(v == -1 && seen[5] == 1 && seen[6] == bad[i].error && third.link == A, "task with %s: vector %d in the new task, error %x, link %x", bad[i].name, bad[i].vector, seen[6], third.link);
  }
  idt[10] = old[0]; idt[11] = old[1];
  fresh(&other, task_jump, A);
  other.t = 1;
  v = TRY("ljmp *(%%edx)", far_a);
  report(v == 1 && (RDDR(6) & 0x8000) && trap.eip == (u32)task_jump, "a TSS with the T bit: #DB with DR6.BT before its first instruction");
  WRDR(6, 0);
  descriptor(TSS, (u32)&tss, sizeof tss - 1, TSS32);
  asm volatile("ltr %w0" ::"r"(TSS));
  fresh(&other, task_jump, A);
  WRDR(7, 0x401 | 1 << 1);
  report(TRY("ljmp *(%%edx)", far_a) == -1 && (RDDR(7) & 3) == 2, "a task switch clears the local breakpoints of DR7: %x", RDDR(7));
  WRDR(7, 0x400);
}
static void sixteen(void) {
  /* Code in a segment that a 16-bit IP reaches. */
  fresh(&third, task_jump, B);
  descriptor(F, (u32)task_iret, 0xffff, CODE_READ | BIG);
  descriptor(G, (u32)stack3, 0xfff, WRITE);
  small.ip = 0; small.flags = 2; small.cs = F; small.ss = G; small.sp = 0x800; small.ds = small.es = DATA;
  small.ax = 0x1234; small.bx = 0x5678; small.ldt = 0;
  descriptor(B, (u32)&small, 0x2b, TSS16);
  int v = TRY("lcall *(%%edx)", far_b);
  report(v == -1 && seen[5] == 1 && seen[1] == B && (seen[0] & 0xffff) == 0x1234 && (seen[4] & 0xffff) == 0x5678, "CALL to a 16-bit TSS and IRET");
  report(small.link == TSS && !(gdt[B >> 3] >> 41 & 1), "its link, and its busy bit afterwards");
  descriptor(B, (u32)&small, 0x2a, TSS16);
  report(TRY("ljmp *(%%edx)", far_b) == 10 && trap.error == B, "a 16-bit TSS too short: #TS(selector)");
}
static u32 directory[1024] __attribute__((aligned(4096)));
static void paging(void) {
  for (int i = 0; i < 1024; i++) directory[i] = i << 22 | 0x83;
  WRCR(4, RDCR(4) | 0x10);
  WRCR(3, directory);
  WRCR(0, RDCR(0) | 0x80000000);
  static u32 another[1024] __attribute__((aligned(4096)));
  for (int i = 0; i < 1024; i++) another[i] = i << 22 | 0x83;
  another[100] = 0x83;
  fresh(&other, task_jump, A);
  other.cr3 = (u32)another;
  tss.cr3 = (u32)directory;
  report(TRY("ljmp *(%%edx)", far_a) == -1 && RDCR(3) == (u32)directory, "a switch loads CR3, and the one back again");
  WRCR(0, RDCR(0) & ~0x80000000);
  WRCR(3, 0);
}
/* A double fault through a task gate: the last resort of an operating system without a stack. */
static void double_fault(void) {
  u64 old = idt[8];
  fresh(&third, task_double, H);
  idt_set(8, H, 0, TASK);
  descriptor(G, (u32)stack3, 0xff, WRITE | BIG);
  /* #SS cannot be delivered on this stack either. */
  int v = TRY("mov %%edx, %%ss\n mov $0x800, %%esp\n push %%eax\n mov $0x10, %%eax\n mov %%eax, %%ss\n mov recover_sp, %%esp", G);
  report(seen[5] == 1 && seen[6] == 0, "a double fault through a task gate, with error code 0: %x", seen[6]);
  report((tss.ss & 0xffff) == G && tss.esp == 0x800, "the TSS of the task that failed shows its stack: %x:%x", tss.ss, tss.esp);
  idt[8] = old;
}
int main(void) {
  switches(); checks(); sixteen(); paging(); double_fault();
  return done();
}
