/* Segments and gates in 32-bit and 16-bit protected mode: limits, types, privilege, LAR and its like, call gates, interrupt gates, returns
   (Intel SDM volume 3, chapter 5 and section 6.12). */
#include "units.h"

static u8 bytes[0x20000] __attribute__((aligned(65536)));
static u8 inner[4096] __attribute__((aligned(16)));
static u8 user_stack[4096] __attribute__((aligned(16)));
static u64 ldt[4];
#define BASE ((u32)bytes)
#define ES(code, selector) TRY("mov %%edx, %%es\n" code "\n", selector)

static u8 es_byte(u32 selector, u32 offset) { u8 v; asm volatile("mov %1, %%es\n mov %%es:(%2), %0\n push %%ds\n pop %%es" : "=q"(v) : "r"(selector), "r"(offset)); return v; }
static void limits(void) {
  descriptor(A, BASE, 0xfff, WRITE | BIG);
  report(ES("mov %%es:0xfff, %%al", A) == -1, "the last byte of a segment");
  report(ES("mov %%es:0x1000, %%al", A) == 13 && trap.error == 0, "the byte after its limit: #GP(0)");
  report(ES("mov %%es:0xffc, %%eax", A) == -1, "its last four bytes");
  report(ES("mov %%es:0xffd, %%eax", A) == 13 && trap.error == 0, "four bytes across its limit: #GP(0)");
  report(ES("mov %%eax, %%es:0xffd", A) == 13, "a store across its limit: #GP(0)");
  report(ES("lock incw %%es:0xfff", A) == 13, "a locked operation across its limit: #GP(0)");
  report(ES("fldt %%es:0xff7", A) == 13, "an x87 load across its limit: #GP(0)");
  report(ES("movups %%es:0xff1, %%xmm0", A) == 13, "a vector load across its limit: #GP(0)");
  report(ES("mov $-1, %%eax\n mov %%es:(%%eax), %%al", A) == 13, "offset 4 GiB - 1: #GP(0)");
  report(ES("bt %%eax, %%es:0xffc", A) == -1, "BT in the last four bytes");
  report(ES("mov $32, %%eax\n bt %%eax, %%es:0xffc", A) == 13, "BT of a bit beyond the limit: #GP(0)");
  report(ES("mov $-8, %%eax\n bt %%eax, %%es:0x1000", A) == -1, "BT of a bit before its operand, which lies beyond the limit");
  report(ES("mov $3, %%ecx\n mov $0xffe, %%edi\n rep stosb", A) == 13 && trap.frame.ecx == 1 && trap.frame.edi == 0x1000, "REP STOSB stops at the limit: %x %x", trap.frame.ecx, trap.frame.edi);
  descriptor(A, BASE, 0, WRITE | BIG | GRANULAR);
  report(ES("mov %%es:0xfff, %%al", A) == -1 && ES("mov %%es:0x1000, %%al", A) == 13, "a limit of 0 pages is 4 KiB");
  descriptor(A, BASE, 0xfff, DOWN | BIG);
  report(ES("mov %%es:0xfff, %%al", A) == 13, "expand-down: the limit itself: #GP(0)");
  report(ES("mov %%es:0x1000, %%eax", A) == -1, "expand-down: above it");
  report(ES("mov %%es:0xffe, %%eax", A) == 13, "expand-down: across it: #GP(0)");
  report(ES("mov $-1, %%eax\n mov %%es:(%%eax), %%ax", A) == 13, "expand-down: across 4 GiB: #GP(0)");
  descriptor(A, BASE, 0xfff, DOWN);
  report(ES("mov %%es:0xffff, %%al", A) == -1, "expand-down of 16 bits: its last byte");
  report(ES("mov %%es:0x10000, %%al", A) == 13, "expand-down of 16 bits: 64 KiB: #GP(0)");
  report(ES("mov %%es:0xffff, %%ax", A) == 13, "expand-down of 16 bits: across 64 KiB: #GP(0)");
  descriptor(A, 0xfffff000 + BASE, 0xfffff, WRITE | BIG | GRANULAR);
  bytes[5] = 0x77;
  report(ES("mov %%es:0x1005, %%al\n mov %%eax, %%edx", A) == -1 && es_byte(A, 0x1005) == 0x77, "linear addresses wrap at 4 GiB");
}

