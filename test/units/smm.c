/* System management mode: SMIs by the APM port and the local APIC, the save area, RSM, SMBASE, SMRAM and TSEG (Intel SDM volume 3, chapter 32;
   AMD APM volume 2, 10.2 and 10.3; 3 Series Express Chipset datasheet 316966, 5.1.22). Two vCPUs. On a board that SeaBIOS has started, SMBASE
   is 0xA0000 already. */
#include "units.h"

static u32 pci_read(u32 fn, u32 at) { outl(0xcf8, 0x80000000u | fn << 8 | (at & 0xfc)); u32 v; asm volatile("inl %1, %0" : "=a"(v) : "Nd"((u16)0xcfc)); return v >> 8 * (at & 3); }
static void pci_write8(u32 fn, u32 at, u8 v) { outl(0xcf8, 0x80000000u | fn << 8 | (at & 0xfc)); outb(0xcfc + (at & 3), v); }
#define LPC 0xf8

/* The handler's variables; it is 16-bit code with flat data. */
u32 smis, seen_cr0, seen_flags, seen_efer, seen_cs, seen_nmis, seen_eax, new_base, tseg_base, probe, probed, self_nmi, set_rbx, no_halt, area[128];
volatile u32 nmis;
asm(".section .rodata\n .code16\n .globl smi_entry, smi_end\n"
    "smi_entry:\n"
    "  movl $0x7000, %esp\n pushfl\n popl %eax\n addr32 movl %eax, seen_flags\n"
    "  addr32 incl smis\n mov %cr0, %eax\n addr32 movl %eax, seen_cr0\n"
    "  movl $0xc0000080, %ecx\n rdmsr\n addr32 movl %eax, seen_efer\n"
    "  xorl %ebp, %ebp\n movw %cs, %bp\n addr32 movl %ebp, seen_cs\n shll $4, %ebp\n"
    "  addr32 movl tseg_base, %eax\n testl %eax, %eax\n jz 1f\n movl %eax, %ebp\n1:\n"
    "  leal 0xfe00(%ebp), %esi\n movl $area, %edi\n movl $128, %ecx\n2: addr32 movl (%esi), %eax\n addr32 movl %eax, (%edi)\n addl $4, %esi\n addl $4, %edi\n decl %ecx\n jnz 2b\n"
    "  addr32 movl new_base, %eax\n testl %eax, %eax\n jz 3f\n addr32 movl %eax, 0xff00(%ebp)\n3:\n"
    "  addr32 movl set_rbx, %eax\n testl %eax, %eax\n jz 4f\n addr32 movl %eax, 0xffe0(%ebp)\n4:\n"
    "  addr32 movl no_halt, %eax\n testl %eax, %eax\n jz 5f\n addr32 movb $0, 0xfec9(%ebp)\n5:\n"
    "  addr32 movl probe, %eax\n testl %eax, %eax\n jz 6f\n addr32 movl (%eax), %ebx\n addr32 movl %ebx, probed\n6:\n"
    "  addr32 movl self_nmi, %eax\n testl %eax, %eax\n jz 7f\n movl $0xfee00000, %ebx\n addr32 movl $0, 0x310(%ebx)\n addr32 movl $0x4400, 0x300(%ebx)\n nop\n nop\n addr32 movl nmis, %eax\n addr32 movl %eax, seen_nmis\n7:\n"
    "  rsm\n"
    "smi_end:\n .code64\n .text\n");
extern u8 smi_entry[], smi_end[];
static void place(u32 base) { u8 *to = (u8 *)(u64)(base + 0x8000); for (u8 *s = smi_entry; s < smi_end;) *to++ = *s++; }
static int placed(u32 base) { u8 *at = (u8 *)(u64)(base + 0x8000); for (u8 *s = smi_entry; s < smi_end;) if (*at++ != *s++) return 0; return 1; }

static u64 saved(u32 at) { return *(u64 *)((u8 *)area + (at - 0x7e00)); }
static u32 saved32(u32 at) { return saved(at); }
static int q35; static u32 smram_at;
static void smram(u8 v) { pci_write8(0, smram_at, v); }
/* What an instruction before has set off is there by now. */
static __attribute__((noinline)) void settle(void) { asm volatile("jmp 1f\n 1: jmp 2f\n 2:" ::: "memory"); }
static void smi(void) { asm volatile("outb %0, $0xb2" ::"a"((u8)0x55) : "memory"); settle(); }
static void on_nmi(struct frame *f) { nmis++; }
static volatile int awake;
static void halt(void *unused) { asm volatile("cli; hlt"); awake++; }

