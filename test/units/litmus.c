/* Memory order between two vCPUs, locked operations over cache lines and pages, code that another vCPU changes (Intel SDM volume 3,
   sections 9.1 and 9.2). Loads and stores may not change places but for a store and a later load. */
#include "units.h"

static volatile struct { u64 x, pad1[15], y, pad2[15], r1, r2, r3, r4; } m __attribute__((aligned(256)));
static volatile int go, ready, quit;
static void (*volatile body)(void);
static void other(void *unused) {
  for (int seen = 0;;) {
    while (go == seen && !quit) pause_();
    if (quit) return;
    seen = go;
    body();
    ready = seen;
  }
}
static int forbidden, allowed;
static void run(void (*mine)(void), void (*theirs)(void), int rounds, int (*judge)(void)) {
  forbidden = allowed = 0;
  body = theirs;
  for (int i = 0; i < rounds; i++) {
    m.x = m.y = 0; m.r1 = m.r2 = m.r3 = m.r4 = 0;
    __sync_synchronize();
    int n = go + 1;
    go = n;
    for (volatile int k = i & 31; k > 0; k--);
    mine();
    while (ready != n) pause_();
    int j = judge();
    if (j < 0) forbidden++; else if (j > 0) allowed++;
  }
}
/* Store buffering: both loads may see 0. */
static void sb1(void) { asm volatile("movq $1, %0\n mov %2, %%rax\n mov %%rax, %1" : "=m"(m.x), "=m"(m.r1) : "m"(m.y) : "rax", "memory"); }
static void sb2(void) { asm volatile("movq $1, %0\n mov %2, %%rax\n mov %%rax, %1" : "=m"(m.y), "=m"(m.r2) : "m"(m.x) : "rax", "memory"); }
static int sb(void) { return m.r1 == 0 && m.r2 == 0; }
static void sbf1(void) { asm volatile("movq $1, %0\n mfence\n mov %2, %%rax\n mov %%rax, %1" : "=m"(m.x), "=m"(m.r1) : "m"(m.y) : "rax", "memory"); }
static void sbf2(void) { asm volatile("movq $1, %0\n mfence\n mov %2, %%rax\n mov %%rax, %1" : "=m"(m.y), "=m"(m.r2) : "m"(m.x) : "rax", "memory"); }
static void sbx1(void) { asm volatile("mov $1, %%eax\n xchg %%rax, %0\n mov %2, %%rax\n mov %%rax, %1" : "+m"(m.x), "=m"(m.r1) : "m"(m.y) : "rax", "memory"); }
static void sbx2(void) { asm volatile("mov $1, %%eax\n xchg %%rax, %0\n mov %2, %%rax\n mov %%rax, %1" : "+m"(m.y), "=m"(m.r2) : "m"(m.x) : "rax", "memory"); }
static int never_both_zero(void) { return m.r1 == 0 && m.r2 == 0 ? -1 : 0; }
/* Message passing: who sees the flag sees the data. */
static void mp1(void) { for (u64 i = 1; i <= 8; i++) { m.x = i; asm volatile("" ::: "memory"); m.y = i; } }
static void mp2(void) { for (int i = 0; i < 8; i++) { u64 y = m.y; asm volatile("" ::: "memory"); u64 x = m.x; if (x < y) m.r1 = 1; } }
static int mp(void) { return m.r1 ? -1 : 0; }
/* Load buffering: neither load sees the other's later store. */
static void lb1(void) { asm volatile("mov %2, %%rax\n movq $1, %0\n mov %%rax, %1" : "=m"(m.y), "=m"(m.r1) : "m"(m.x) : "rax", "memory"); }
static void lb2(void) { asm volatile("mov %2, %%rax\n movq $1, %0\n mov %%rax, %1" : "=m"(m.x), "=m"(m.r2) : "m"(m.y) : "rax", "memory"); }
static int lb(void) { return m.r1 == 1 && m.r2 == 1 ? -1 : 0; }

static u8 lines[8192 + 64] __attribute__((aligned(4096)));
static u64 *volatile target;
#define ROUNDS 20000
static void adds(void) { u64 *p = target; for (int i = 0; i < ROUNDS; i++) asm volatile("lock incq %0" : "+m"(*p)); }
static void locked(const char *name, u64 *at) {
  target = at; *at = 0;
  body = adds;
  int n = go + 1;
  go = n;
  adds();
  while (ready != n) pause_();
  report(*at == 2 * ROUNDS, "locked increments %s: %d of %d", name, (int)*at, 2 * ROUNDS);
}
/* Both vCPUs add by compare-and-exchange. */
static void exchanges(void) {
  u64 *p = target;
  for (int i = 0; i < ROUNDS; i++)
    asm volatile("mov %0, %%rax\n 1: lea 1(%%rax), %%rcx\n lock cmpxchg %%rcx, %0\n jne 1b" : "+m"(*p)::"rax", "rcx", "cc", "memory");
}
static void exchanged(const char *name, u64 *at) {
  target = at; *at = 0;
  body = exchanges;
  int n = go + 1;
  go = n;
  exchanges();
  while (ready != n) pause_();
  report(*at == 2 * ROUNDS, "compare and exchange %s: %d of %d", name, (int)*at, 2 * ROUNDS);
}
/* One vCPU changes a constant in code that the other runs over and over. */
static u8 code[64] __attribute__((aligned(64)));
static volatile u64 wrong, last;
static void runs(void) {
  u32 (*f)(void) = (void *)code;
  u32 seen = 0;
  while (seen < 2000) { u32 v = f(); if (v < seen || v > 2000) wrong++; else seen = v; cpuid(0, 0); }
  last = seen;
}
static void patches(void) {
  for (u32 i = 1; i <= 2000; i++) { *(volatile u32 *)(code + 1) = i; for (volatile int k = 0; k < 20; k++); }
}
int main(void) {
  if (start_cpus() < 2) { report(0, "the other vCPU starts"); return done(); }
  on_cpu(1, other, NULL);
  int rounds = 3000;
  run(sb1, sb2, rounds, sb);
  put("store buffering seen %d times of %d\n", allowed, rounds);
  run(sbf1, sbf2, rounds, never_both_zero);
  report(!forbidden, "store, MFENCE, load: never both old (%d)", forbidden);
  run(sbx1, sbx2, rounds, never_both_zero);
  report(!forbidden, "XCHG, load: never both old (%d)", forbidden);
  run(mp1, mp2, rounds, mp);
  report(!forbidden, "message passing: loads and stores keep their order (%d)", forbidden);
  run(mp2, mp1, rounds, mp);
  report(!forbidden, "message passing the other way (%d)", forbidden);
  run(lb1, lb2, rounds, lb);
  report(!forbidden, "loads are not after later stores (%d)", forbidden);
  locked("of an aligned word", (u64 *)(lines + 64));
  locked("of a misaligned word", (u64 *)(lines + 67));
  locked("over two cache lines", (u64 *)(lines + 60));
  locked("over two pages", (u64 *)(lines + 4092));
  exchanged("of an aligned word", (u64 *)(lines + 64));
  exchanged("over two cache lines", (u64 *)(lines + 60));
  exchanged("over two pages", (u64 *)(lines + 4093));
  code[0] = 0xb8; code[5] = 0xc3;
  body = patches;
  int n = go + 1;
  go = n;
  runs();
  while (ready != n) pause_();
  report(!wrong && last == 2000, "code that another vCPU changes: old or new, never a mixture (%d)", (int)wrong);
  quit = 1;
  on_cpu_wait(1);
  return done();
}
