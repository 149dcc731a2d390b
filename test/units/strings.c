/* Repeated string instructions to devices: an interrupt that an iteration brings is taken before the next one, with the registers as they are
   then, and the instruction goes on afterwards (Intel SDM volume 1, 7.3.9.2; volume 2, REP). */
#include "units.h"

static volatile int taken; static u64 left[16], from[16], at[16], flags[16];
static void on_irq(struct frame *f) {
  if (taken < 16) { left[taken] = f->rcx; from[taken] = f->rip; at[taken] = f->rsi; flags[taken] = f->rflags; }
  taken++;
  apic_write(0xb0, 0);
}
static int breakpoints;
static void on_breakpoint(struct frame *f) { breakpoints++; f->rflags |= 0x10000; WRDR(6, 0xffff0ff0); }
static void redirect(int n, u32 low) {
  volatile u32 *io = (u32 *)0xfec00000;
  io[0] = 0x11 + 2 * n; io[4] = 0; io[0] = 0x10 + 2 * n; io[4] = low;
}
#define LABEL(x) ({ extern u8 x[]; (u64)x; })
/* Runs a string instruction at label `name` with its registers; what is left of the count and the pointers come back. */
#define STRING(name, code, count, source, target, value)                                                                          \
  ({ taken = 0; rest = (count); si = (u64)(source); di = (u64)(target); u64 ax_ = (value);                                       \
     asm volatile(".globl " #name "\n " #name ": " code "\n .globl " #name "_end\n " #name "_end: nop\n nop"                      \
                  : "+c"(rest), "+S"(si), "+D"(di), "+a"(ax_) : "d"(0x2000 + 14) : "memory", "cc"); })
static u64 rest, si, di;
static u8 lines[64]; static u32 words[64];

int main(void) {
  handlers[0x77] = handlers[0xf1] = on_irq;
  redirect(14, 0x77);
  outb(0x2000 + 14, 0);
  sti();
  for (int i = 0; i < 64; i++) lines[i] = i & 1;

  STRING(outs, "rep outsb", 8, lines, 0, 0);
  put("VALUE REP OUTSB, interrupts: %d\n", taken);
  report(taken == 4 && left[0] == 6 && left[1] == 4 && left[2] == 2, "REP OUTSB: an interrupt after each element that brings one (%d; %d, %d, %d left)", taken, (int)left[0], (int)left[1], (int)left[2]);
  report(from[0] == LABEL(outs) && from[2] == LABEL(outs) && at[0] == (u64)lines + 2, "it returns to the instruction, with its pointer");
  report(flags[0] >> 16 & flags[1] >> 16 & flags[2] >> 16 & 1, "RF is set in the saved flags (%x, %x, %x)", flags[0], flags[1], flags[2]);
  report(!(flags[3] >> 16 & 1), "but not behind the last (%x)", flags[3]);
  report(from[3] == LABEL(outs_end) && left[3] == 0, "that of the last element comes behind it (%x)", from[3] - LABEL(outs));
  report(rest == 0 && si == (u64)lines + 8, "the instruction has done all of them");
  outb(0x2000 + 14, 0);
  STRING(single, "outsb", 5, lines + 1, 0, 0);
  report(taken == 1 && from[0] == LABEL(single_end) && rest == 5, "OUTSB: before the next instruction (%x)", from[0] - LABEL(single));
  outb(0x2000 + 14, 0);
  STRING(backwards, "std\n rep outsb\n cld", 4, lines + 3, 0, 0);
  report(taken >= 2 && left[0] == 3 && rest == 0 && si == (u64)lines - 1, "backwards (%d; %d left)", taken, (int)left[0]);
  outb(0x2000 + 14, 0);

  /* Stores to the local APIC: IPIs to itself, and to all others, of which there are none. */
  words[0] = 0x440f1; words[1] = words[2] = words[3] = 0xc40f1;
  STRING(movs, "rep movsl", 3, words, 0xfee00300, 0);
  put("VALUE REP MOVSD, interrupts: %d\n", taken);
  report(taken == 1 && left[0] == 2 && from[0] == LABEL(movs) && at[0] == (u64)(words + 1), "REP MOVSD: between the first two elements (%d; %d left)", taken, (int)left[0]);
  report(flags[0] >> 16 & 1, "with RF in the saved flags (%x)", flags[0]);
  report(rest == 0 && si == (u64)(words + 3) && di == 0xfee0030c, "and goes on");
  STRING(stos, "rep stosl", 2, 0, 0xfee00300, 0x440f1);
  report(taken >= 1 && left[0] == 1 && from[0] == LABEL(stos), "REP STOSD: between the first two elements (%d; %d left)", taken, (int)left[0]);
  STRING(last, "rep stosl", 1, 0, 0xfee00300, 0x440f1);
  report(!(flags[0] >> 16 & 1), "a single element leaves RF clear (%x)", flags[0]);
  report(taken == 1 && left[0] == 0 && from[0] == LABEL(last_end), "REP STOSD: that of the last element comes behind it (%x)", from[0] - LABEL(last));
  STRING(down, "std\n rep stosl\n cld", 2, 0, 0xfee00300, 0x440f1);
  report(taken >= 1 && left[0] == 1 && di == 0xfee002f8, "backwards (%d; %d left)", taken, (int)left[0]);

  STRING(store, "mov %%eax, (%%rdi)", 0, 0, 0xfee00300, 0x440f1);
  report(taken == 1 && from[0] == LABEL(store_end), "MOV to a device: before the next instruction (%x)", from[0] - LABEL(store));
  STRING(swap, "nop\n xchg %%eax, (%%rdi)", 0, 0, 0xfee00300, 0x440f1);
  report(taken == 1 && from[0] == LABEL(swap_end), "XCHG with a device: before the next instruction (%x)", from[0] - LABEL(swap));
  STRING(after, "sti\n mov %%eax, (%%rdi)", 0, 0, 0xfee00300, 0x440f1);
  report(taken == 1 && from[0] == LABEL(after_end), "the same in the shadow of STI: before the next instruction (%x)", from[0] - LABEL(after));

  /* An instruction breakpoint on it strikes once, before the first iteration. */
  handlers[1] = on_breakpoint;
  WRDR(0, LABEL(watched)); WRDR(7, RDDR(7) | 1);
  STRING(watched, "rep stosl", 2, 0, 0xfee00300, 0x440f1);
  WRDR(7, 0x400);
  report(breakpoints == 1 && taken >= 1 && left[0] == 1 && rest == 0, "an instruction breakpoint strikes once, also where it is interrupted (%d, %d)", breakpoints, taken);
  outb(0x2000 + 14, 0);

  /* With interrupts off it waits for the end. */
  cli();
  STRING(off, "rep outsb\n sti", 8, lines, 0, 0);
  report(taken == 1 && left[0] == 0 && from[0] != LABEL(off), "with IF clear it waits (%d)", taken);
  outb(0x2000 + 14, 0);
  cli();
  STRING(waits, "rep movsl\n sti", 3, words, 0xfee00300, 0);
  report(taken == 1 && left[0] == 0 && from[0] != LABEL(waits), "to memory as well (%d)", taken);
  redirect(14, 0x10000);
  return done();
}
