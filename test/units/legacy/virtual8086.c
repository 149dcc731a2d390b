/* Real mode and virtual-8086 mode with and without VME; virtual interrupts at CPL 3 (Intel SDM volume 3, chapter 20). */
#include "units.h"

#define VM 0x20000
#define VIF 0x80000
#define VIP 0x100000
#define IF 0x200
enum { IOPL3 = 0x3000 };
/* 16-bit code between two labels. */
#define CODE16_AT(name, text) asm(".text\n .code16\n .globl " #name ", " #name "_end\n" #name ":\n" text "\n " #name "_end:\n .code32\n"); extern u8 name[], name##_end[];
#define PUT(name) put_code(name, name##_end)

CODE16_AT(r_add, "mov $0x12345678, %eax\n add $1, %eax\n ret")
CODE16_AT(r_far, "mov $0xffff, %bx\n mov (%bx), %ax\n ret")
CODE16_AT(r_byte, "mov $0xffff, %bx\n mov (%bx), %al\n ret")
CODE16_AT(r_high, "mov $0x10000, %ebx\n movb (%ebx), %al\n ret")
CODE16_AT(r_div, "xor %cx, %cx\n div %cx\n ret")
CODE16_AT(r_ud, "ud2")
CODE16_AT(r_arpl, "arpl %ax, %ax\n ret")
CODE16_AT(r_lldt, "lldt %ax\n ret")
CODE16_AT(r_str, "str %ax\n ret")
CODE16_AT(r_bound, "mov $5, %ax\n push $1\n push $2\n mov %sp, %bp\n bound %ax, (%bp)\n ret")
CODE16_AT(r_into, "mov $0x7fff, %ax\n add $1, %ax\n into\n ret")
CODE16_AT(r_int, "int $0x20\n ret")
CODE16_AT(r_wrap, "mov $0, %sp\n push %ax\n mov %sp, %ax\n movzwl %ax, %eax\n mov $0x5fee, %sp\n ret")
CODE16_AT(r_iret, "pushw $0x3ed7\n push %cs\n call 1f\n 1: pop %ax\n add $7, %ax\n push %ax\n iret\n nop\n pushf\n pop %ax\n movzwl %ax, %eax\n pushw $2\n popf\n ret")
CODE16_AT(r_seg, "mov $0x700, %ax\n mov %ax, %es\n movl %es:0, %eax\n ret")
CODE16_AT(r_smsw, "smsw %eax\n ret")
CODE16_AT(r_ss_bp, "mov $0xffff, %bp\n mov (%bp), %ax\n ret")
CODE16_AT(r_jump, "mov $0x10000, %eax\n jmp *%eax\n ret")
CODE16_AT(r_lock, ".byte 0xf0\n mov %ax, (%bx)\n ret")
CODE16_AT(r_sti, "sti\n pushf\n pop %ax\n cli\n movzwl %ax, %eax\n ret")
CODE16_AT(r_pushf, "pushw $0x7002\n popf\n pushf\n pop %ax\n movzwl %ax, %eax\n ret")
CODE16_AT(r_idt, "push %cs\n pop %ds\n call 1f\n 1: pop %bx\n lidt 2f-1b(%bx)\n int $0x30\n ret\n 2: .word 0x7f\n .long 0")
CODE16_AT(r_unreal, "cli\n mov %cr0, %eax\n or $1, %al\n mov %eax, %cr0\n mov $0x10, %bx\n mov %bx, %es\n and $0xfe, %al\n mov %eax, %cr0\n xor %ax, %ax\n mov %ax, %es\n"
          "mov $0x400000, %ebx\n movl %es:(%ebx), %eax\n ret")
