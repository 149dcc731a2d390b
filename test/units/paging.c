/* Rights of pages: every combination of present, writable, user, NX, accessed, dirty, CR0.WP, CR4.SMEP, CR4.SMAP, protection keys and kinds
   of access, against what the manual says (Intel SDM volume 3, sections 4.6 to 4.8). */
#include "units.h"

#define AT 0x40000000000ul
static u64 tables[3][512] __attribute__((aligned(4096)));
static u8 page[4096] __attribute__((aligned(4096)));
static u64 *pte, *pde;
static void nothing(void) {}
enum { P = 1, W = 2, U = 4, A = 0x20, D = 0x40, PS = 0x80 };
#define NX (1ul << 63)
enum { LOAD, STORE, FETCH };
static int has_pku, has_smep, has_smap;

static void u_load(void) { asm volatile("mov %0, %%rax\n mov (%%rax), %%al" ::"i"(AT) : "rax"); }
static void u_store(void) { asm volatile("movabs %0, %%rax\n movb $0xc3, (%%rax)" ::"i"(AT) : "rax", "memory"); }
static void u_fetch(void) { asm volatile("movabs %0, %%rax\n call *%%rax" ::"i"(AT) : "rax"); }
static long access(int kind, int user_mode) {
  static void (*const f[])(void) = { u_load, u_store, u_fetch };
  if (user_mode) { long v = user(f[kind], 0); return v == 0x20 ? -1 : v; }
  switch (kind) {
    case LOAD: return TRY("mov (%%rdx), %%al", AT);
    case STORE: return TRY("movb $0xc3, (%%rdx)", AT);
    default: return TRY("call *%%rdx", AT);
  }
}
static int supervisor_keys;
static u64 bad_vectors, bad_errors, bad_bits, tried;
static char first[128];
static void one(u64 entry, u64 upper, int kind, int user_mode, int wp, int smep, int smap, int ac, u32 keys) {
  u64 key = entry >> 59 & 15;
  *pde = (u64)tables[2] | upper; *pte = (u64)page | entry; page[0] = 0xc3;
  invlpg((void *)AT);
  if (ac) asm volatile("pushfq\n orq $0x40000, (%%rsp)\n popfq" ::: "memory", "cc");
  long v = access(kind, user_mode);
  asm volatile("pushfq\n andq $~0x40000, (%%rsp)\n popfq" ::: "memory", "cc");
  u64 after = *pte;
  int present = entry & upper & P, writable = (entry & upper & W) != 0, user_page = (entry & upper & U) != 0, nx = ((entry | upper) & NX) != 0;
  int fault = 0;
  u64 error = (present != 0) | (kind == STORE) << 1 | user_mode << 2 | (kind == FETCH) << 4;
  if (!present) fault = 1;
  else {
    if (user_mode && !user_page) fault = 1;
    if (kind == STORE && !writable && (user_mode || wp)) fault = 1;
    if (kind == FETCH && nx) fault = 1;
    if (!user_mode && user_page && kind == FETCH && smep) fault = 1;
    if (!user_mode && user_page && kind != FETCH && smap && !ac) fault = 1;
    if (keys && (supervisor_keys ? !user_page && !user_mode : user_page) && kind != FETCH) {
      u32 rights = keys >> 2 * key & 3;
      if (rights & 1 || (rights & 2 && kind == STORE && (user_mode || wp))) { fault = 1; error |= 0x20; }
    }
  }
  tried++;
  int ok = (v == 14) == fault && (v == -1 || v == 14);
  if (!ok) bad_vectors++;
  else if (fault && (trap.error != error || trap.cr2 != AT)) { bad_errors++; ok = 0; }
  u64 expected = fault ? entry & (A | D) : (entry & (A | D)) | A | (kind == STORE ? D : 0);
  if (ok && (after & (A | D)) != expected) { bad_bits++; ok = 0; }
  if (!ok && bad_vectors + bad_errors + bad_bits == 1)
    put("  first: pte %x pde %x kind %d user %d wp %d smep %d smap %d ac %d keys %x: vector %d error %x expected %d %x, bits %x for %x\n", entry, upper, kind, user_mode, wp, smep, smap, ac, (u64)keys,
        (int)v, trap.error, fault, error, after & 0x60, expected);
}
static void all(const char *name, int keys) {
  bad_vectors = bad_errors = bad_bits = tried = 0;
  u64 cr4 = RDCR(4);
  for (int control = 0; control < 8; control++) {
    int wp = control & 1, smep = control >> 1 & 1, smap = control >> 2 & 1;
    if ((smep && !has_smep) || (smap && !has_smap)) continue;
    WRCR(0, wp ? RDCR(0) | 0x10000 : RDCR(0) & ~0x10000ul);
    for (int bits = 0; bits < 64; bits++) {
      u64 entry = (bits & 1 ? P : 0) | (bits & 2 ? W : 0) | (bits & 4 ? U : 0) | (bits & 8 ? NX : 0) | (bits & 16 ? A : 0) | (bits & 32 ? A | D : 0) | (keys ? 3ul << 59 : 0);
      for (int kind = 0; kind < 3; kind++)
        for (int user_mode = 0; user_mode < 2; user_mode++)
          for (int upper = 0; upper < 4; upper++)
            for (u32 rights = 0; rights < (keys ? 4 : 1); rights++) {
              /* SMEP and SMAP are switched on only around the access: the image itself lies in user pages. */
              u64 above = P | A | (upper & 1 ? 0 : W) | (upper & 2 ? 0 : U);
              if ((smep || smap) && !user_mode) continue;
              u32 pkru = keys ? rights << 6 | 0x80000000u : 0;
              if (keys && supervisor_keys) wrmsr(0x6e1, pkru & ~0x80000000u);
              else if (keys) asm volatile(".byte 0x0f, 0x01, 0xef" ::"a"(pkru & ~0x80000000u), "c"(0), "d"(0));
              one(entry, above, kind, user_mode, wp, smep, smap, 0, keys ? pkru & ~0x80000000u : 0);
            }
    }
  }
  WRCR(4, cr4);
  WRCR(0, RDCR(0) | 0x10000);
  report(!bad_vectors, "%s: fault or not, in %d cases (%d wrong)", name, (int)tried, (int)bad_vectors);
  report(!bad_errors, "%s: error codes and CR2 (%d wrong)", name, (int)bad_errors);
  report(!bad_bits, "%s: accessed and dirty bits (%d wrong)", name, (int)bad_bits);
}
static void reserved(void) {
  *pde = (u64)tables[2] | P | W | U; *pte = (u64)page | P | W | U | 1ul << 51;
  invlpg((void *)AT);
  report(access(LOAD, 0) == 14 && trap.error == 9, "reserved bit of a PTE: #PF(9)");
  *pde = 0x200000ul | P | W | U | PS | 1 << 13; invlpg((void *)AT);
  report(access(STORE, 1) == 14 && trap.error == 15, "reserved bit of a large page: #PF(15)");
  *pde = (u64)tables[2] | P | W | U | 1ul << 50; invlpg((void *)AT);
  report(access(LOAD, 0) == 14 && trap.error == 9, "reserved bit of a PDE: #PF(9)");
  *pde = (u64)tables[2] | P | W | U; *pte = (u64)page | P | W | U; invlpg((void *)AT);
  u64 *pml4e = &pml4[AT >> 39 & 511];
  *pml4e |= PS; invlpg((void *)AT);
  report(access(LOAD, 0) == 14 && trap.error == 9, "PS in a PML4E: #PF(9)");
  *pml4e &= ~(u64)PS;
  wrmsr(0xc0000080, rdmsr(0xc0000080) & ~0x800ul);
  *pte |= NX; invlpg((void *)AT);
  report(access(LOAD, 0) == 14 && trap.error == 9, "NX without EFER.NXE is reserved: #PF(9)");
  wrmsr(0xc0000080, rdmsr(0xc0000080) | 0x800);
  invlpg((void *)AT);
  report(access(LOAD, 0) == -1, "and with EFER.NXE is not");
}
static void supervisor(void) {
  /* SMAP and SMEP with the image in supervisor pages. */
  for (int i = 0; i < 2048; i++) pd[i] &= ~4ul;
  WRCR(3, RDCR(3));
  *pde = (u64)tables[2] | P | W | U; *pte = (u64)page | P | W | U; page[0] = 0xc3; invlpg((void *)AT);
  if (has_smap) {
    WRCR(4, RDCR(4) | 1 << 21);
    report(access(LOAD, 0) == 14 && trap.error == 1, "SMAP: load from a user page: #PF(1)");
    report(access(STORE, 0) == 14 && trap.error == 3, "SMAP: store: #PF(3)");
    report(TRY("stac\n mov (%%rdx), %%al\n clac", AT) == -1, "SMAP: open with STAC");
    report(access(LOAD, 0) == 14, "SMAP: closed by CLAC");
    report(access(FETCH, 0) == -1, "SMAP: not for fetches");
    WRCR(4, RDCR(4) & ~(1ul << 21));
  } else skip("SMAP");
  if (has_smep) {
    WRCR(4, RDCR(4) | 1 << 20);
    report(access(FETCH, 0) == 14 && trap.error == 0x11, "SMEP: fetch from a user page: #PF(0x11)");
    report(access(LOAD, 0) == -1, "SMEP: not for loads");
    WRCR(4, RDCR(4) & ~(1ul << 20));
  } else skip("SMEP");
  for (int i = 0; i < 2048; i++) pd[i] |= 4;
  WRCR(3, RDCR(3));
}
static void keys(void) {
  if (!has_pku) { skip("protection keys"); report(TRY("xor %%ecx, %%ecx\n .byte 0x0f, 0x01, 0xee", 0) == 6, "RDPKRU: #UD"); return; }
  report(TRY("xor %%ecx, %%ecx\n .byte 0x0f, 0x01, 0xee", 0) == 6, "RDPKRU without CR4.PKE: #UD");
  WRCR(4, RDCR(4) | 1 << 22);
  report(cpuid(7, 0).c >> 4 & 1, "CPUID shows OSPKE");
  report(TRY("mov $1, %%ecx\n .byte 0x0f, 0x01, 0xee", 0) == 13, "RDPKRU with ECX: #GP");
  report(TRY("xor %%ecx, %%ecx\n mov $1, %%edx\n .byte 0x0f, 0x01, 0xef", 0) == 13, "WRPKRU with EDX: #GP");
  all("protection keys", 1);
  asm volatile(".byte 0x0f, 0x01, 0xef" ::"a"(0), "c"(0), "d"(0));
  WRCR(4, RDCR(4) & ~(1ul << 22));
}
static void keys_of_supervisor_pages(void) {
  u64 v;
  int has = cpuid(7, 0).c >> 31 & 1;
  report((TRY("mov %%cr4, %%rax\n bts $24, %%rax\n mov %%rax, %%cr4", 0) == -1) == has, "CR4.PKS as CPUID has it");
  report((try_rdmsr(0x6e1, &v) == -1) == has && (try_wrmsr(0x6e1, 0) == -1) == has, "so is IA32_PKRS");
  if (!has) return;
  report(try_wrmsr(0x6e1, 1ul << 32) == 13, "IA32_PKRS has 32 bits");
  supervisor_keys = 1;
  all("protection keys of supervisor pages", 1);
  supervisor_keys = 0;
  wrmsr(0x6e1, 0);
  WRCR(4, RDCR(4) & ~(1ul << 24));
}
static void pcids(void) {
  int pcid = cpuid(1, 0).c >> 17 & 1, invpcid = cpuid(7, 0).b >> 10 & 1;
  u64 d[2] = { 0, 0 };
  report((TRY("mov %%cr4, %%rax\n bts $17, %%rax\n mov %%rax, %%cr4", 0) == -1) == pcid, "CR4.PCIDE as CPUID has it");
  WRCR(4, RDCR(4) & ~(1ul << 17));
  if (!invpcid) { report(TRY("xor %%eax, %%eax\n .byte 0x66, 0x0f, 0x38, 0x82, 0x02", d) == 6, "INVPCID: #UD"); return; }
  report(TRY("mov $4, %%eax\n .byte 0x66, 0x0f, 0x38, 0x82, 0x02", d) == 13, "INVPCID of an unknown type: #GP");
  for (int type = 0; type < 4; type++) report(TRY("mov (%%rdx), %%rax\n add $8, %%rdx\n .byte 0x66, 0x0f, 0x38, 0x82, 0x02", ((u64[]){ type, 0, 0 })) == -1, "INVPCID type %d", type);
  d[0] = 1ul << 12;
  report(TRY("xor %%eax, %%eax\n .byte 0x66, 0x0f, 0x38, 0x82, 0x02", d) == 13, "INVPCID with reserved bits: #GP");
  if (!pcid) return;
  WRCR(4, RDCR(4) | 1 << 17);
  report(TRY("mov %%rdx, %%cr3", RDCR(3) | 5) == -1, "CR3 with a PCID");
  report(TRY("mov %%cr4, %%rax\n btr $17, %%rax\n mov %%rax, %%cr4", 0) == -1, "CR4.PCIDE off again");
  WRCR(3, RDCR(3) & ~0xffful);
}
static void p_sgdt(void) { asm volatile("sgdt -16(%%rsp)" ::: "memory"); }
static void p_smsw(void) { asm volatile("smsw %%eax" ::: "rax"); }
static void p_str(void) { asm volatile("str %%eax" ::: "rax"); }
static void umip(void) {
  if (!(cpuid(7, 0).c >> 2 & 1)) { skip("UMIP"); report(TRY("mov %%cr4, %%rax\n bts $11, %%rax\n mov %%rax, %%cr4", 0) == 13, "CR4.UMIP: #GP"); return; }
  report(user(p_sgdt, 0) == 0x20, "SGDT at CPL 3");
  WRCR(4, RDCR(4) | 1 << 11);
  report(user(p_sgdt, 0) == 13 && user(p_smsw, 0) == 13 && user(p_str, 0) == 13, "SGDT, SMSW, STR at CPL 3 with CR4.UMIP: #GP");
  WRCR(4, RDCR(4) & ~(1ul << 11));
}
int main(void) {
  has_smep = cpuid(7, 0).b >> 7 & 1; has_smap = cpuid(7, 0).b >> 20 & 1; has_pku = cpuid(7, 0).c >> 3 & 1;
  pml4[AT >> 39 & 511] = (u64)tables[0] | P | W | U; tables[0][AT >> 30 & 511] = (u64)tables[1] | P | W | U;
  pde = &tables[1][AT >> 21 & 511]; pte = &tables[2][AT >> 12 & 511];
  all("rights", 0);
  reserved(); supervisor(); keys(); keys_of_supervisor_pages(); pcids(); umip();
  return done();
}