static void types(void) {
  descriptor(A, BASE, 0xffff, READ | BIG);
  report(ES("mov %%es:0, %%al", A) == -1, "load from a read-only segment");
  report(ES("mov %%al, %%es:0", A) == 13 && trap.error == 0, "store to a read-only segment: #GP(0)");
  report(ES("lock incl %%es:0", A) == 13, "locked increment in a read-only segment: #GP(0)");
  report(ES("cmpxchg %%eax, %%es:0", A) == 13, "CMPXCHG in a read-only segment: #GP(0)");
  report(TRY("mov %%al, %%cs:(%%edx)", bytes) == 13 && trap.error == 0, "store to the code segment: #GP(0)");
  report(TRY("mov %%cs:(%%edx), %%al", bytes) == -1, "load from the code segment");
  report(ES("", 0) == -1, "a null selector for ES");
  report(ES("mov %%es:0, %%al", 0) == 13 && trap.error == 0, "load by a null selector: #GP(0)");
  report(ES("mov %%es:0, %%al", 3) == 13 && trap.error == 0, "load by a null selector with RPL 3: #GP(0)");
  report(TRY("xor %%eax, %%eax\n mov %%eax, %%ss", 0) == 13 && trap.error == 0, "a null selector for SS: #GP(0)");
  descriptor(A, BASE, 0xffff, EXECUTE | BIG);
  report(ES("", A) == 13 && trap.error == A, "execute-only code for ES: #GP(selector)");
  descriptor(A, BASE, 0xffff, CODE_READ | BIG);
  report(ES("mov %%es:0, %%al", A) == -1 && ES("mov %%al, %%es:0", A) == 13, "readable code for ES: loads, no stores");
  descriptor(A, BASE, 0xffff, (WRITE & ~PRESENT) | BIG);
  report(ES("", A) == 11 && trap.error == A, "ES not present: #NP(selector)");
  report(TRY("mov %%edx, %%ss", A) == 12 && trap.error == A, "SS not present: #SS(selector)");
  descriptor(A, BASE, 0xffff, READ | BIG);
  report(TRY("mov %%edx, %%ss", A) == 13 && trap.error == A, "read-only SS: #GP(selector)");
  descriptor(A, 0, 0xfffff, WRITE | BIG | GRANULAR);
  report(TRY("mov %%edx, %%ss", A | 1) == 13 && trap.error == A, "SS with an RPL other than CPL: #GP(selector)");
  report(TRY("mov %%edx, %%ss\n mov $0x10, %%eax\n mov %%eax, %%ss", A) == -1, "a good SS");
  descriptor(A, 0, 0xfffff, WRITE | DPL3 | BIG | GRANULAR);
  report(TRY("mov %%edx, %%ss", A) == 13 && trap.error == A, "SS with a DPL other than CPL: #GP(selector)");
  report(ES("", A | 3) == -1, "ES with DPL 3 and RPL 3 at CPL 0");
  descriptor(A, 0, 0xfffff, WRITE | BIG | GRANULAR);
  report(ES("", A | 3) == 13 && trap.error == A, "ES with DPL 0 and RPL 3: #GP(selector)");
  descriptor(A, BASE, 0x67, TSS32);
  report(ES("", A) == 13 && trap.error == A, "a TSS for ES: #GP(selector)");
  report(ES("", 32 * 8) == 13 && trap.error == 32 * 8, "beyond the GDT: #GP(selector)");
  report(ES("", A | 4) == 13 && trap.error == (A | 4), "a selector of the LDT without LDT: #GP(selector)");
  descriptor(A, (u32)ldt, 15, LDT);
  ldt[1] = 0x00cf92000000ffffull;
  report(TRY("lldt %%dx", A) == -1, "LLDT");
  report(ES("", 8 | 4) == -1 && (ldt[1] >> 40 & 1), "a segment of the LDT, which is now accessed");
  report(ES("", 0x10 | 4) == 13 && trap.error == 0x14, "beyond the LDT: #GP(selector)");
  report(TRY("lldt %%dx", DATA) == 13 && trap.error == DATA, "LLDT of a data segment: #GP(selector)");
  report(TRY("lldt %%dx", A | 4) == 13 && trap.error == (A | 4), "LLDT of a selector of the LDT: #GP(selector)");
  descriptor(B, (u32)ldt, 15, LDT & ~PRESENT);
  report(TRY("lldt %%dx", B) == 11 && trap.error == B, "LLDT not present: #NP(selector)");
  report(TRY("lldt %%dx", 0) == -1, "LLDT of a null selector");
  report(TRY("ltr %%dx", TSS) == 13 && trap.error == TSS, "LTR of a busy TSS: #GP(selector)");
  report(TRY("ltr %%dx", 0) == 13 && trap.error == 0, "LTR of a null selector: #GP(0)");
  descriptor(TSS, (u32)&tss, sizeof tss - 1, TSS32);
  asm volatile("ltr %w0" ::"r"(TSS));
  report(TRY("movw %%dx, %%cs", A) == 6, "MOV to CS: #UD");
  report(TRY(".byte 0x8e, 0xf0", 0) == 6, "MOV to a segment register 6: #UD");
}

