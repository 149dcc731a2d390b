/* What is delivered when: I/O APIC pins by pc-testdev's lines, traps beside MOV SS, STI and HLT, calls of the hypervisor at the edge of the
   canonical addresses, where the local APIC's page is, where firmware tables are (Intel SDM volume 3, 6.7 to 6.9, 11.4, 18.3). */
#include "units.h"
static volatile int count; static u64 at[10], status[10];
static void on_db(struct frame *f) {
  if (count < 10) { at[count] = f->rip; status[count] = RDDR(6); }
  if (++count >= 10) f->rflags &= ~0x100;
}
static volatile int order[8], taken; static u64 from[8];
static void on_irq(struct frame *f) { from[taken & 7] = f->rip; order[taken++ & 7] = f->vector; apic_write(0xb0, 0); }
static void line(int n, int v) { outb(0x2000 + n, v); }
static void redirect(int n, u32 low, u32 high) {
  volatile u32 *io = (u32 *)0xfec00000;
  io[0] = 0x11 + 2 * n; io[4] = high; io[0] = 0x10 + 2 * n; io[4] = low;
}
static u32 entry(int n) { volatile u32 *io = (u32 *)0xfec00000; io[0] = 0x10 + 2 * n; return io[4]; }
static int level_seen;
static void on_level(struct frame *f) {
  taken++;
  level_seen |= entry(14) >> 14 & 1;
  if (taken == 2) line(14, 0);
  apic_write(0xb0, 0);
}
#define LABEL(x) ({ extern u8 x[]; (u64)x; })
#define STEP "pushfq\n orl $0x100, (%%rsp)\n popfq\n"
#define END "pushfq\n andl $~0x100, (%%rsp)\n popfq\n"

