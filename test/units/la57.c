/* 5-level paging: how it is switched on, addresses of 57 bits, the rights of its top level (Intel SDM volume 3, sections 2.5 and 4.5). */
#include "units.h"

#define AT 0x80000000000000ul    /* canonical with 57 bits, not with 48 */
#define HIGH 0xff00000000000000ul /* the lowest of the upper half */
#define BEYOND 0x100000000000000ul
static u64 pml5[512] __attribute__((aligned(4096))), tables[4][512] __attribute__((aligned(4096)));
static u8 page[4096] __attribute__((aligned(4096)));
enum { P = 1, W = 2, U = 4, A = 0x20, D = 0x40, PS = 0x80, LA57 = 0x1000 };
extern void levels(u64 cr3, u64 cr4);
/* CR4.LA57 changes only without paging: through 32-bit code and back. */
asm(".text\n levels:\n push %rbx\n mov %rsp, %r11\n mov %edi, %r8d\n mov %esi, %r9d\n mov %esi, %ebx\n lea 5f(%rip), %rax\n pushq $0x18\n push %rax\n lretq\n .code32\n 5:\n"
    "mov $0x20, %eax\n mov %eax, %ss\n mov %cr0, %eax\n and $0x7fffffff, %eax\n mov %eax, %cr0\n mov %ebx, %cr4\n mov %edi, %cr3\n or $0x80000000, %eax\n mov %eax, %cr0\n ljmp $8, $6f\n"
    ".code64\n 6: mov $0x10, %eax\n mov %eax, %ss\n mov %r11, %rsp\n pop %rbx\n ret\n");
static void user_load(void) { asm volatile("movabs %0, %%rax\n mov (%%rax), %%al" ::"i"(AT) : "rax"); }
static void user_store(void) { asm volatile("movabs %0, %%rax\n mov %%al, (%%rax)" ::"i"(AT) : "rax", "memory"); }
int main(void) {
  int present = cpuid(7, 0).c >> 16 & 1;
  report((cpuid(0x80000008, 0).a >> 8 & 0xff) == (present ? 57 : 48), "CPUID: width of linear addresses");
  report(TRY("mov (%%rdx), %%al", AT) == 13, "bit 55 of an address with 4 levels: #GP");
  report(TRY("mov %%cr4, %%rax\n bts $12, %%rax\n mov %%rax, %%cr4", 0) == 13, "CR4.LA57 in long mode: #GP");
  report((try_wrmsr(0xc0000102, AT) == -1) == present, "WRMSR of an address of 57 bits, as the processor has them");
  report(try_wrmsr(0xc0000102, BEYOND) == 13, "WRMSR of an address of 58 bits: #GP");
  wrmsr(0xc0000102, 0);
  if (!present) return done();

  pml5[0] = (u64)pml4 | P | W | U;
  pml5[AT >> 48 & 511] = (u64)tables[0] | P | W | U;
  pml5[HIGH >> 48 & 511] = (u64)tables[0] | P | W | U;
  tables[0][0] = (u64)tables[1] | P | W | U;
  tables[1][0] = (u64)tables[2] | P | W | U;
  tables[2][0] = (u64)tables[3] | P | W | U;
  tables[3][0] = (u64)page | P | W | U;
  u64 *top = &pml5[AT >> 48 & 511];
  cli();
  u64 cr4 = RDCR(4);
  levels((u64)pml5, cr4 | LA57);
  report(RDCR(4) & LA57, "5-level paging is on");
  page[0] = 0xc3; page[8] = 0x5a;
  report(TRY("mov 8(%%rdx), %%al\n cmp $0x5a, %%al\n je 1f\n ud2\n 1:", AT) == -1, "a load by the fifth level");
  report(*top & A, "its entry is accessed now");
  report(TRY("movb $0xa5, 9(%%rdx)", HIGH) == -1 && page[9] == 0xa5, "a store in the upper half");
  report(TRY("call *%%rdx", AT) == -1, "a call to an address of 57 bits");
  report(TRY("mov %%rsp, %%rcx\n lea 0x800(%%rdx), %%rsp\n push %%rax\n pop %%rax\n mov %%rcx, %%rsp", AT) == -1, "a stack there");
  report(TRY("mov (%%rdx), %%al", BEYOND) == 13 && trap.error == 0, "bit 56 that is not extended: #GP(0)");
  report(TRY("jmp *%%rdx", BEYOND) == 13, "a jump there: #GP(0)");
  report(TRY("mov %%rdx, %%rsp\n push %%rax", BEYOND + 0x100) == 12, "a push there: #SS(0)");
  report(TRY("mov (%%rdx), %%al", 0x40000000000000ul) == 14 && trap.error == 0 && trap.cr2 == 0x40000000000000ul, "an entry that is not present: #PF(0)");
  *top |= PS; invlpg((void *)AT);
  report(TRY("mov (%%rdx), %%al", AT) == 14 && trap.error == 9, "PS in a PML5E: #PF(9)");
  *top &= ~(u64)PS;
  *top |= 1ul << 51; invlpg((void *)AT);
  report(TRY("mov (%%rdx), %%al", AT) == 14 && trap.error == 9, "a reserved bit of a PML5E: #PF(9)");
  *top &= ~(1ul << 51);
  *top &= ~(u64)W; invlpg((void *)AT);
  report(TRY("mov %%al, 1(%%rdx)", AT) == 14 && trap.error == 3 && trap.cr2 == AT + 1, "a PML5E without W: #PF(3)");
  report(user(user_load, 0) == 0x20 && user(user_store, 0) == 14 && trap.error == 7, "and at CPL 3: loads, no stores");
  *top = (*top | W) & ~(u64)U; invlpg((void *)AT);
  report(user(user_load, 0) == 14 && trap.error == 5, "a PML5E without U: #PF(5)");
  *top |= U | 1ul << 63; invlpg((void *)AT);
  report(TRY("call *%%rdx", AT) == 14 && trap.error == 0x11, "a PML5E with NX: #PF(0x11)");
  report(TRY("mov %%cr4, %%rax\n btr $12, %%rax\n mov %%rax, %%cr4", 0) == 13, "CR4.LA57 off in long mode: #GP");
  levels((u64)pml4, cr4);
  report(TRY("mov (%%rdx), %%al", AT) == 13, "with 4 levels again: #GP");
  return done();
}