static u32 lar(u32 s) { u32 v = 0xdead; asm volatile("lar %1, %0\n jz 1f\n mov $0xdead, %0\n 1:" : "+r"(v) : "r"(s) : "cc"); return v; }
static u32 lsl(u32 s) { u32 v = 0xdead; asm volatile("lsl %1, %0\n jz 1f\n mov $0xdead, %0\n 1:" : "+r"(v) : "r"(s) : "cc"); return v; }
static int verr(u32 s) { u8 z; asm volatile("verr %w1\n setz %0" : "=q"(z) : "r"(s) : "cc"); return z; }
static int verw(u32 s) { u8 z; asm volatile("verw %w1\n setz %0" : "=q"(z) : "r"(s) : "cc"); return z; }
static void queries(void) {
  static const struct { u8 type; u8 lar, lsl; } kinds[] = { { 0, 0, 0 }, { 1, 1, 1 }, { 2, 1, 1 }, { 3, 1, 1 }, { 4, 1, 0 }, { 5, 1, 0 }, { 6, 0, 0 }, { 7, 0, 0 }, { 8, 0, 0 }, { 9, 1, 1 }, { 10, 0, 0 }, { 11, 1, 1 }, { 12, 1, 0 }, { 13, 0, 0 }, { 14, 0, 0 }, { 15, 0, 0 } };
  int bad = 0;
  for (int i = 0; i < 16; i++) {
    descriptor(A, 0, 0x123, PRESENT | kinds[i].type);
    if ((lar(A) != 0xdead) != kinds[i].lar || (lsl(A) != 0xdead) != kinds[i].lsl) { bad++; put("  type %d: lar %x lsl %x\n", i, lar(A), lsl(A)); }
  }
  report(!bad, "LAR and LSL of each system type");
  descriptor(A, 0, 0x12345, WRITE | GRANULAR | BIG);
  report(lar(A) == 0xc09200, "LAR: %x", lar(A));
  report(lsl(A) == 0x12345fff, "LSL of a limit in pages: %x", lsl(A));
  descriptor(A, 0, 0x123, (WRITE & ~PRESENT));
  report(lar(A) == 0x1200 && lsl(A) == 0x123, "LAR and LSL of a segment that is not present");
  descriptor(A, 0, 0x123, WRITE);
  report(lar(A | 3) == 0xdead && lsl(A | 3) == 0xdead && lar(0) == 0xdead && lsl(32 * 8) == 0xdead, "LAR and LSL of a selector without privilege, null, beyond the GDT");
  report(verr(A) && verw(A) && !verr(A | 3), "VERR and VERW of data");
  descriptor(A, 0, 0x123, READ);
  report(verr(A) && !verw(A), "VERW of read-only data");
  descriptor(A, 0, 0x123, EXECUTE);
  report(!verr(A) && !verw(A), "VERR of execute-only code");
  descriptor(A, 0, 0x123, CONFORMING);
  report(verr(A | 3) && !verw(A), "VERR of conforming code: any RPL");
  u32 flags, v = 0x10;
  asm volatile("mov $3, %%ecx\n arpl %%cx, %%ax\n pushf\n pop %%edx" : "+a"(v), "=d"(flags)::"ecx", "cc");
  report(v == 0x13 && (flags & 0x40), "ARPL raises RPL and sets ZF");
  asm volatile("mov $1, %%ecx\n arpl %%cx, %%ax\n pushf\n pop %%edx" : "+a"(v), "=d"(flags)::"ecx", "cc");
  report(v == 0x13 && !(flags & 0x40), "ARPL does not lower it and clears ZF");
}