int main(void) {
  handlers[0x77] = handlers[0x78] = handlers[0x66] = on_irq;
  sti();
  redirect(14, 0x77, 0); line(14, 1); line(14, 0); asm volatile("nop");
  report(taken == 1 && order[0] == 0x77, "an edge of pin 14 interrupts at once (%d)", taken);
  redirect(14, 0x78, 0); redirect(15, 0x66, 0);
  cli(); taken = 0;
  line(15, 1); line(15, 0); line(14, 1); line(14, 0);
  asm volatile("sti; nop" ::: "memory");
  report(taken == 2 && order[0] == 0x78 && order[1] == 0x66 && from[0] == from[1], "two at once: the higher vector first, both at one instruction");
  redirect(14, 0x10077, 0); taken = 0; line(14, 1); line(14, 0); asm volatile("nop");
  report(taken == 0, "a masked pin is quiet");
  handlers[0x77] = on_level; taken = 0;
  redirect(14, 0x8077, 0); line(14, 1); asm volatile("nop; nop");
  report(taken == 2 && level_seen, "a level interrupts again until it falls; remote IRR is set meanwhile (%d)", taken);
  report(!(entry(14) >> 14 & 1), "and clear afterwards");
  redirect(14, 0x10000, 0); redirect(15, 0x10000, 0);

  handlers[1] = on_db;
  u16 ss; asm volatile("mov %%ss, %0" : "=r"(ss));
  count = 0; WRDR(6, 0);
  asm volatile(STEP "mov %0, %%ss\n .byte 0xf1\n .globl e1\n e1: .byte 0xf1\n .globl e2\n e2:" END ::"r"(ss) : "memory");
  report(count >= 3 && at[0] == LABEL(e1) && !(status[0] & 0x4000) && at[1] == LABEL(e2), "INT1 after MOV SS with TF: one #DB each, without DR6.BS (%d, %x)", count, status[0]);
  count = 0; WRDR(6, 0); WRDR(7, 0x2400);
  asm volatile(STEP "mov %0, %%ss\n .globl e3\n e3: mov %1, %%dr6\n .globl e4\n e4:" END ::"r"(ss), "r"(0ul) : "memory");
  report(count >= 2 && at[0] == LABEL(e3) && (status[0] & 0x6000) == 0x2000 && at[1] == LABEL(e4) && (status[1] & 0x4000), "DR7.GD counts after MOV SS as well (%d, %x, %x)", count, status[0], status[1]);
  WRDR(7, 0x400);
  handlers[0x40] = on_irq; taken = 0; count = 0; WRDR(6, 0);
  cli(); apic_write(0x3e0, 0xb); apic_write(0x320, 0x40); apic_write(0x380, 1000000);
  asm volatile(STEP "sti\n .globl e5\n e5: hlt\n .globl e6\n e6:" END ::: "memory");
  report(count >= 3 && at[0] == LABEL(e5) && at[1] == LABEL(e6), "single step over STI, and HLT, which the trap ends (%d, %d, %x, %x)", count, taken, at[0] - LABEL(e5), at[1] - LABEL(e5));
  apic_write(0x320, 0x10000);

  /* VMCALL and VMMCALL: one of them or both are there; a call in the last bytes of the lower half. */
  long v1 = TRY("mov $-1, %%rax\n .byte 0x0f, 0x01, 0xc1", 0), v2 = TRY("mov $-1, %%rax\n .byte 0x0f, 0x01, 0xd9", 0);
  report((v1 == -1 || v1 == 6) && (v2 == -1 || v2 == 6), "VMCALL %s, VMMCALL %s", v1 == -1 ? "works" : "is undefined", v2 == -1 ? "works" : "is undefined");
  static u64 t[3][512] __attribute__((aligned(4096))); static u8 edge[4096] __attribute__((aligned(4096)));
  pml4[255] = (u64)t[0] | 7; t[0][511] = (u64)t[1] | 7; t[1][511] = (u64)t[2] | 7; t[2][511] = (u64)edge | 7;
  for (int i = 0; i < 4096; i++) edge[i] = 0x90;
  WRCR(3, RDCR(3));
  report(TRY("jmp *%%rdx", 0x7ffffffffffe) == 13 && trap.rip == 0x800000000000, "a NOP before the first address that is not canonical: #GP there (%x)", trap.rip);
  if (v1 == -1) {
    edge[4093] = 0x0f; edge[4094] = 0x01; edge[4095] = 0xc1;
    report(TRY("mov $-1, %%rax\n jmp *%%rdx", 0x7ffffffffffd) == 13 && trap.rip == 0x800000000000, "VMCALL there: #GP behind it (%x)", trap.rip);
  }
  u8 *end = edge + 4094; end[0] = 0x0f; end[1] = 0x05;

  /* The local APIC's page. */
  u64 base = rdmsr(0x1b); u32 version = apic_read(0x30);
  wrmsr(0x1b, base & ~0xc00ul);
  wrmsr(0x1b, 0xfed40000 | (base & 0x100) | 0x800);
  report(*(volatile u32 *)0xfed40030 == version, "moved to 0xfed40000 (%x)", (u64)*(volatile u32 *)0xfed40030);
  report(try_wrmsr(0x1b, base | 1ul << (cpuid(0x80000008, 0).a & 0xff)) == 13 && try_wrmsr(0x1b, base | 1) == 13, "reserved bits of its base: #GP");
  wrmsr(0x1b, base);
  if (cpuid(1, 0).c >> 21 & 1) {
    wrmsr(0x1b, base | 0x400);
    report(apic_read(0x30) == ~0u && apic_read(0x80) == ~0u, "no page in x2APIC mode");
    wrmsr(0x1b, base & ~0xc00ul); wrmsr(0x1b, base);
  }
  apic_write(0xf0, 0x1ff);

  /* ACPI's root pointer in the BIOS's area, with a good sum. */
  u8 *rsdp = 0;
  for (u8 *p = (u8 *)0xe0000; p < (u8 *)0x100000 && !rsdp; p += 16) if (*(u64 *)p == 0x2052545020445352) rsdp = p;
  u8 sum = 0; for (int i = 0; rsdp && i < 20; i++) sum += rsdp[i];
  report(rsdp && sum == 0, "the RSDP is found (%x)", (u64)rsdp);
  u32 *rsdt = rsdp ? (u32 *)(u64) * (u32 *)(rsdp + 16) : 0; int fadt = 0;
  for (u32 i = 9; rsdt && i < rsdt[1] / 4; i++) if (*(u32 *)(u64)rsdt[i] == 0x50434146) fadt = *(u32 *)((u64)rsdt[i] + 76);
  u32 a = fadt ? ({ u32 v; asm volatile("inl %w1, %0" : "=a"(v) : "d"(fadt)); v; }) : 0;
  for (int i = 0; i < 200000; i++) pause_();
  u32 b = fadt ? ({ u32 v; asm volatile("inl %w1, %0" : "=a"(v) : "d"(fadt)); v; }) : 0;
  report(fadt && a != b, "the FADT's power management timer at port %x runs", (u64)fadt);
  return done();
}