static void real_mode(void) {
  report(real(PUT(r_add)) == -1 && real_eax == 0x12345679, "real mode: 32-bit operands by prefix");
  report(real(PUT(r_byte)) == -1, "real mode: the byte at 0xffff");
  report(real(PUT(r_far)) == 13 && (real_ip & 0xffff) == 0x7003, "real mode: a word at 0xffff: interrupt 13");
  report(real(PUT(r_high)) == 13, "real mode: offset 0x10000: interrupt 13");
  report(real(PUT(r_ss_bp)) == 12, "real mode: a word at SS:0xffff: interrupt 12");
  report(real(PUT(r_wrap)) == -1 && real_eax == 0xfffe, "real mode: a push at SP 0");
  report(real(PUT(r_div)) == 0 && (real_ip & 0xffff) == 0x7002, "real mode: division by zero: interrupt 0 at the instruction");
  report(real(PUT(r_ud)) == 6, "real mode: UD2: interrupt 6");
  report(real(PUT(r_arpl)) == 6 && real(PUT(r_lldt)) == 6 && real(PUT(r_str)) == 6, "real mode: ARPL, LLDT and STR: interrupt 6");
  report(real(PUT(r_bound)) == 5, "real mode: BOUND: interrupt 5");
  report(real(PUT(r_into)) == 4, "real mode: INTO: interrupt 4");
  report(real(PUT(r_int)) == 0x20 && (real_ip & 0xffff) == 0x7002, "real mode: INT saves the address behind it");
  report(real(PUT(r_lock)) == 6, "real mode: LOCK MOV: interrupt 6");
  report(real(PUT(r_jump)) == 13, "real mode: a jump to 0x10000: interrupt 13");
  report(real(PUT(r_seg)) == -1 && real_eax == *(volatile u32 *)0x7000, "real mode: segment times 16");
  report(real(PUT(r_smsw)) == -1 && !(real_eax & 1), "real mode: SMSW shows PE clear");
  report(real(PUT(r_iret)) == -1 && (real_eax & 0x3cd5) == 0x3cd5, "real mode: IRET loads IOPL, DF, IF: %x", real_eax);
  report(real(PUT(r_sti)) == -1 && (real_eax & IF), "real mode: STI");
  report(real(PUT(r_pushf)) == -1 && (real_eax & 0xf000) == 0x7000, "real mode: POPF loads IOPL and NT: %x", real_eax);
  report(real(PUT(r_idt)) == 13, "real mode: a vector beyond the limit of IDTR: interrupt 13");
  report(real(PUT(r_unreal)) == -1 && real_eax == *(volatile u32 *)0x400000, "real mode keeps the limit of a segment loaded in protected mode");
}