static void far_transfers(void) {
  descriptor(A, 0, 0xfffff, CODE_READ | BIG | GRANULAR);
  report(TRY("push %%edx\n push $1f\n lret\n 1: mov %%cs, %%ecx\n push $8\n push $2f\n lret\n 2:", A) == -1, "far return to another code segment");
  report(gdt[A >> 3] >> 40 & 1, "which is now accessed");
  report(TRY("push %%edx\n push $1f\n lret\n 1:", DATA) == 13 && trap.error == DATA, "far return to data: #GP(selector)");
  report(TRY("push %%edx\n push $1f\n lret\n 1:", 0) == 13 && trap.error == 0, "far return to a null selector: #GP(0)");
  descriptor(A, 0, 0xfffff, (CODE_READ & ~PRESENT) | BIG | GRANULAR);
  report(TRY("push %%edx\n push $1f\n lret\n 1:", A) == 11 && trap.error == A, "far return to a segment that is not present: #NP(selector)");
  descriptor(A, 0, 0xfff, CODE_READ | BIG);
  *(volatile u16 *)0x1000 = 0x0b0f; /* UD2 */
  report(TRY("push %%edx\n push $0x1000\n lret", A) == 13 && trap.error == 0, "far return beyond the limit: #GP(0)");
  static u32 pointer[2];
  pointer[0] = 0x1000; pointer[1] = A;
  report(TRY("ljmp *(%%edx)", pointer) == 13 && trap.error == 0, "far jump beyond the limit: #GP(0)");
  report(TRY("lcall *(%%edx)", pointer) == 13 && trap.error == 0, "far call beyond the limit: #GP(0)");
  pointer[1] = TSS;
  report(TRY("ljmp *(%%edx)", pointer) == 13 && trap.error == TSS, "far jump to the busy TSS: #GP(selector)");
  pointer[1] = USER_CODE;
  report(TRY("ljmp *(%%edx)", pointer) == 13 && trap.error == (USER_CODE & ~3), "far jump to another privilege: #GP(selector)");
  /* A code segment that ends at an instruction: bytes are `inc %eax; jmp` there. */
  static const u8 code[] = { 0x40, 0xeb, 0x7f, 0xe9, 0, 0x10, 0, 0, 0xe8, 0, 0x10, 0, 0, 0xff, 0xe2, 0xc3, 0x74, 0x7f, 0xcd };
  for (unsigned i = 0; i < sizeof bytes; i++) bytes[i] = i < sizeof code ? code[i] : 0xcc;
  descriptor(A, BASE, sizeof code - 1, CODE_READ | BIG);
  struct context c = { .cs = A, .eflags = 0x42, .ss = DATA, .es = DATA, .ds = DATA, .edx = 0x1000 };
  static const struct { u32 eip; const char *name; } branches[] = { { 1, "short jump" }, { 3, "near jump" }, { 8, "near call" }, { 13, "indirect jump" }, { 16, "conditional jump" } };
  for (int i = 0; i < 5; i++) {
    c.eip = branches[i].eip;
    trap.vector = -1;
    enter(&c);
    report(trap.vector == 13 && trap.error == 0 && trap.eip == branches[i].eip, "%s beyond the limit of CS: #GP(0) at the jump", branches[i].name);
  }
  c.eip = 18;
  enter(&c);
  report(trap.vector == 13 && trap.error == 0 && trap.eip == 18, "an instruction across the limit of CS: #GP(0)");
  c.eip = 19;
  enter(&c);
  report(trap.vector == 13 && trap.error == 0, "IRET beyond the limit of CS: #GP(0)");
}

