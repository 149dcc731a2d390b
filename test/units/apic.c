/* The local APIC: modes, identification, IPIs, NMIs, priorities, timers (Intel SDM volume 3, chapter 11). Two vCPUs. */
#include "units.h"

static volatile int count, nmis, order[8], length;
static void eoi(void) { apic_write(0xb0, 0); }
static void on_irq(struct frame *f) { count++; if (length < 8) order[length++] = f->vector; eoi(); }
static void on_nmi(struct frame *f) { nmis++; if (nmis == 1) for (int i = 0; i < 10; i++) { apic_write(0x310, 0); apic_write(0x300, 0x400); } }
static void on_nmi_once(struct frame *f) { nmis++; }
/* What an instruction before has set off is there by now. */
static __attribute__((noinline)) void settle(void) { asm volatile("jmp 1f\n 1: jmp 2f\n 2:"); }
static void base(u64 v) { wrmsr(0x1b, v); }
static void wait_for(volatile int *what, int value) { u64 end = rdtsc() + 20000000000ul; while (*what < value && rdtsc() < end) pause_(); }

static void modes(void) {
  u64 first = rdmsr(0x1b), off = first & ~0xc00ul, v;
  report((first & 0x900) == 0x900, "enabled, bootstrap processor");
  report(cpuid(1, 0).d >> 9 & 1, "CPUID shows the APIC");
  report(try_wrmsr(0x1b, off | 0x400) == 13, "xAPIC to an invalid mode: #GP");
  report(try_wrmsr(0x1b, first | 1) == 13 && try_wrmsr(0x1b, first | 1ul << 50) == 13, "reserved bits of the base: #GP");
  report(try_rdmsr(0x802, &v) == 13, "x2APIC registers in xAPIC mode: #GP");
  base(off | 0xc00);
  report(rdmsr(0x802) == cpuid(0xb, 0).d, "x2APIC ID as CPUID has it");
  report(try_wrmsr(0x802, 1) == 13, "the x2APIC ID is read-only");
  report(try_wrmsr(0x1b, off | 0x800) == 13, "x2APIC to xAPIC: #GP");
  report(try_wrmsr(0x80e, 0) == 13 && try_rdmsr(0x80e, &v) == 13, "no DFR in x2APIC mode");
  report(try_wrmsr(0x808, 0x100) == 13, "reserved bits of TPR: #GP");
  report(try_wrmsr(0x80b, 1) == 13 && try_wrmsr(0x80b, 0) == -1, "EOI takes 0 alone");
  report(try_wrmsr(0x828, 1) == 13, "ESR takes 0 alone");
  report(rdmsr(0x80d) == ((cpuid(0xb, 0).d >> 4) << 16 | 1u << (cpuid(0xb, 0).d & 15)), "LDR follows from the ID");
  base(off);
  report(!(cpuid(1, 0).d >> 9 & 1), "CPUID hides an APIC that is off");
  report(APIC[0x30 / 4] == 0xffffffff, "no registers while it is off");
  WRCR(8, 5);
  report(RDCR(8) == 5, "CR8 works while it is off");
  WRCR(8, 0);
  report(try_wrmsr(0x1b, off | 0xc00) == 13, "off to x2APIC: #GP");
  base(off | 0x800);
  report(apic_read(0x20) >> 24 == cpuid(1, 0).b >> 24, "xAPIC ID after it was off");
  apic_write(0xf0, 0x1ff);
  WRCR(8, 3);
  report(apic_read(0x80) == 0x30, "CR8 is the upper half of TPR");
  WRCR(8, 0);
}
static void ipis(void) {
  handlers[0xf1] = handlers[0x41] = handlers[0x52] = handlers[0x93] = on_irq;
  count = length = 0;
  sti();
  apic_write(0x300, 0x440f1);
  settle();
  report(count == 1, "self IPI is taken at once (%d)", count);
  cli();
  count = length = 0;
  apic_write(0x300, 0x44041); apic_write(0x300, 0x44093); apic_write(0x300, 0x44052); apic_write(0x300, 0x44052);
  report(count == 0 && apic_read(0x200 + 0x10 * 4) & 1 << 19, "held by IF, in IRR");
  sti();
  settle();
  report(length == 3 && order[0] == 0x93 && order[1] == 0x52 && order[2] == 0x41, "highest vector first, equal ones once (%d)", length);
  count = 0;
  apic_write(0x80, 0x50);
  apic_write(0x300, 0x44052);
  settle();
  report(count == 0 && apic_read(0xa0) == 0x50, "TPR holds its class back");
  apic_write(0x80, 0x40);
  settle();
  report(count == 1, "and lets it go when lowered");
  apic_write(0x80, 0);
  cli();
  apic_write(0x300, 0x440f1);
  count = 0;
  settle();
  asm volatile("sti\n cli" ::: "memory");
  report(count == 0, "STI holds interrupts off for one instruction");
  asm volatile("sti\n nop\n cli" ::: "memory");
  report(count == 1, "then they come (%d)", count);
  apic_write(0x280, 0); apic_write(0x280, 0);
  apic_write(0x300, 0x44005);
  apic_write(0x280, 0);
  report(apic_read(0x280) & 0x20, "vector below 16: send error in ESR (%x)", (u64)apic_read(0x280));
}
static void nmi(void) {
  handlers[2] = on_nmi;
  int good = 1;
  for (int i = 0; i < 200; i++) {
    nmis = 0;
    apic_write(0x310, 0); apic_write(0x300, 0x400);
    wait_for(&nmis, 2);
    for (int k = 0; k < 50; k++) pause_();
    if (nmis != 2) good = 0;
  }
  report(good, "NMIs within an NMI are one (%d)", nmis);
  handlers[2] = on_nmi_once;
}
static volatile int turn, back, stop;
static void kicker(void *unused) {
  for (int i = 1; !stop; i++) {
    while (turn != i && !stop) pause_();
    apic_write(0x310, 0); apic_write(0x300, 0x400);
    apic_write(0x310, 0); apic_write(0x300, 0x44 | 0x4000);
    back = i;
  }
}
static volatile int flushed;
static void on_flush(struct frame *f) { flushed = 1; eoi(); }
static void two_nmis(void) {
  handlers[0x44] = on_flush;
  sti();
  on_cpu(1, kicker, NULL);
  int good = 1;
  for (int i = 1; i <= 2000 && good; i++) {
    flushed = nmis = 0;
    turn = i;
    apic_write(0x310, 0); apic_write(0x300, 0x400);
    wait_for(&flushed, 1);
    while (back != i) pause_();
    if (nmis != 2) good = 0;
  }
  stop = 1;
  on_cpu_wait(1);
  cli();
  report(good, "two NMIs from two vCPUs are two (%d at %d)", nmis, turn);
}
static void timer(void) {
  handlers[0xee] = on_irq;
  sti();
  count = 0;
  apic_write(0x3e0, 0xb);
  apic_write(0x320, 0xee);
  u64 start = rdtsc();
  apic_write(0x380, 0x10000);
  wait_for(&count, 1);
  report(count == 1 && rdtsc() - start >= 0x10000, "timer, one shot");
  count = 0;
  apic_write(0x320, 0x200ee);
  apic_write(0x380, 100000);
  wait_for(&count, 5);
  apic_write(0x380, 0);
  report(count >= 5, "timer, periodic");
  int seen = count;
  for (int i = 0; i < 20000; i++) pause_();
  report(count <= seen + 1 && apic_read(0x390) == 0, "an initial count of 0 stops it");
  apic_write(0x320, 0x100ee);
  apic_write(0x380, 0x999999);
  u32 a = apic_read(0x390);
  apic_write(0x320, 0x300ee);
  u32 b = apic_read(0x390);
  report(a > 0 && b > 0 && b <= a && apic_read(0x380) == 0x999999, "a change between one shot and periodic keeps the count");
  apic_write(0x320, 0x400ee);
  count = 0;
  wrmsr(0x6e0, rdtsc());
  asm volatile("nop");
  wait_for(&count, 1);
  report(count == 1 && rdmsr(0x6e0) == 0, "TSC deadline that has passed fires, and reads 0");
  count = 0;
  wrmsr(0x6e0, rdtsc() + 300000000);
  report(rdmsr(0x6e0) != 0, "TSC deadline reads as written");
  wait_for(&count, 1);
  report(count == 1, "TSC deadline fires");
  // The counter that the guest reads is the one that counts, wherever it has been set to.
  u64 before = rdtsc();
  wrmsr(0x10, before + (1ull << 50));
  count = 0;
  wrmsr(0x6e0, rdtsc() + 1000000);
  wait_for(&count, 1);
  report(count == 1, "TSC deadline fires after the counter was set ahead");
  count = 0;
  wrmsr(0x6e0, before + (1ull << 49) + (1ull << 40));
  wait_for(&count, 1);
  report(count == 1, "TSC deadline that the counter has passed since fires");
  count = 0;
  wrmsr(0x10, 1000);
  u64 deadline = rdtsc() + 100000000;
  wrmsr(0x6e0, deadline);
  while (count == 0 && rdtsc() < deadline) pause_();
  report(rdtsc() >= deadline, "TSC deadline does not fire early after the counter was set back");
  wait_for(&count, 1);
  report(count == 1, "it fires then");
  count = 0;
  wrmsr(0x6e0, rdtsc() + (1ull << 45));
  wrmsr(0x3b, rdmsr(0x3b) + (1ull << 46));
  wait_for(&count, 1);
  report(count == 1, "TSC deadline fires when IA32_TSC_ADJUST takes the counter past it");
  wrmsr(0x10, before);
  cli();
}
static volatile int arrived;
static void on_broadcast(struct frame *f) { __atomic_add_fetch(&arrived, 1, __ATOMIC_SEQ_CST); eoi(); }
static void open_up(void *unused) { asm volatile("sti"); while (!stop) pause_(); asm volatile("cli"); }
static void broadcast(void) {
  handlers[0xcf] = on_broadcast;
  stop = 0;
  on_cpu(1, open_up, NULL);
  sti();
  struct { u32 high, low; int n; const char *name; } list[] = {
    { 0xff000000, 0x40cf, 2, "physical broadcast" }, { 0, 0x840cf, 2, "all including self" }, { 0, 0xc40cf, 1, "all but self" }, { 0x01000000, 0x40cf, 1, "physical, the other" },
    { 0x03000000, 0x48cf, 2, "logical, flat" }, { 0x02000000, 0x48cf, 1, "logical, the other" }, { 0xff000000, 0x48cf, 2, "logical broadcast" } };
  apic_write(0xd0, 1u << 24);
  for (unsigned i = 0; i < sizeof list / sizeof *list; i++) {
    arrived = 0;
    apic_write(0x310, list[i].high); apic_write(0x300, list[i].low);
    wait_for(&arrived, list[i].n);
    for (int k = 0; k < 1000; k++) pause_();
    report(arrived == list[i].n, "IPI: %s (%d)", list[i].name, arrived);
  }
  stop = 1;
  on_cpu_wait(1);
  cli();
}
/* What INIT leaves as it is (SDM volume 3, table 10-1): time stamp, MSRs, vector registers, CR0.CD and CR0.NW; and what not. */
static u64 left[12];
static void fill(void *unused) {
  wrmsr(0x277, 0x0007010600070106); wrmsr(0x2ff, 0xc06); wrmsr(0x250, 0x0606060606060606); wrmsr(0x200, 0xc0000000); wrmsr(0x201, 0xffc0000800);
  wrmsr(0x174, 0x1234); wrmsr(0xc0000082, 0xffffffff12345678); wrmsr(0xc0000102, 0x77); wrmsr(0xc0000103, 0x99);
  wrmsr(0x3b, 1ul << 50);
  WRDR(0, 0x1000);
  u64 v = 0x1122334455667788;
  asm volatile("movq %0, %%xmm7" ::"r"(v));
}
static void look(void *unused) {
  u32 list[] = { 0x277, 0x2ff, 0x250, 0x200, 0x201, 0x174, 0xc0000082, 0xc0000102, 0xc0000103 };
  for (int i = 0; i < 9; i++) left[i] = rdmsr(list[i]);
  left[9] = rdtsc(); left[10] = RDDR(0);
  asm volatile("movq %%xmm7, %0" : "=r"(left[11]));
}
static void init_keeps(void) {
  on_cpu(1, fill, NULL); on_cpu_wait(1);
  started = 1;
  report(start_cpus() == 2, "INIT and SIPI once more");
  /* It counts itself once more. */
  on_cpu(2, look, NULL); on_cpu_wait(2);
  u64 was[] = { 0x0007010600070106, 0xc06, 0x0606060606060606, 0xc0000000, 0xffc0000800, 0x1234, 0xffffffff12345678, 0x77, 0x99 };
  const char *names[] = { "PAT", "MTRRdefType", "a fixed MTRR", "a variable MTRR", "its mask", "SYSENTER_CS", "LSTAR", "KERNEL_GS_BASE", "TSC_AUX" };
  for (int i = 0; i < 9; i++) report(left[i] == was[i], "INIT keeps %s (%x)", names[i], left[i]);
  report(left[9] >> 50 == 1, "INIT keeps the time stamp (%x)", left[9]);
  report(left[10] == 0, "INIT clears DR0 (%x)", left[10]);
  report(left[11] == 0x1122334455667788, "INIT keeps XMM7 (%x)", left[11]);
}
static void set_ldr(void *unused) { apic_write(0xd0, 2u << 24); }
int main(void) {
  outb(0x510, 5); asm volatile("outw %0, %1" ::"a"((u16)5), "Nd"((u16)0x510));
  report(inb(0x511) == 2, "fw_cfg tells the number of vCPUs");
  modes(); ipis(); nmi(); timer();
  int n = start_cpus();
  report(n == 2, "the other vCPU starts (%d)", n);
  on_cpu(1, set_ldr, NULL);
  on_cpu_wait(1);
  stop = 0;
  two_nmis(); broadcast(); init_keeps();
  return done();
}