CODE16_AT(v_end, "hlt")
CODE16_AT(v_cli, "cli\n hlt")
CODE16_AT(v_sti, "sti\n hlt")
CODE16_AT(v_pushf, "pushf\n pop %ax\n hlt")
CODE16_AT(v_pushfl, "pushfl\n popl %eax\n hlt")
CODE16_AT(v_popf, "pushw $0x202\n popf\n hlt")
CODE16_AT(v_popf_tf, "pushw $0x102\n popf\n hlt")
CODE16_AT(v_popfl, "pushl $0x202\n popfl\n hlt")
CODE16_AT(v_int, "int $0x33\n hlt")
CODE16_AT(v_int3, "int3\n hlt")
CODE16_AT(v_iret, "pushw $0x3202\n push %cs\n call 1f\n 1: pop %ax\n add $7, %ax\n push %ax\n iret\n nop\n hlt")
CODE16_AT(v_in, "in %dx, %al\n hlt")
CODE16_AT(v_word, "mov $0xffff, %bx\n mov (%bx), %ax\n hlt")
CODE16_AT(v_stack, "mov $1, %sp\n push %ax\n hlt")
CODE16_AT(v_system, "lmsw %ax\n hlt")
CODE16_AT(v_arpl, "arpl %ax, %ax\n hlt")
CODE16_AT(v_segs, "mov $0x1234, %ax\n mov %ax, %ds\n mov %ax, %es\n mov %ax, %fs\n mov %ax, %gs\n hlt")
CODE16_AT(v_cr, "mov %cr0, %eax\n hlt")
CODE16_AT(v_ud, "ud2")
CODE16_AT(v_far, "ljmp $0x600, $0x1000 + 5\n nop\n hlt")
static int v86(u32 at, u32 flags) {
  struct context c = { .eip = at, .eflags = VM | 2 | flags, .esp = 0x5f00, .edx = 0x80, .ds = 0x100, .es = 0x200, .fs = 0x300, .gs = 0x400 };
  trap.vector = -1;
  enter(&c);
  return trap.vector;
}
/* Where it ended: at HLT, which is #GP(0). */
static int halted(u32 at) { return trap.vector == 13 && trap.error == 0 && trap.frame.eip == at && (trap.eflags & VM); }
static u32 end(u8 *from, u8 *to) { return 0x7000 + (to - from) - 1; }
#define AT_END(name) halted(end(name, name##_end))
#define AT_START() (trap.vector == 13 && trap.error == 0 && trap.frame.eip == 0x7000)
static void plain(const char *how) {
  v86(PUT(v_end), 0);
  report(AT_END(v_end) && trap.frame.ves == 0x200 && trap.frame.vds == 0x100 && trap.frame.vfs == 0x300 && trap.frame.vgs == 0x400 && trap.frame.ss == 0 && trap.frame.esp == 0x5f00, "%s: HLT: #GP(0), with the segments on the stack", how);
  report(trap.frame.ds == 0 && trap.frame.es == 0, "%s: the handler starts with null segments", how);
  v86(PUT(v_segs), 0);
  report(AT_END(v_segs) && trap.frame.vds == 0x1234 && trap.frame.vgs == 0x1234, "%s: segment registers take any value", how);
  v86(PUT(v_word), 0);
  report(trap.vector == 13 && trap.error == 0 && trap.frame.eip == 0x7003, "%s: a word at 0xffff: #GP(0)", how);
  v86(PUT(v_stack), 0);
  report(trap.vector == 12 && trap.error == 0, "%s: a push at SP 1: #SS(0)", how);
  v86(PUT(v_system), IOPL3);
  report(AT_START(), "%s: LMSW: #GP(0)", how);
  v86(PUT(v_cr), IOPL3);
  report(AT_START(), "%s: MOV from CR0: #GP(0)", how);
  v86(PUT(v_arpl), 0);
  report(trap.vector == 6, "%s: ARPL: #UD", how);
  v86(PUT(v_ud), 0);
  report(trap.vector == 6 && trap.error == -1u, "%s: UD2: #UD", how);
  v86(PUT(v_far), 0);
  report(trap.vector == 13 && trap.frame.cs == 0x600 && trap.frame.eip == 0x1006, "%s: a far jump: segment times 16: %x:%x", how, trap.frame.cs, trap.frame.eip);
  v86(PUT(v_in), IOPL3);
  report(AT_START(), "%s: IN of a port that the map refuses: #GP(0), whatever IOPL", how);
  tss.ports[0x80 / 8] = 0xfe;
  v86(PUT(v_in), 0);
  report(AT_END(v_in), "%s: IN of a port that the map allows", how);
  tss.ports[0x80 / 8] = 0xff;
  /* IOPL 3 */
  v86(PUT(v_cli), IOPL3 | IF);
  report(AT_END(v_cli) && !(trap.eflags & IF), "%s, IOPL 3: CLI clears IF", how);
  v86(PUT(v_sti), IOPL3);
  report(AT_END(v_sti) && (trap.eflags & IF), "%s, IOPL 3: STI sets IF", how);
  v86(PUT(v_popf), IOPL3);
  report(AT_END(v_popf) && (trap.eflags & (IF | IOPL3)) == (IF | IOPL3), "%s, IOPL 3: POPF sets IF and keeps IOPL", how);
  v86(PUT(v_iret), IOPL3);
  report(AT_END(v_iret) && (trap.eflags & IF), "%s, IOPL 3: IRET", how);
  v86(PUT(v_int3), 0);
  report(trap.vector == 3 && (trap.eflags & VM), "%s: INT3 leaves virtual-8086 mode, whatever IOPL", how);
  v86(PUT(v_popfl), 0);
  report(trap.vector == 13 && trap.frame.eip == 0x7006, "%s, IOPL 0: POPFD: #GP(0)", how);
  v86(PUT(v_pushfl), 0);
  report(AT_START(), "%s, IOPL 0: PUSHFD: #GP(0)", how);
}
static void without_vme(void) {
  plain("virtual-8086 mode");
  idt_set(0x33, CODE, (u32)stubs + 16 * 0x33, INT32 | DPL3);
  v86(PUT(v_int), IOPL3);
  report(trap.vector == 0x33 && (trap.eflags & VM) && trap.frame.eip == 0x7002, "INT with IOPL 3 goes to the IDT");
  v86(PUT(v_int), 0);
  report(AT_START(), "INT with IOPL 0: #GP(0)");
  v86(PUT(v_cli), 0); report(AT_START(), "CLI with IOPL 0: #GP(0)");
  v86(PUT(v_sti), 0); report(AT_START(), "STI with IOPL 0: #GP(0)");
  v86(PUT(v_pushf), 0); report(AT_START(), "PUSHF with IOPL 0: #GP(0)");
  v86(PUT(v_popf), 0); report(trap.vector == 13 && trap.frame.eip == 0x7003, "POPF with IOPL 0: #GP(0)");
  v86(PUT(v_iret), 0); report(trap.vector == 13, "IRET with IOPL 0: #GP(0)");
  idt_set(0x33, USER_CODE, (u32)stubs + 16 * 0x33, INT32 | DPL3);
  v86(PUT(v_int), IOPL3);
  report(trap.vector == 13 && trap.error == (USER_CODE & ~3), "a handler of CPL 3 for virtual-8086 mode: #GP(selector)");
  descriptor(A, 0, 0xfffff, CONFORMING | BIG | 0x8000);
  idt_set(0x33, A, (u32)stubs + 16 * 0x33, INT32 | DPL3);
  v86(PUT(v_int), IOPL3);
  report(trap.vector == 13 && trap.error == A, "a conforming handler for virtual-8086 mode: #GP(selector)");
  idt_set(0x33, CODE, (u32)stubs + 16 * 0x33, INT32);
  v86(PUT(v_int), IOPL3);
  report(trap.vector == 13 && trap.error == 0x33 * 8 + 2, "INT of a gate with DPL 0: #GP(vector * 8 + 2)");
  idt_set(0x33, CODE, (u32)stubs + 16 * 0x33, INT32 | DPL3);
}
static void with_vme(void) {
  WRCR(4, RDCR(4) | 1);
  plain("VME");
  v86(PUT(v_cli), VIF | IF); report(AT_END(v_cli) && !(trap.eflags & VIF) && (trap.eflags & IF), "VME: CLI clears VIF, not IF");
  v86(PUT(v_sti), 0); report(AT_END(v_sti) && (trap.eflags & VIF) && !(trap.eflags & IF), "VME: STI sets VIF, not IF");
  v86(PUT(v_sti), VIP); report(AT_START(), "VME: STI with VIP: #GP(0)");
  v86(PUT(v_pushf), VIF); report(AT_END(v_pushf) && (trap.frame.eax & 0x3200) == 0x3200, "VME: PUSHF shows VIF as IF, and IOPL 3: %x", trap.frame.eax);
  v86(PUT(v_pushf), IF); report(AT_END(v_pushf) && (trap.frame.eax & 0x3200) == 0x3000, "VME: PUSHF without VIF: %x", trap.frame.eax);
  v86(PUT(v_popf), 0); report(AT_END(v_popf) && (trap.eflags & VIF) && !(trap.eflags & (IF | IOPL3)), "VME: POPF sets VIF");
  v86(PUT(v_popf), VIP); report(trap.vector == 13 && trap.frame.eip == 0x7003, "VME: POPF of IF with VIP: #GP(0)");
  v86(PUT(v_popf_tf), 0); report(trap.vector == 13 && trap.frame.eip == 0x7003, "VME: POPF of TF: #GP(0)");
  v86(PUT(v_iret), 0); report(AT_END(v_iret) && (trap.eflags & VIF) && !(trap.eflags & (IF | IOPL3)), "VME: IRET sets VIF");
  v86(PUT(v_iret), VIP); report(trap.vector == 13, "VME: IRET with IF and VIP: #GP(0)");
  /* The redirection map: a clear bit leads to the vectors at 0. */
  volatile u32 *vector = (volatile u32 *)(0x33 * 4);
  for (int i = 0; i < 1; i++) ((volatile u8 *)0x7800)[i] = 0xf4;
  *vector = 0x7800;
  tss.redirection[0x33 / 8] = 0;
  v86(PUT(v_int), VIF);
  report(halted(0x7800) && !(trap.eflags & VIF) && trap.frame.esp == 0x5f00 - 6, "VME: INT by the redirection map at IOPL 0 clears VIF");
  volatile u16 *frame = (volatile u16 *)(0x5f00 - 6);
  report(frame[0] == 0x7002 && frame[1] == 0 && (frame[2] & 0x3200) == 0x3200, "VME: its frame has VIF as IF, and IOPL 3: %x", frame[2]);
  v86(PUT(v_int), IOPL3 | IF);
  report(halted(0x7800) && !(trap.eflags & IF) && (frame[2] & 0x3200) == 0x3200, "VME: INT by the redirection map at IOPL 3 clears IF");
  tss.redirection[0x33 / 8] = 0xff;
  v86(PUT(v_int), 0); report(AT_START(), "VME: INT that the map does not redirect, IOPL 0: #GP(0)");
  v86(PUT(v_int), IOPL3); report(trap.vector == 0x33, "VME: INT that the map does not redirect, IOPL 3: by the IDT");
  WRCR(4, RDCR(4) & ~1);
}
#define CODE_AT(name, text) asm(".text\n .globl " #name "\n" #name ":\n" text); void name(void);
CODE_AT(p_cli, "cli\n hlt")
CODE_AT(p_sti, "sti\n hlt")
CODE_AT(p_pushf, "pushf\n pop %eax\n hlt")
static u8 stack[1024] __attribute__((aligned(16)));
static int at3(void (*f)(void), u32 flags) {
  struct context c = { .eip = (u32)f, .cs = USER_CODE, .eflags = 2 | flags, .esp = (u32)stack + 1000, .ss = USER_DATA, .ds = USER_DATA, .es = USER_DATA };
  trap.vector = -1;
  enter(&c);
  return trap.vector == 13 && trap.frame.eip == (u32)f ? 13 : 0;
}
static void pvi(void) {
  report(at3(p_cli, 0) == 13, "CPL 3 without PVI: CLI: #GP(0)");
  WRCR(4, RDCR(4) | 2);
  report(at3(p_cli, VIF | IF) == 0 && !(trap.eflags & VIF) && (trap.eflags & IF), "PVI: CLI clears VIF");
  report(at3(p_sti, IF) == 0 && (trap.eflags & VIF), "PVI: STI sets VIF");
  report(at3(p_sti, IF | VIP) == 13, "PVI: STI with VIP: #GP(0)");
  report(at3(p_pushf, IF | VIF) == 0 && (trap.frame.eax & 0x3000) == 0, "PVI does not change PUSHF");
  WRCR(4, RDCR(4) & ~2);
}
int main(void) {
  real_mode(); without_vme(); with_vme(); pvi();
  return done();
}