/* At CPL 3 */
static struct context at3(void (*f)(void)) {
  struct context c = { .eip = (u32)f, .cs = USER_CODE, .eflags = 2, .esp = (u32)user_stack + sizeof user_stack - 64, .ss = USER_DATA, .es = USER_DATA, .ds = USER_DATA, .fs = 0, .gs = 0 };
  return c;
}
static int user(void (*f)(void)) { struct context c = at3(f); trap.vector = -1; enter(&c); return trap.vector; }
static int user_dx(void (*f)(void), u32 edx) { struct context c = at3(f); c.edx = edx; trap.vector = -1; enter(&c); return trap.vector; }
static volatile u32 seen[8];
#define CODE_AT(name, text) asm(".text\n .globl " #name "\n" #name ":\n" text); void name(void);
CODE_AT(u_end, "int $0x20")
CODE_AT(u_es, "mov %edx, %es\n int $0x20")
CODE_AT(u_ss, "mov %edx, %ss\n int $0x20")
CODE_AT(u_call, "mov $0x77, %esi\n push $0x33333333\n push $0x44444444\n lcall *(%edx)\n int $0x20")
CODE_AT(u_jmp, "ljmp *(%edx)\n int $0x20")
CODE_AT(u_hlt, "hlt")
CODE_AT(u_cli, "cli\n int $0x20")
CODE_AT(u_lret, "push %edx\n push $u_end\n lret")
CODE_AT(u_in, "in %dx, %al\n int $0x20")
CODE_AT(u_inw, "in %dx, %ax\n int $0x20")
CODE_AT(u_popf, "pushl $0x3202\n popf\n pushf\n pop %eax\n int $0x20")
CODE_AT(u_int, "int $0x21")
CODE_AT(u_limit, "mov %edx, %ss\n mov $2, %esp\n push %eax\n int $0x20")
CODE_AT(u_ebp, "mov %edx, %ss\n mov $0xfff, %ebp\n mov 1(%ebp), %eax\n int $0x20")
CODE_AT(u_bt, "mov %edx, %ss\n mov $0x1000, %eax\n mov $0, %ebp\n bt %eax, (%ebp)\n int $0x20")
CODE_AT(u_bt_out, "mov %edx, %ss\n mov $0x8000, %eax\n mov $0, %ebp\n bt %eax, (%ebp)\n int $0x20")
CODE_AT(u_ac, "pushf\n orl $0x40000, (%esp)\n popf\n mov 1(%esp), %eax\n int $0x20")
CODE_AT(u_sysexit, "sti\n int $0x20")
CODE_AT(g_done, "mov %cs, seen\n mov %ss, seen + 4\n mov 8(%esp), %eax\n mov %eax, seen + 8\n mov 12(%esp), %eax\n mov %eax, seen + 12\n mov 4(%esp), %eax\n mov %eax, seen + 16\n mov %esp, seen + 20\n lret $8")
CODE_AT(g_16, "mov %cs, seen\n mov %esp, seen + 20\n mov (%esp), %eax\n mov %eax, seen + 8\n mov 4(%esp), %eax\n mov %eax, seen + 12\n .byte 0x66\n lret $4")
static void privilege(void) {
  report(user(u_end) == 0x20, "CPL 3 and back");
  report(user_dx(u_es, DATA) == 13 && trap.error == DATA, "CPL 3: ES with DPL 0: #GP(selector)");
  report(user_dx(u_es, DATA | 3) == 13 && trap.error == DATA, "CPL 3: ES with DPL 0 and RPL 3: #GP(selector)");
  report(user_dx(u_es, USER_DATA & ~3) == 0x20, "CPL 3: ES with DPL 3 and RPL 0");
  report(user_dx(u_ss, USER_DATA & ~3) == 13 && trap.error == (USER_DATA & ~3), "CPL 3: SS with RPL 0: #GP(selector)");
  report(user_dx(u_ss, 0) == 13 && trap.error == 0, "CPL 3: null SS: #GP(0)");
  report(user(u_hlt) == 13 && user(u_cli) == 13, "CPL 3: HLT and CLI: #GP(0)");
  report(user(u_popf) == 0x20 && trap.frame.eax == 0x2, "CPL 3: POPF changes neither IF nor IOPL: %x", trap.frame.eax);
  struct context c = at3(u_popf);
  c.eflags = 0x3002;
  enter(&c);
  report((trap.frame.eax & 0x3200) == 0x3200, "CPL 3 with IOPL 3: POPF changes IF: %x", trap.frame.eax);
  c = at3(u_cli);
  c.eflags = 0x3002;
  trap.vector = -1;
  enter(&c);
  report(trap.vector == 0x20, "CPL 3 with IOPL 3: CLI");
  report(user_dx(u_in, 0x80) == 13, "CPL 3: a port that the map refuses: #GP(0)");
  tss.ports[0x80 / 8] = 0xfc;
  report(user_dx(u_in, 0x80) == 0x20 && user_dx(u_in, 0x81) == 0x20 && user_dx(u_in, 0x82) == 13, "CPL 3: ports that the map allows");
  report(user_dx(u_inw, 0x80) == 0x20 && user_dx(u_inw, 0x81) == 13, "CPL 3: two bytes need two bits");
  tss.ports[0x80 / 8] = 0xff;
  report(user(u_int) == 13 && trap.error == 0x21 * 8 + 2, "CPL 3: INT of a gate with DPL 0: #GP(vector * 8 + 2)");
  report(user_dx(u_lret, CODE) == 13 && trap.error == CODE, "CPL 3: far return inwards: #GP(selector)");
  descriptor(A, 0, 0xfffff, CONFORMING | BIG | GRANULAR);
  report(user_dx(u_lret, A | 3) == 0x20 && trap.cs == (A | 3), "CPL 3: far return to conforming code of CPL 0");
  static u32 pointer[2] = { (u32)u_end, A };
  report(user_dx(u_jmp, (u32)pointer) == 0x20 && trap.cs == (A | 3), "CPL 3: far jump to conforming code keeps CPL");
  pointer[1] = CODE;
  report(user_dx(u_jmp, (u32)pointer) == 13 && trap.error == CODE, "CPL 3: far jump to code of CPL 0: #GP(selector)");
  report(user_dx(u_call, (u32)pointer) == 13 && trap.error == CODE, "CPL 3: far call to code of CPL 0: #GP(selector)");

  /* The stack's segment: #SS, and where SS:EBP reaches beyond the limit. */
  descriptor(A, BASE, 0xfff, WRITE | DPL3 | BIG);
  report(user_dx(u_limit, A | 3) == 12 && trap.error == 0, "CPL 3: push beyond the limit of SS: #SS(0)");
  report(user_dx(u_ebp, A | 3) == 12 && trap.error == 0, "CPL 3: load by EBP beyond the limit: #SS(0)");
  report(user_dx(u_bt, A | 3) == 0x20, "CPL 3: BT in the segment of SS, far from its operand");
  report(user_dx(u_bt_out, A | 3) == 12 && trap.error == 0, "CPL 3: BT by EBP beyond the limit: #SS(0)");

  WRCR(0, RDCR(0) | 0x40000);
  report(user(u_ac) == 17 && trap.error == 0, "CPL 3: misaligned load with CR0.AM and EFLAGS.AC: #AC(0)");
  WRCR(0, RDCR(0) & ~0x40000);
}

