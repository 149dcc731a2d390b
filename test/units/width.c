/* The width of physical addresses: CPUID, reserved bits of CR3, page tables, variable MTRRs and the APIC base (Intel SDM volume 2, CPUID
   leaf 80000008H; volume 3, sections 4.1.4, 4.4.1, 4.5, 11.4.4, 12.11.2.3). The command line says `bits=N`, with `,cr3` for what QEMU ends at. */
#include "units.h"
#define AT 0x8000000000ul /* the second entry of the PML4 */
static u64 tables[3][512] __attribute__((aligned(4096)));
static u8 page[4096] __attribute__((aligned(4096)));
enum { P = 1, W = 2, U = 4, A = 0x20, PS = 0x80 };
static int bits;
static u64 top, over;
static long load(void) { invlpg((void *)AT); return TRY("mov (%%rdx), %%al", AT); }
/* An entry with a bit that is within the width, and one that is not. */
static void entry(u64 *e, const char *name) {
  u64 old = *e & ~A;
  *e = old | top;
  load();
  report(*e & A, "%s: the highest bit of an address is used", name);
  if (bits < 52) {
    *e = old | over;
    report(load() == 14 && trap.error == 9, "%s: the bit above it is reserved: #PF(9)", name);
    *e = old | 1ul << 51;
    report(load() == 14 && trap.error == 9, "%s: bit 51 is reserved: #PF(9)", name);
  }
  *e = old;
}
int main(void) {
  const char *s = command_line;
  while (*s && *s != '=') s++;
  while (*++s >= '0' && *s <= '9') bits = 10 * bits + *s - '0';
  top = 1ul << bits - 1; over = 1ul << bits;
  int cr3s = *s == ',';
  report((cpuid(0x80000008, 0).a & 0xff) == bits, "CPUID leaf 80000008H (%d)", cpuid(0x80000008, 0).a & 0xff);
  tables[0][0] = (u64)tables[1] | P | W | U;
  tables[1][0] = (u64)tables[2] | P | W | U;
  tables[2][0] = (u64)page | P | W | U;
  u64 *pml4e = &pml4[AT >> 39], *pdpte = &tables[0][0];
  *pml4e = (u64)tables[0] | P | W | U;
  report(load() == -1, "a load");
  entry(pml4e, "PML4E"); entry(pdpte, "PDPTE"); entry(&tables[1][0], "PDE"); entry(&tables[2][0], "PTE");
  u64 old = *pdpte;
  *pdpte = P | W | U | PS; entry(pdpte, "PDPTE of 1 GiB"); *pdpte = old;
  old = tables[1][0]; tables[1][0] = P | W | U | PS; entry(&tables[1][0], "PDE of 2 MiB"); tables[1][0] = old;
  /* Memory that is not there, at the end of the addresses. */
  tables[2][0] = (top | top - 0x1000) | P | W | U;
  invlpg((void *)AT);
  report(load() == -1 && TRY("movl $5, (%%rdx)", AT) == -1, "a load and a store at the end of the addresses, where nothing is");
  tables[2][0] = (u64)page | P | W | U;
  invlpg((void *)AT);
  u64 cr3 = RDCR(3);
  if (!cr3s) skip("CR3");
  else if (bits < 52) report(TRY("mov %%rdx, %%cr3", cr3 | over) == 13, "CR3: the bit above the width: #GP");
  if (cr3s) report(TRY("mov %%rdx, %%cr3", cr3 | 1ul << 52) == 13, "CR3: bit 52: #GP");
  report(RDCR(3) == cr3, "it stays");
  report(try_wrmsr(0x200, top | 6) == -1 && rdmsr(0x200) == (top | 6), "MTRR base: the highest bit is kept");
  report(try_wrmsr(0x201, (over - 0x1000) | 0x800) == -1 && rdmsr(0x201) == ((over - 0x1000) | 0x800), "MTRR mask: all bits of an address are kept");
  report(try_wrmsr(0x200, over | 6) == 13, "MTRR base: the bit above: #GP");
  report(try_wrmsr(0x201, over | 0x800) == 13, "MTRR mask: the bit above: #GP");
  wrmsr(0x201, 0); wrmsr(0x200, 0);
  report(try_wrmsr(0x1b, rdmsr(0x1b) | over) == 13, "APIC base: the bit above: #GP");
  return done();
}
