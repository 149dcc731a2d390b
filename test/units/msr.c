/* Model-specific registers: values that are kept, and those that are refused (Intel SDM volume 4, chapter 2). */
#include "units.h"
#define FAR 0x8000000000000000ul
static void keeps(u32 n, u64 value, const char *name) {
  u64 old, v = 0;
  if (try_rdmsr(n, &old) != -1) { report(0, "%s can be read", name); return; }
  long w = try_wrmsr(n, value);
  try_rdmsr(n, &v);
  report(w == -1 && v == value, "%s keeps %x (%x)", name, value, v);
  wrmsr(n, old);
}
static void refuses(u32 n, u64 value, const char *name) { report(try_wrmsr(n, value) == 13, "%s refuses %x: #GP", name, value); }
int main(void) {
  u64 v;
  keeps(0x174, 0x1234, "SYSENTER_CS"); keeps(0x175, 0xfffffffff1234567ul, "SYSENTER_ESP"); keeps(0x176, 0x1234567, "SYSENTER_EIP");
  refuses(0x175, FAR, "SYSENTER_ESP"); refuses(0x176, FAR, "SYSENTER_EIP");
  keeps(0x1a0, 0x400c51889, "MISC_ENABLE"); keeps(0x277, 0x0007040600070406, "PAT");
  refuses(0x277, 2, "PAT"); refuses(0x277, 0x0300, "PAT"); refuses(0x277, 8, "PAT");
  keeps(0xc0000100, 0xffff800012345678ul, "FS_BASE"); keeps(0xc0000101, 0x12345678, "GS_BASE"); keeps(0xc0000102, 0x12345678, "KERNEL_GS_BASE");
  refuses(0xc0000100, FAR, "FS_BASE"); refuses(0xc0000101, FAR, "GS_BASE"); refuses(0xc0000102, FAR, "KERNEL_GS_BASE");
  keeps(0xc0000080, 0xd00, "EFER"); refuses(0xc0000080, 0xc00, "EFER without LME"); refuses(0xc0000080, 1ul << 20, "EFER");
  keeps(0xc0000081, 0x0123456789abcdef, "STAR"); keeps(0xc0000082, 0xfffffffff1234567ul, "LSTAR"); keeps(0xc0000083, 0x1234, "CSTAR"); keeps(0xc0000084, 0x47700, "SFMASK");
  refuses(0xc0000082, FAR, "LSTAR"); refuses(0xc0000083, FAR, "CSTAR");
  keeps(0xc0000103, 0x1234, "TSC_AUX"); refuses(0xc0000103, 1ul << 32, "TSC_AUX");
  int banks = rdmsr(0x179) & 0xff;
  report(banks <= 32, "%d machine-check banks", banks);
  for (int i = 0; i < banks; i++) {
    u32 at = 0x400 + 4 * i;
    int good = try_wrmsr(at, 0) == -1 && try_wrmsr(at, -1ul) == -1 && try_wrmsr(at, 1) == 13;
    good &= try_wrmsr(at + 1, 0) == -1 && try_wrmsr(at + 1, 1) == 13;
    for (int k = 2; k < 4; k++) {
      good &= try_wrmsr(at + k, 0x8000000000000000 + i) == -1 && rdmsr(at + k) == 0x8000000000000000 + i;
      good &= try_wrmsr(at + k, 0) == -1 && rdmsr(at + k) == 0;
    }
    report(good, "bank %d: control takes all or nothing, status zero, address and information anything", i);
  }
  for (int i = banks; i < 32; i++) if (try_rdmsr(0x400 + 4 * i, &v) != 13 || try_wrmsr(0x400 + 4 * i, 0) != 13) report(0, "bank %d is not there", i);
  report(try_rdmsr(0x12345678, &v) == 13 && try_wrmsr(0x12345678, 0) == 13, "an unknown register: #GP");
  report(try_wrmsr(0x1d9, 1ul << 40) == 13, "reserved bits of DEBUGCTL: #GP");
  u64 t = rdtsc();
  wrmsr(0x3b, 1000000000000ul);
  report(rdtsc() >= t + 1000000000000ul && rdmsr(0x3b) == 1000000000000ul, "TSC_ADJUST moves the counter");
  wrmsr(0x10, 5000);
  u64 now = rdtsc();
  report(now >= 5000 && now < 50000000000ul, "the counter can be written (%x)", now);
  report((long)rdmsr(0x3b) < 1000000000000l, "which shows in TSC_ADJUST");
  wrmsr(0x3b, 0);
  u32 aux, lo, hi;
  wrmsr(0xc0000103, 0x77);
  asm volatile("rdtscp" : "=a"(lo), "=d"(hi), "=c"(aux));
  report(aux == 0x77, "RDTSCP gives TSC_AUX");
  WRCR(4, RDCR(4) | 4);
  report(TRY("rdtsc", 0) == -1, "RDTSC at CPL 0 with CR4.TSD");
  WRCR(4, RDCR(4) & ~4ul);
  report(TRY("mov $0x20, %%ecx\n rdpmc", 0) == 13, "RDPMC of a counter that is not there: #GP");
  /* XSETBV. */
  WRCR(4, RDCR(4) & ~(1ul << 18));
  report(TRY("xor %%ecx, %%ecx\n xgetbv", 0) == 6, "XGETBV without CR4.OSXSAVE: #UD");
  if (cpuid(1, 0).c >> 26 & 1) {
    WRCR(4, RDCR(4) | 1 << 18);
    report(cpuid(1, 0).c >> 27 & 1, "CPUID shows OSXSAVE");
    u32 all = cpuid(0xd, 0).a;
#define XSETBV(v) TRY("xor %%ecx, %%ecx\n mov %%edx, %%eax\n xor %%edx, %%edx\n xsetbv", v)
    report(XSETBV(1) == -1 && XSETBV(3) == -1, "XCR0 1 and 3");
    report(XSETBV(0) == 13 && XSETBV(2) == 13 && XSETBV(5) == 13 && XSETBV(4) == 13, "XCR0 0, 2, 4, 5: #GP");
    report((XSETBV(7) == -1) == ((all & 4) != 0), "XCR0 7 as CPUID has it");
    report(XSETBV(all) == -1 && cpuid(0xd, 0).b == cpuid(0xd, 0).c, "XCR0 of all components, and their size");
    report(XSETBV(1 << 30) == 13, "XCR0 with an unknown bit: #GP");
    report(TRY("mov $1, %%ecx\n mov $7, %%eax\n xor %%edx, %%edx\n xsetbv", 0) == 13, "XCR1: #GP");
    if (all & 4) {
      XSETBV(3);
      report(TRY("vxorps %%ymm0, %%ymm0, %%ymm0", 0) == 6, "AVX without XCR0.AVX: #UD");
      XSETBV(7);
      report(TRY("vxorps %%ymm0, %%ymm0, %%ymm0", 0) == -1, "AVX");
      WRCR(0, RDCR(0) | 8);
      report(TRY("vxorps %%ymm0, %%ymm0, %%ymm0", 0) == 7, "AVX with CR0.TS: #NM");
      WRCR(0, RDCR(0) & ~8ul);
    }
  }
  return done();
}