static void gates(void) {
  static u32 pointer[2] = { 0, E | 3 };
  gdt[E >> 3] = gate(CODE, (u32)g_done, CALL32 | DPL3, 2);
  int v = user_dx(u_call, (u32)pointer);
  report(v == 0x20 && seen[0] == CODE && (seen[1] & 0xffff) == DATA, "call gate from CPL 3 to CPL 0");
  report(seen[2] == 0x44444444 && seen[3] == 0x33333333 && seen[4] == USER_CODE, "call gate: two parameters are copied");
  report(seen[5] == tss.esp0 - 24, "call gate: EIP, CS, parameters, ESP, SS on the stack of the TSS");
  report(trap.frame.esp == (u32)user_stack + sizeof user_stack - 64, "far return outwards drops the parameters of both stacks");
  gdt[E >> 3] = gate(CODE, (u32)g_done, CALL32, 2);
  report(user_dx(u_call, (u32)pointer) == 13 && trap.error == E, "call gate with DPL 0 at CPL 3: #GP(selector)");
  gdt[E >> 3] = gate(CODE, (u32)g_done, (CALL32 | DPL3) & ~PRESENT, 2);
  report(user_dx(u_call, (u32)pointer) == 11 && trap.error == E, "call gate not present: #NP(selector)");
  gdt[E >> 3] = gate(0, (u32)g_done, CALL32 | DPL3, 2);
  report(user_dx(u_call, (u32)pointer) == 13 && trap.error == 0, "call gate to a null selector: #GP(0)");
  gdt[E >> 3] = gate(DATA, (u32)g_done, CALL32 | DPL3, 2);
  report(user_dx(u_call, (u32)pointer) == 13 && trap.error == DATA, "call gate to data: #GP(selector)");
  gdt[E >> 3] = gate(CODE, (u32)g_done, CALL32 | DPL3, 2);
  report(user_dx(u_jmp, (u32)pointer) == 13 && trap.error == CODE, "jump through a gate to more privilege: #GP(selector)");
  descriptor(F, 0, 0xfffff, CODE_READ | 0x20 | BIG | GRANULAR);
  descriptor(G, 0, 0xfffff, WRITE | 0x20 | BIG | GRANULAR);
  gdt[E >> 3] = gate(F | 1, (u32)g_done, CALL32 | DPL3, 2);
  tss.esp1 = (u32)inner + sizeof inner;
  tss.ss1 = G;
  report(user_dx(u_call, (u32)pointer) == 10 && trap.error == G && trap.cs == USER_CODE, "call gate to CPL 1 with an RPL of 0 in SS1: #TS(selector)");
  tss.ss1 = 0;
  report(user_dx(u_call, (u32)pointer) == 10 && trap.error == 0, "call gate with a null SS1: #TS(0)");
  tss.ss1 = USER_DATA;
  report(user_dx(u_call, (u32)pointer) == 10 && trap.error == (USER_DATA & ~3), "call gate with an SS1 of CPL 3: #TS(selector)");
  descriptor(H, 0, 0xfffff, (WRITE & ~PRESENT) | 0x20 | BIG | GRANULAR);
  tss.ss1 = H | 1;
  report(user_dx(u_call, (u32)pointer) == 12 && trap.error == H, "call gate with an SS1 that is not present: #SS(selector)");
  tss.ss1 = 33 * 8 + 1;
  report(user_dx(u_call, (u32)pointer) == 10 && trap.error == 33 * 8, "call gate with an SS1 beyond the GDT: #TS(selector)");
  tss.ss1 = G | 1;
  report(user_dx(u_call, (u32)pointer) == 0x20 && seen[0] == (F | 1) && (seen[1] & 0xffff) == (G | 1), "call gate to CPL 1");
  tss.esp1 = (u32)inner + 16;
  descriptor(G, (u32)inner, 0xfff, WRITE | 0x20 | BIG);
  tss.esp1 = 20;
  report(user_dx(u_call, (u32)pointer) == 12 && trap.error == G, "call gate with too small a stack of CPL 1: #SS(selector), error %x", trap.error);
}
static volatile u32 words[2];
CODE_AT(i_16, "mov (%esp), %eax\n mov %eax, words\n mov 4(%esp), %eax\n mov %eax, words + 4\n ljmp $8, $recover")
static void gates16(void) {
  static u32 pointer[2] = { 0, E | 3 };
  /* g_16 has to lie below 64 KiB for a 16-bit gate: through a segment with its base there. */
  descriptor(F, (u32)g_16, 0xffff, CODE_READ | BIG);
  gdt[E >> 3] = gate(F, 0, CALL16 | DPL3, 2);
  descriptor(A, (u32)user_stack, 0xfff, WRITE | DPL3 | BIG);
  int v = user_dx(u_call, (u32)pointer);
  report(seen[0] == F && seen[5] == tss.esp0 - 12, "16-bit call gate: words on the stack");
  report((seen[2] & 0xffff) == ((u32)u_call + 17 & 0xffff) && seen[2] >> 16 == USER_CODE, "16-bit call gate: IP and CS are words: %x", seen[2]);
  report((seen[3] & 0xffff) == 0x4444 && seen[3] >> 16 == 0x4444, "16-bit call gate: parameters are words: %x", seen[3]);
  (void)v;
  descriptor(F, (u32)i_16, 0xffff, CODE_READ | BIG);
  idt[0x31] = gate(F, 0, INT16, 0);
  u32 after = 0;
  TRY("movl $1f, (%%edx)\n int $0x31\n 1:", &after);
  report(words[0] >> 16 == CODE && (words[1] & 0x8002) == 2 && (words[0] & 0xffff) == (after & 0xffff), "16-bit interrupt gate: IP, CS and FLAGS are words: %x %x", words[0], words[1]);
}
/* IF, TF, NT on the way through gates. */
static void count_handler(struct frame *f) { asm volatile("pushf\n pop %0" : "=r"(seen[6])); }
static void interrupts(void) {
  handlers[0x30] = count_handler;
  idt_set(0x30, CODE, (u32)stubs + 16 * 0x30, TRAP32);
  asm volatile("sti\n int $0x30\n cli");
  report(seen[6] & 0x200, "a trap gate keeps IF");
  idt_set(0x30, CODE, (u32)stubs + 16 * 0x30, INT32);
  asm volatile("sti\n int $0x30\n cli");
  report(!(seen[6] & 0x200), "an interrupt gate clears IF");
  idt_set(0x30, CODE, (u32)stubs + 16 * 0x30, INT32 & ~PRESENT);
  report(TRY("int $0x30", 0) == 11 && trap.error == 0x30 * 8 + 2, "a gate that is not present: #NP(vector * 8 + 2)");
  idt_set(0x30, CODE, 0, CALL32);
  report(TRY("int $0x30", 0) == 13 && trap.error == 0x30 * 8 + 2, "a call gate in the IDT: #GP(vector * 8 + 2)");
  idt_set(0x30, 0, 0, INT32);
  report(TRY("int $0x30", 0) == 13 && trap.error == 0, "an interrupt gate to a null selector: #GP(0)");
  idt_set(0x30, DATA, 0, INT32);
  report(TRY("int $0x30", 0) == 13 && trap.error == DATA, "an interrupt gate to data: #GP(selector)");
  idt_set(0x30, USER_CODE, 0, INT32);
  report(TRY("int $0x30", 0) == 13 && trap.error == (USER_CODE & ~3), "an interrupt gate to less privilege: #GP(selector)");
  descriptor(A, 0, 0xfff, CODE_READ | BIG);
  idt_set(0x30, A, 0x1000, INT32);
  report(TRY("int $0x30", 0) == 13 && trap.error == 0, "an interrupt gate beyond the limit of its segment: #GP(0)");
  struct { u16 limit; u32 base; } __attribute__((packed)) shorter = { 0x2f * 8 + 7, (u32)idt }, whole = { 2047, (u32)idt };
  asm volatile("lidt %0" ::"m"(shorter));
  report(TRY("int $0x30", 0) == 13 && trap.error == 0x30 * 8 + 2, "a vector beyond the IDT: #GP(vector * 8 + 2)");
  asm volatile("lidt %0" ::"m"(whole));
  report(TRY("mov $0x7fffffff, %%eax\n add $1, %%eax\n into", 0) == 4, "INTO with OF");
  report(TRY("xor %%eax, %%eax\n into", 0) == -1, "INTO without OF");
  static int bounds[2] = { -5, 10 };
  report(TRY("mov $10, %%eax\n bound %%eax, (%%edx)", bounds) == -1 && TRY("mov $-5, %%eax\n bound %%eax, (%%edx)", bounds) == -1, "BOUND inside");
  report(TRY("mov $11, %%eax\n bound %%eax, (%%edx)", bounds) == 5 && TRY("mov $-6, %%eax\n bound %%eax, (%%edx)", bounds) == 5, "BOUND outside: #BR");
  report(TRY("aam $0", 0) == 0, "AAM 0: #DE");
  report(TRY("pushf\n orl $0x4000, (%%esp)\n popf\n iret", 0) == 10 && trap.error == 0, "IRET with NT and no back link: #TS");
}
/* Data segments that CPL 3 may not use are null after a return. */
static void returns(void) {
  descriptor(A, BASE, 0xffff, WRITE | BIG);
  static u32 es, ds;
  struct context c = at3(u_end);
  c.es = A; c.fs = A; c.gs = USER_DATA;
  trap.vector = -1;
  enter(&c);
  report(trap.vector == 0x20 && trap.frame.es == 0 && trap.frame.ds == USER_DATA, "IRET outwards clears ES with DPL 0: %x %x", trap.frame.es, trap.frame.ds);
  c = at3(u_end); c.ss = DATA;
  enter(&c);
  report(trap.vector == 13 && trap.error == DATA, "IRET outwards with SS of CPL 0: #GP(selector)");
  c = at3(u_end); c.ss = 0;
  enter(&c);
  report(trap.vector == 13 && trap.error == 0, "IRET outwards with a null SS: #GP(0)");
  c = at3(u_end); c.cs = USER_CODE & ~3;
  enter(&c);
  report(trap.vector == 13 && trap.error == (USER_CODE & ~3), "IRET to code whose DPL is not RPL: #GP(selector)");
  (void)es; (void)ds;
}

