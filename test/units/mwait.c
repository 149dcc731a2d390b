/* MONITOR and MWAIT: what they refuse, what ends a wait, and that waiting is no spinning (Intel SDM volume 2, MONITOR and MWAIT; volume 3, section 9.10). */
#include "units.h"

static volatile u64 line[16] __attribute__((aligned(64)));
static volatile int ticks;
static void p_monitor(void) { asm volatile("xor %%ecx, %%ecx\n xor %%edx, %%edx\n mov %%rsp, %%rax\n monitor" ::: "rax", "rcx", "rdx"); }
static void p_mwait(void) { asm volatile("xor %%ecx, %%ecx\n xor %%eax, %%eax\n mwait" ::: "rax", "rcx"); }
static void monitor(volatile void *p) { asm volatile("monitor" ::"a"(p), "c"(0), "d"(0)); }
static void mwait(u32 ecx) { asm volatile("mwait" ::"a"(0), "c"(ecx) : "memory"); }
static void on_tick(struct frame *f) { ticks++; apic_write(0xb0, 0); }
static void store_later(void *p) { u64 until = rdtsc() + (u64)p; while (rdtsc() < until) pause_(); line[3] = 1; }
int main(void) {
  int present = cpuid(1, 0).c >> 3 & 1;
  long v = TRY("xor %%ecx, %%ecx\n mov %%rdx, %%rax\n xor %%edx, %%edx\n monitor", line);
  report(v == (present ? -1 : 6), "MONITOR as CPUID has it");
  if (!present) { report(TRY("xor %%ecx, %%ecx\n xor %%eax, %%eax\n mwait", 0) == 6, "MWAIT as CPUID has it"); return done(); }
  struct regs r = cpuid(5, 0);
  report(r.a == 64 && r.b == 64 && (r.c & 3) == 3, "CPUID leaf 5: %x %x %x %x", (u64)r.a, (u64)r.b, (u64)r.c, (u64)r.d);
  report(TRY("mov $1, %%ecx\n mov %%rdx, %%rax\n xor %%edx, %%edx\n monitor", line) == 13, "MONITOR with ECX: #GP");
  report(TRY("mov $2, %%ecx\n xor %%eax, %%eax\n mwait", 0) == 13, "MWAIT with unknown bits of ECX: #GP");
  report(TRY("xor %%ecx, %%ecx\n mov %%rdx, %%rax\n xor %%edx, %%edx\n monitor", 0x8000000000ul) == 14, "MONITOR of a page that is not there: #PF");
  report(user(p_monitor, 0) == 6 && user(p_mwait, 0) == 6, "at CPL 3: #UD");
  cli();
  mwait(0);
  monitor(line); line[0]++; mwait(0);
  report(line[0] == 1, "MWAIT without MONITOR, and after a store of its own, goes on");
  if (start_cpus() < 2) { skip("a second vCPU"); return done(); }
  line[3] = 0;
  u64 begin = rdtsc();
  on_cpu(1, store_later, (void *)500000000ul);
  int rounds = 0;
  for (; !line[3]; rounds++) { monitor(line); if (line[3]) break; mwait(0); }
  on_cpu_wait(1);
  report(rounds > 0 && rounds < 5000, "another vCPU's store ends the wait, after %d rounds", rounds);
  handlers[0x41] = on_tick;
  apic_write(0x3e0, 0xb); apic_write(0x320, 0x41); apic_write(0x380, 1000000);
  for (rounds = 0; !ticks && rounds < 1000000; rounds++) { monitor(line); asm volatile("sti\n mwait\n cli" ::"a"(0), "c"(0) : "memory"); }
  report(ticks == 1, "an interrupt ends the wait, after %d rounds", rounds);
  return done();
}
