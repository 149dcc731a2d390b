/* Performance counters: Intel's architectural ones of version 2 (Intel SDM volume 3, section 20.2), AMD's four (APM volume 2, 13.2.1). */
#include "units.h"
#define LOOPS 100000ul
#define PMI 0x40
static int intel, general, fixed, width;
static u32 counter_base, select_base;
static volatile int interrupts;
static u64 now;
static void on_pmi(struct frame *f) { interrupts++; apic_write(0xb0, 0); }
/* Ten instructions a round. */
static void rounds(u64 n) { asm volatile("1: nop; nop; nop; nop; nop; nop; nop; nop; dec %0; jnz 1b" : "+r"(n)::"cc"); }
static u64 rdpmc(u32 n) { u32 a, d; asm volatile("rdpmc" : "=a"(a), "=d"(d) : "c"(n)); return a | (u64)d << 32; }
enum { USER = 1 << 16, OS = 1 << 17, INT = 1 << 20, EN = 1 << 22, INV = 1 << 23 };
static void enable_all(u64 bits) { if (intel) wrmsr(0x38f, bits); }
static u64 measure(int n, u32 select, u64 from) {
  wrmsr(counter_base + n, from);
  wrmsr(select_base + n, select | EN);
  enable_all(1ul << n);
  rounds(LOOPS);
  enable_all(0);
  wrmsr(select_base + n, 0);
  return rdmsr(counter_base + n);
}
static int about(u64 n) { return n >= 10 * LOOPS && n < 10 * LOOPS + 50; }
static void in_user(void) { rounds(LOOPS); }
static void user_reads(void) { asm volatile("xor %%ecx, %%ecx; rdpmc" ::: "eax", "ecx", "edx"); }

