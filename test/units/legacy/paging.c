/* 2-level and PAE paging: rights, accessed and dirty bits, large pages, reserved bits, in every combination (Intel SDM volume 3, sections 4.3, 4.4, 4.6
   and 4.7). The image lies in large supervisor pages, what is tested at 3 GiB. */
#include "units.h"

enum { P = 1, W = 2, U = 4, ACC = 0x20, DIRTY = 0x40, PS = 0x80, AT = 0xc0000000 };
#define NX (1ull << 63)
static u32 directory[1024] __attribute__((aligned(4096))), table[1024] __attribute__((aligned(4096)));
static u64 pointers[4] __attribute__((aligned(4096))), directories[4][512] __attribute__((aligned(4096))), wide[512] __attribute__((aligned(4096)));
static u8 page[4096] __attribute__((aligned(4096))), user_page[4096] __attribute__((aligned(4096))), user_stack[4096] __attribute__((aligned(4096)));
static int pae, wrong;
static u64 upper_entry(void) { return pae ? directories[3][0] : directory[AT >> 22]; }
static u64 lower_entry(void) { return pae ? wide[0] : table[0]; }
static void set(u64 upper, u64 lower) {
  if (pae) { directories[3][0] = (u32)wide | upper; wide[0] = (u32)page | lower; }
  else { directory[AT >> 22] = (u32)table | (u32)upper; table[0] = (u32)page | (u32)lower; }
  invlpg(AT);
}
#define CODE_AT(name, text) asm(".section .user, \"ax\"\n .align 16\n .globl " #name "\n" #name ":\n" text "\n .text\n"); void name(void);
/* Copied to a page that CPL 3 may use, at 3 GiB + 8 KiB; its stack is behind that. */
CODE_AT(u_load, "mov (%edx), %al\n int $0x20")
CODE_AT(u_store, "movb $0xc3, (%edx)\n int $0x20")
CODE_AT(u_fetch, "call *%edx\n int $0x20")
CODE_AT(u_none, "")
static int access(int kind, int user, u32 at) {
  static void (*const f[])(void) = { u_load, u_store, u_fetch };
  if (user) {
    struct context c = { .eip = AT + 0x2000 + ((u32)f[kind] - (u32)u_load), .cs = USER_CODE, .eflags = 2, .esp = AT + 0x3ff0, .ss = USER_DATA, .ds = USER_DATA, .es = USER_DATA, .edx = at };
    trap.vector = -1;
    enter(&c);
    return trap.vector == 0x20 ? -1 : trap.vector;
  }
  switch (kind) {
    case 0: return TRY("mov (%%edx), %%al", at);
    case 1: return TRY("movb $0xc3, (%%edx)", at);
    default: return TRY("call *%%edx", at);
  }
}
static void rights(const char *mode) {
  int tried = 0;
  wrong = 0;
  for (int wp = 0; wp < 2; wp++) {
    WRCR(0, wp ? RDCR(0) | 0x10000 : RDCR(0) & ~0x10000);
    for (int bits = 0; bits < 64; bits++)
      for (int upper = 0; upper < 16; upper++)
        for (int kind = 0; kind < 3; kind++)
          for (int user = 0; user < 2; user++) {
            if (!pae && (upper & 8 || bits & 32)) continue;
            u64 low = (bits & 1 ? P : 0) | (bits & 2 ? W : 0) | (bits & 4 ? U : 0) | (bits & 8 ? ACC : 0) | (bits & 16 ? ACC | DIRTY : 0) | (bits & 32 ? NX : 0);
            u64 high = (upper & 1 ? P : 0) | (upper & 2 ? W : 0) | (upper & 4 ? U : 0) | (upper & 8 ? NX : 0);
            /* The code at CPL 3 lies under the same upper entry: it has to be reachable. */
            if (user && ((high & (P | U)) != (P | U) || high & NX)) continue;
            if (user && kind == 2 && !(high & W)) continue; /* its stack as well */
            set(high, low);
            page[0] = 0xc3;
            int v = access(kind, user, AT);
            int present = low & high & P, writable = (low & high & W) != 0, open = (low & high & U) != 0, nx = ((low | high) & NX) != 0;
            int fault = !present || (user && !open) || (kind == 1 && !writable && (user || wp)) || (kind == 2 && nx);
            u32 error = present | (kind == 1) << 1 | user << 2 | (kind == 2 && pae) << 4;
            u32 left = fault ? low & (ACC | DIRTY) : (low & (ACC | DIRTY)) | ACC | (kind == 1 ? DIRTY : 0);
            int bad = v != (fault ? 14 : -1) || (fault && (trap.error != error || trap.cr2 != AT)) || ((u32)lower_entry() & (ACC | DIRTY)) != left || (!fault && !(upper_entry() & ACC));
            if (bad && !wrong) put("  first: wp %d upper %x%s lower %x%s kind %d user %d: vector %d error %x, expected %d %x, bits %x\n", wp, (u32)high, high & NX ? " nx" : "", (u32)low, low & NX ? " nx" : "", kind, user, v, trap.error, fault, error, (u32)lower_entry() & 0x60);
            wrong += bad;
            tried++;
          }
  }
  report(!wrong, "%s: faults, error codes, accessed and dirty bits in %d cases (%d wrong)", mode, tried, wrong);
}
static void copy(u8 *to, const u8 *from, int n) { while (n--) *to++ = *from++; }
static void two_levels(void) {
  pae = 0;
  for (int i = 0; i < 768; i++) directory[i] = i << 22 | PS | W | P;
  table[2] = (u32)user_page | P | W | U; table[3] = (u32)user_stack | P | W | U;
  set(P | W | U, P | W | U);
  WRCR(4, RDCR(4) & ~0x20 | 0x10);
  WRCR(3, directory);
  WRCR(0, RDCR(0) | 0x80010000);
  rights("2 levels");
  report(access(0, 0, AT + 0x1000) == 14 && trap.error == 0 && trap.cr2 == AT + 0x1000, "2 levels: a page that is not there: #PF(0)");
  directory[AT >> 22] = (u32)page & 0xffc00000 | PS | P | W; invlpg(AT);
  page[0] = 0x5a;
  report(TRY("cmpb $0x5a, (%%edx)\n je 1f\n ud2\n 1:", AT + ((u32)page & 0x3fffff)) == -1 && directory[AT >> 22] & ACC && !(directory[AT >> 22] & DIRTY), "2 levels: a page of 4 MiB is read");
  report(TRY("movb $0xa5, (%%edx)", AT + ((u32)page & 0x3fffff)) == -1 && directory[AT >> 22] & DIRTY, "2 levels: and written");
  directory[AT >> 22] |= 1 << 21; invlpg(AT);
  report(access(0, 0, AT) == 14 && trap.error == 9, "2 levels: bit 21 of a page of 4 MiB: #PF(9)");
}
static void three_levels(void) {
  WRCR(0, RDCR(0) & ~0x80000000);
  pae = 1;
  for (int i = 0; i < 4; i++) pointers[i] = (u32)directories[i] | P;
  for (int i = 0; i < 3 * 512; i++) directories[i >> 9][i & 511] = (u64)i << 21 | PS | W | P;
  wide[2] = (u32)user_page | P | W | U; wide[3] = (u32)user_stack | P | W | U;
  set(P | W | U, P | W | U);
  WRCR(4, RDCR(4) | 0x20);
  asm volatile("rdmsr\n or $0x800, %%eax\n wrmsr" ::"c"(0xc0000080) : "eax", "edx");
  WRCR(3, pointers);
  WRCR(0, RDCR(0) | 0x80010000);
  rights("PAE");
  set(P | W | U, P | W | U | 1ull << 51);
  report(access(0, 0, AT) == 14 && trap.error == 9, "PAE: a reserved bit of a PTE: #PF(9)");
  set(P | W | U | 1ull << 62, P | W | U);
  report(access(1, 0, AT) == 14 && trap.error == 11, "PAE: a reserved bit of a PDE: #PF(11)");
  directories[3][0] = (u32)page & ~0x1fffff | PS | P | W; invlpg(AT);
  page[0] = 0x5a;
  report(TRY("cmpb $0x5a, (%%edx)\n je 1f\n ud2\n 1:", AT + ((u32)page & 0x1fffff)) == -1 && directories[3][0] & ACC, "PAE: a page of 2 MiB");
  directories[3][0] |= 1 << 13; invlpg(AT);
  report(access(0, 0, AT) == 14 && trap.error == 9, "PAE: bit 13 of a page of 2 MiB: #PF(9)");
  set(P | W | U, P | W | U | NX);
  asm volatile("rdmsr\n and $~0x800, %%eax\n wrmsr" ::"c"(0xc0000080) : "eax", "edx");
  invlpg(AT);
  report(access(0, 0, AT) == 14 && trap.error == 9, "PAE: NX without EFER.NXE: #PF(9)");
  set(P | W | U, P | W | U); invlpg(AT);
  { u64 kept = pointers[3]; pointers[3] = 0; invlpg(AT);
    report(access(0, 0, AT) == -1, "PAE: the pointers are those of when CR3 was loaded");
    WRCR(4, RDCR(4) ^ 0x80);
    report(access(0, 0, AT) == 14 && trap.error == 0, "PAE: a change of CR4.PGE loads them");
    pointers[3] = kept; invlpg(AT);
    report(access(0, 0, AT) == 14, "PAE: and INVLPG does not");
    WRCR(0, RDCR(0) ^ 0x40000000);
    report(access(0, 0, AT) == -1, "PAE: a change of CR0.CD does");
    WRCR(0, RDCR(0) & ~0x40000000); WRCR(4, RDCR(4) ^ 0x80); }
  pointers[3] |= 2;
  report(TRY("mov %%edx, %%cr3", pointers) == 13 && trap.error == 0, "PAE: a reserved bit of a PDPTE, when CR3 is loaded: #GP(0)");
  pointers[3] = 2;
  report(TRY("mov %%edx, %%cr3", pointers) == -1, "PAE: unless it is not present");
  report(access(0, 0, AT) == 14 && trap.error == 0, "PAE: then its pages are not: #PF(0)");
  WRCR(0, RDCR(0) & ~0x80000000);
}
int main(void) {
  copy(user_page, (u8 *)u_load, (u32)u_none - (u32)u_load);
  two_levels(); three_levels();
  return done();
}