int main(void) {
  report(TRY("rsm", 0) == 6, "RSM outside of the mode: #UD");
  q35 = (u16)(pci_read(0, 0) >> 16) == 0x29c0;
  smram_at = q35 ? 0x9d : 0x72;
  u16 pm = 0x600;
  if (q35) {
    pm = pci_read(LPC, 0x40) & 0xff80;
    if (!pm) { outl(0xcf8, 0x80000000u | LPC << 8 | 0x40); outl(0xcfc, 0x601); pci_write8(LPC, 0x44, 0x80); pm = 0x600; }
    u32 v; asm volatile("inl %1, %0" : "=a"(v) : "Nd"((u16)(pm + 0x30)));
    outl(pm + 0x30, v | 0x21);
  } else pci_write8(0x0b, 0x5b, (u8)pci_read(0x0b, 0x5b) | 2);
  smram(0x4a);
  place(0x30000); place(0xa0000);
  report(placed(0xa0000), "SMRAM is RAM while it is open");
  smram(0x0a);
  report(!placed(0xa0000), "and hidden while it is closed");

  u64 cr0 = RDCR(0), cr3 = RDCR(3), cr4 = RDCR(4), efer = rdmsr(0xc0000080), rbx = 0x1122334455667788, rip, rsp;
  struct { u16 limit; u64 base; } __attribute__((packed)) table; asm volatile("sgdt %0" : "=m"(table));
  asm volatile("mov %%rsp, %1\n lea 1f(%%rip), %0\n mov $0x55, %%al\n outb %%al, $0xb2\n 1: jmp 2f\n 2:" : "=&r"(rip), "=&r"(rsp), "+b"(rbx)::"rax", "memory"); settle();
  report(smis == 1, "a command of the APM port interrupts (%d)", smis);
  if (!smis) return done();
  report(inb(0xb2) == 0x55, "the command can be read");
  report(!(seen_cr0 & 0x8000000d) && (seen_cr0 & ~0x8000000d) == (cr0 & ~0x8000000d), "CR0 in the mode: no PE, EM, TS, PG (%x)", seen_cr0);
  report(seen_flags == 2 && seen_efer == 0, "RFLAGS 2 and EFER 0 (%x, %x)", seen_flags, seen_efer);
  u32 base = saved32(0x7f00);
  report((base == 0x30000 || base == 0xa0000) && seen_cs == base >> 4, "CS is SMBASE >> 4 (%x, %x)", base, seen_cs);
  report(saved32(0x7efc) == 0x20064, "revision (%x)", saved32(0x7efc));
  report(saved(0x7f78) == rip, "RIP saved: behind OUT (%x, %x)", saved(0x7f78), rip);
  report(saved(0x7fd8) == rsp && saved(0x7fe0) == rbx && (u8)saved(0x7ff8) == 0x55, "RSP, RBX, RAX saved");
  report(saved32(0x7f58) == cr0 && saved(0x7f50) == cr3 && saved32(0x7f48) == cr4 && saved(0x7ed0) == efer, "control registers saved");
  report(saved(0x7e68) == table.base && saved32(0x7e64) == table.limit, "GDTR saved");
  report((u16)saved(0x7e10) == 8 && (saved(0x7e10) >> 16 & 0x20ff) == 0x209b, "CS saved (%x)", saved(0x7e10));
  report((u16)saved(0x7e90) == 0x40 && saved(0x7e98) == (u64)tss, "TR saved");
  report(RDCR(0) == cr0 && RDCR(3) == cr3 && RDCR(4) == cr4 && rdmsr(0xc0000080) == efer, "RSM puts the control registers back");
  report(rbx == 0x1122334455667788, "and the general ones");
  set_rbx = 0x1234; asm volatile("mov $0x55, %%al\n outb %%al, $0xb2\n jmp 1f\n 1:" : "+b"(rbx)::"rax", "memory"); set_rbx = 0;
  report((u32)rbx == 0x1234, "a register that the handler changes (%x)", rbx);

  u64 flags; asm volatile("pushfq\n orl $0xcd5, (%%rsp)\n popfq\n mov $0x55, %%al\n outb %%al, $0xb2\n jmp 1f\n 1: pushfq\n pop %0\n cld" : "=r"(flags)::"rax", "memory");
  report((flags & 0xcd5) == 0xcd5, "flags come back (%x)", flags);
  wrmsr(0xc0000101, 0xffff800000001000); smi();
  report(rdmsr(0xc0000101) == 0xffff800000001000, "so does the base of GS");
  smis = 0; apic_write(0x310, 0); apic_write(0x300, 0x4200); settle();
  report(smis == 1, "the local APIC's delivery mode SMI (%d)", smis);

  new_base = base == 0x30000 ? 0xa0000 : 0x30000; smi(); u32 next = new_base; new_base = 0; smi();
  report(seen_cs == next >> 4 && saved32(0x7f00) == next, "SMBASE moves (%x)", seen_cs);
  new_base = 0xa0000; smi(); new_base = 0; smi();
  report(seen_cs == 0xa000, "to SMRAM, which is closed (%x)", seen_cs);
  probe = 0xa8000; probed = 0; smi(); probe = 0;
  report(probed == *(u32 *)smi_entry, "and shows in the mode (%x)", probed);
  smis = 0; for (int i = 0; i < 2000; i++) smi();
  report(smis == 2000, "2,000 more (%d)", smis);

  handlers[2] = on_nmi; nmis = 0; seen_nmis = 9; self_nmi = 1; smi(); self_nmi = 0; settle();
  report(seen_nmis == 0 && nmis == 1, "an NMI waits for RSM (%d, %d)", seen_nmis, nmis);

  if (start_cpus() == 2) {
    smis = 0; no_halt = 1; on_cpu(1, halt, 0);
    for (u64 end = rdtsc() + 100000000; rdtsc() < end;) pause_();
    report(!awake, "the other vCPU halts");
    apic_write(0x310, 1 << 24); apic_write(0x300, 0x4200);
    for (u64 end = rdtsc() + 20000000000ul; !awake && rdtsc() < end;) pause_();
    report(awake == 1 && smis == 1, "an SMI ends HLT where the handler clears auto-halt restart (%d, %d)", awake, smis);
    on_cpu_wait(1); no_halt = 0; on_cpu(1, halt, 0);
    for (u64 end = rdtsc() + 100000000; rdtsc() < end;) pause_();
    apic_write(0x310, 1 << 24); apic_write(0x300, 0x4200);
    for (u64 end = rdtsc() + 20000000000ul; smis < 2 && rdtsc() < end;) pause_();
    for (u64 end = rdtsc() + 100000000; rdtsc() < end;) pause_();
    report(smis == 2 && awake == 1, "and it halts again where it does not (%d, %d)", awake, smis);
    apic_write(0x310, 1 << 24); apic_write(0x300, 0x4400);
    for (u64 end = rdtsc() + 20000000000ul; awake < 2 && rdtsc() < end;) pause_();
    report(awake == 2, "until an NMI comes");
  } else skip("no other vCPU");

  if (q35) {
    asm volatile("outw %0, %1" ::"a"((u16)3), "Nd"((u16)0x510));
    u64 size = 0; for (int i = 0; i < 8; i++) size |= (u64)inb(0x511) << 8 * i;
    volatile u32 *at = (u32 *)(size - 0x100000);
    *at = 0x11223344;
    pci_write8(0, 0x9e, 1);
    report(*at == 0xffffffff, "TSEG is hidden (%x)", *at);
    *at = 5;
    probe = (u32)(u64)at; probed = 0; smi(); probe = 0;
    report(probed == 0x11223344, "what is written to it is lost, and it shows in the mode (%x)", probed);
    u64 entry = pd[100]; pd[100] = (u64)at & ~0x1fffffful | 0x87; invlpg((void *)0xc800000);
    report(*(volatile u32 *)(0xc800000 + ((u64)at & 0x1fffffful) % 0x200000) != 0x11223344, "by another address neither");
    pd[100] = entry; invlpg((void *)0xc800000);
    pci_write8(0, 0x9e, 0);
    report(*at == 0x11223344, "and is RAM again without (%x)", *at);
    u32 v; outl(0xcf8, 0x80000050); asm volatile("outw %0, %1" ::"a"((u16)0xffff), "Nd"((u16)0xcfc));
    report((u16)pci_read(0, 0x50) == 16, "16 MiB of extended TSEG (%x)", pci_read(0, 0x50));
    pci_write8(LPC, 0xa0, 0x10); pci_write8(LPC, 0xa0, 0);
    report(pci_read(LPC, 0xa0) >> 4 & 1, "SMI_LOCK stays");
    outl(pm + 0x30, 0x20); asm volatile("inl %1, %0" : "=a"(v) : "Nd"((u16)(pm + 0x30)));
    report(v & 1, "and GBL_SMI_EN with it (%x)", v);
    smram(0x1a); smram(0x4a);
    report(!((u8)pci_read(0, smram_at) & 0x40) && !placed(0xa0000), "SMRAM that is locked cannot be opened (%x)", (u64)(u8)pci_read(0, smram_at));
    smis = 0; smi();
    report(smis == 1, "and still serves SMIs");
  }
  return done();
}