int main(void) {
  struct regs l = cpuid(0xa, 0);
  u64 v;
  intel = cpuid(0, 0).b == 0x756e6547;
  if (has("none")) {
    report(l.a == 0 && !(cpuid(1, 0).c >> 15 & 1), "CPUID tells of no counters");
    report(TRY("xor %%ecx, %%ecx\n rdpmc", 0) == 13, "RDPMC: #GP");
    report(try_rdmsr(0xc1, &v) == 13 && try_rdmsr(0x38f, &v) == 13 && try_rdmsr(0xc0010000, &v) == 13, "their registers: #GP");
    return done();
  }
  general = 4; width = 48; counter_base = 0xc0010004; select_base = 0xc0010000;
  if (intel) {
    general = l.a >> 8 & 0xff; width = l.a >> 16 & 0xff; fixed = l.d & 31; counter_base = 0xc1; select_base = 0x186;
    report((l.a & 0xff) == 2 && fixed == 3 && (l.d >> 5 & 0xff) == width, "leaf 0xA: version 2, %d general and %d fixed counters of %d bits", general, fixed, width);
    report(rdmsr(0x38f) == (1ul << general) - 1, "general counters are enabled over all after power-on");
    wrmsr(0x38f, 0);
  }
  handlers[PMI] = on_pmi;
  u32 instructions = 0xc0, cycles = intel ? 0x3c : 0x76;
  for (int n = 0; n < general; n++) {
    u64 a = measure(n, instructions | OS | USER, 0), b = measure(n, cycles | OS | USER, 0);
    report(about(a) && a == measure(n, instructions | OS | USER, 0), "counter %d counts instructions, the same each time (%d)", n, (int)a);
    report(b >= LOOPS && b <= 50 * LOOPS, "counter %d counts cycles (%d)", n, (int)b);
  }
  report(measure(0, instructions | USER, 0) < 10, "nothing at CPL 0 for a counter of CPL 3");
  report(measure(0, instructions | OS | USER | 2 << 24, 0) < 10 * LOOPS, "a counter mask of 2 counts less");
  report(measure(0, instructions, 0) == 0, "neither USR nor OS: nothing");
  wrmsr(counter_base, 0); wrmsr(counter_base + 1, 0);
  wrmsr(select_base, instructions | EN | USER); wrmsr(select_base + 1, instructions | EN | OS);
  enable_all(3);
  user(in_user, 0);
  enable_all(0);
  wrmsr(select_base, 0); wrmsr(select_base + 1, 0);
  u64 u = rdmsr(counter_base), s = rdmsr(counter_base + 1);
  report(about(u) && s > 5 && s < 2000, "CPL 3 and CPL 0 are told apart (%d, %d)", (int)u, (int)s);
  /* A repeated string instruction is one instruction. */
  static u8 room[4096];
  wrmsr(counter_base, 0); wrmsr(select_base, instructions | EN | OS); enable_all(1);
  { void *to = room; u64 n = sizeof room; asm volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(1) : "memory"); }
  enable_all(0); wrmsr(select_base, 0);
  report(rdmsr(counter_base) < 100, "REP STOSB is one instruction (%d)", (int)rdmsr(counter_base));
  /* Reading. */
  wrmsr(counter_base, 0xffffffff80001234);
  report(rdpmc(0) == (0xffffffff80001234 & (1ul << width) - 1) && rdmsr(counter_base) == rdpmc(0), "RDPMC gives what RDMSR gives, %d bits", width);
  report(TRY("mov %%edx, %%ecx\n rdpmc", general) == 13 && TRY("mov %%edx, %%ecx\n rdpmc", 1 << 29) == 13, "RDPMC of a counter that is not there: #GP");
  report(user(user_reads, 0) == 13, "RDPMC at CPL 3 without CR4.PCE: #GP");
  WRCR(4, RDCR(4) | 0x100);
  report(user(user_reads, 0) == 0x20, "RDPMC at CPL 3 with CR4.PCE");
  WRCR(4, RDCR(4) & ~0x100ul);
  /* Running over. */
  u64 whole = measure(0, instructions | OS | USER, 0);
  apic_write(0x340, PMI);
  sti();
  interrupts = 0;
  v = measure(0, instructions | OS | USER, 1 - whole);
  report(v == 1 && interrupts == 0, "a counter runs over without an interrupt (%x)", v);
  if (intel) {
    report(rdmsr(0x38e) == 1, "the status says so (%x)", rdmsr(0x38e));
    wrmsr(0x390, 1);
    report(rdmsr(0x38e) == 0, "and is cleared");
  }
  v = measure(0, instructions | OS | USER | INT, -1000l);
  report(interrupts == 1, "with INT it interrupts (%d)", interrupts);
  report(!!(apic_read(0x340) & 0x10000) == intel, "whose vector is %s then", intel ? "masked" : "not masked");
  apic_write(0x340, 0x400);
  handlers[2] = on_pmi;
  interrupts = 0;
  measure(0, instructions | OS | USER | INT, -5000l);
  report(interrupts == 1, "or by an NMI");
  interrupts = 0;
  apic_write(0x340, 0x10000 | PMI);
  measure(0, instructions | OS | USER | INT, -5000l);
  report(interrupts == 0, "a masked vector stays quiet");
  if (intel) {
    wrmsr(0x390, -1ul >> 2 & 0x70000000f);
    for (int n = 0; n < fixed; n++) {
      wrmsr(0x309 + n, 0); wrmsr(0x38d, 3 << 4 * n); enable_all(1ul << (32 + n));
      rounds(LOOPS);
      enable_all(0);
      v = rdmsr(0x309 + n);
      report(n ? v >= LOOPS && v <= 50 * LOOPS : about(v), "fixed counter %d (%d)", n, (int)v);
      report(rdpmc(1 << 30 | n) == v, "RDPMC reads it");
    }
    apic_write(0x340, PMI);
    interrupts = 0;
    wrmsr(0x309, (1ul << width) - 500); wrmsr(0x38d, 0xb); enable_all(1ul << 32);
    rounds(LOOPS);
    enable_all(0); wrmsr(0x38d, 0);
    report(interrupts == 1 && rdmsr(0x38e) == 1ul << 32, "a fixed counter runs over and interrupts");
    wrmsr(0x390, 1ul << 32);
    report(try_wrmsr(0x38f, 1ul << 40) == 13 && try_wrmsr(0x38d, 4) == 13 && try_wrmsr(0x186, 1ul << 32) == 13 && try_wrmsr(0x38e, 0) == 13 && try_wrmsr(0x390, 1 << 20) == 13, "reserved bits: #GP");
    report(try_rdmsr(0xc1 + general, &v) == 13 && try_rdmsr(0x309 + fixed, &v) == 13, "counters that are not there: #GP");
    if (cpuid(1, 0).c >> 15 & 1) {
      report(rdmsr(0x345) & 0x2000, "full-width writes");
      wrmsr(0x4c1, 0xff0123456789);
      report(rdmsr(0xc1) == 0xff0123456789 && rdmsr(0x4c1) == 0xff0123456789, "all bits are kept");
      report(try_wrmsr(0x4c1, 1ul << 48) == 13, "beyond them: #GP");
    }
  }
  return done();
}