u32 entered;
/* 16-bit code: operand and address sizes, IP and SP that wrap. */
asm(".text\n .code16\n c16_start:\n"
    "mov $0x12345678, %eax\n push %ax\n push %eax\n pop %ebx\n pop %cx\n"
    "mov $0xffff, %bx\n mov $2, %si\n mov %es:(%bx,%si), %dl\n" /* offset 1 */
    "mov %sp, %di\n call 1f\n 1: pop %bp\n sub %sp, %di\n"
    "mov $3, %ecx\n mov $0x10003, %ecx\n 2: loop 2b\n int $0x20\n c16_end:\n"
    "c16_wrap: .byte 0xeb, 0x7e\n c16_wrap_end:\n .code32\n");
extern u8 c16_start[], c16_end[], c16_wrap[], c16_wrap_end[];
static void sixteen(void) {
  u32 at = put_code(c16_start, c16_end);
  descriptor(A, 0, 0xffff, CODE_READ | DPL3);
  descriptor(B, BASE, 0xffff, WRITE | DPL3);
  bytes[1] = 0x5a;
  struct context c = { .eip = at, .cs = A | 3, .eflags = 2, .esp = 0xabcd1000, .ss = B | 3, .es = B | 3, .ds = B | 3 };
  trap.vector = -1;
  enter(&c);
  report(trap.vector == 0x20, "16-bit code at CPL 3 ends");
  report(trap.frame.ebx >> 16 == 0x1234, "operands of 32 bits by prefix: %x", trap.frame.ebx);
  report((trap.frame.ecx & 0xffff) == 0 && trap.frame.ecx >> 16 == 1, "LOOP counts CX: %x", trap.frame.ecx);
  report((trap.frame.edx & 0xff) == 0x5a, "16-bit addresses wrap at 64 KiB: %x", trap.frame.edx);
  report((trap.frame.edi & 0xffff) == 0, "CALL and POP are words");
  report((trap.frame.esp & 0xffff) == 0x1000, "a 16-bit stack: %x", trap.frame.esp);
  /* A jump over the end of the 64 KiB: IP wraps. */
  for (int i = 0; i < 2; i++) bytes[0xfff0 + i] = c16_wrap[i];
  bytes[0x70] = 0xcd; bytes[0x71] = 0x20;
  descriptor(A, BASE, 0xffff, CODE_READ | DPL3);
  c.eip = 0xfff0;
  trap.vector = -1;
  enter(&c);
  report(trap.vector == 0x20 && trap.eip == 0x72, "a 16-bit jump wraps at 64 KiB: %x", trap.eip);
  bytes[0xffff] = 0x90;
  c.eip = 0xffff;
  enter(&c);
  report(trap.vector == 13 && trap.error == 0, "16-bit code that runs over the end of its segment: #GP(0)");
  /* SP that wraps: a push at SP 0 goes to the end of the segment, and one at SP 1 across it. */
  bytes[0] = 0x50; bytes[1] = 0xcd; bytes[2] = 0x20;
  c.eip = 0; c.esp = 0; c.eax = 0x1234;
  trap.vector = -1;
  enter(&c);
  report(trap.vector == 0x20 && (trap.frame.esp & 0xffff) == 0xfffe && bytes[0xfffe] == 0x34, "a push at SP 0 goes to 0xfffe");
  c.esp = 1;
  enter(&c);
  report(trap.vector == 12 && trap.error == 0, "a push of a word at SP 1: #SS(0)");
  descriptor(B, BASE, 0xffff, WRITE);
  TRY("mov %%edx, %%ss\n mov $0xabcd1800, %%esp\n mov $0x12341900, %%ebp\n enter $5, $1\n mov %%ebp, %%ecx\n mov $0x10, %%eax\n mov %%eax, %%ss\n mov recover_sp, %%esp\n mov %%ecx, entered", B);
  report(entered == 0xabcd17fc && *(u32 *)(bytes + 0x17f8) == entered, "ENTER of 32 bits on a 16-bit stack: the frame pointer is all of ESP: %x", entered);
}
int main(void) {
  limits(); types(); queries(); far_transfers(); privilege(); gates(); gates16(); interrupts(); returns(); sixteen();
  return done();
}
