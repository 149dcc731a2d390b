/* The library of the test images: see units.h. */
#include "units.h"
#include <stdarg.h>

struct trap trap = { .vector = -1 };
handler handlers[256];
u64 recover_ip, recover_sp;
int failures;
static int passes, skips;
const char *command_line = "";
static struct { u16 low, selector; u16 kind; u16 middle; u32 high, zero; } idt[256];
static u8 user_stack[8192] __attribute__((aligned(16)));
static u8 fault_stack[8192] __attribute__((aligned(16)));
static int in_user;
extern u8 stubs[], trampoline[], trampoline_end[];
extern void leave_user(void);

static void put_char(char c) { while (!(inb(0x3fd) & 0x20)); outb(0x3f8, c); }
static void put_number(u64 v, int base, int width, char fill) {
  char text[24]; int n = 0;
  do text[n++] = "0123456789abcdef"[v % base]; while (v /= base);
  while (n < width) text[n++] = fill;
  while (n) put_char(text[--n]);
}
static void put_list(const char *f, va_list list) {
  for (; *f; f++) {
    if (*f != '%') { put_char(*f); continue; }
    switch (*++f) {
      case 'd': { long v = va_arg(list, int); if (v < 0) { put_char('-'); v = -v; } put_number(v, 10, 0, ' '); break; }
      case 'x': put_number(va_arg(list, u64), 16, 0, '0'); break;
      case 's': for (const char *s = va_arg(list, const char *); *s; s++) put_char(*s); break;
      default: put_char(*f);
    }
  }
}
void put(const char *f, ...) { va_list l; va_start(l, f); put_list(f, l); va_end(l); }
void report(int pass, const char *f, ...) {
  put(pass ? "PASS: " : "FAIL: ");
  va_list l; va_start(l, f); put_list(f, l); va_end(l);
  if (!pass) put(" (last exception %d, error %x, rip %x, flags %x, cr2 %x)", (int)trap.vector, trap.error, trap.rip, trap.rflags, trap.cr2);
  put("\n");
  if (pass) passes++; else failures++;
}
void skip(const char *f, ...) { put("SKIP: "); va_list l; va_start(l, f); put_list(f, l); va_end(l); put("\n"); skips++; }
int done(void) { put("SUMMARY: %d tests, %d failures, %d skipped\n", passes + failures, failures, skips); return failures != 0; }

void on_trap(struct frame *f) {
  if (handlers[f->vector]) { handlers[f->vector](f); return; }
  trap.vector = f->vector; trap.error = f->error; trap.rip = f->rip; trap.rflags = f->rflags; trap.rsp = f->rsp; trap.cr2 = RDCR(2);
  trap.frame = *f;
  if ((f->cs & 3) == 3 && in_user) { in_user = 0; leave_user(); }
  if (recover_ip) { f->rip = recover_ip; f->rsp = recover_sp; f->rflags &= ~0x50100; recover_ip = 0; return; }
  put("FAIL: unexpected exception %d error %x at %x cr2 %x\n", (int)f->vector, f->error, f->rip, RDCR(2));
  outl(0xf4, 1);
  for (;;) asm volatile("cli; hlt");
}
static void enter_user_marked(void (*f)(void), long flags) { in_user = 1; enter_user(f, user_stack + sizeof user_stack - 64, flags); in_user = 0; }
long user(void (*f)(void), long flags) { trap.vector = -1; enter_user_marked(f, 2 | flags); return trap.vector; }

void idt_set(int v, void *at, int dpl, int ist) {
  u64 a = (u64)at;
  idt[v].low = a; idt[v].selector = 8; idt[v].kind = 0x8e00 | dpl << 13 | ist; idt[v].middle = a >> 16; idt[v].high = a >> 32; idt[v].zero = 0;
}
static void load_tables(void) {
  struct { u16 limit; u64 base; } __attribute__((packed)) p = { sizeof idt - 1, (u64)idt };
  asm volatile("lidt %0" ::"m"(p));
}
long try_wrmsr(u32 n, u64 v) { u64 both[2] = { n, v }; return TRY("mov (%%rdx), %%ecx\n mov 8(%%rdx), %%eax\n mov 12(%%rdx), %%edx\n wrmsr", both); }
long try_rdmsr(u32 n, u64 *v) { u64 both[2] = { n, 0 }; long r = TRY("mov %%rdx, %%rsi\n mov (%%rdx), %%ecx\n rdmsr\n mov %%eax, 8(%%rsi)\n mov %%edx, 12(%%rsi)", both); *v = both[1]; return r; }

/* Other vCPUs run what their mailbox says. */
static struct { void (*volatile f)(void *); void *volatile argument; volatile int busy; } box[16];
void ap_main(int cpu) {
  load_tables();
  apic_write(0xf0, 0x1ff);
  for (;;) {
    while (!box[cpu].busy) pause_();
    box[cpu].f(box[cpu].argument);
    box[cpu].busy = 0;
  }
}
void on_cpu(int cpu, void (*f)(void *), void *argument) { on_cpu_wait(cpu); box[cpu].f = f; box[cpu].argument = argument; box[cpu].busy = 1; }
void on_cpu_wait(int cpu) { while (box[cpu].busy) pause_(); }
int start_cpus(void) {
  for (u8 *s = trampoline, *d = (u8 *)0x8000; s < trampoline_end;) *d++ = *s++;
  apic_write(0x310, 0); apic_write(0x300, 0xc4500);
  for (int i = 0; i < 20000; i++) pause_();
  apic_write(0x300, 0xc4608);
  asm volatile("outw %0, %1" ::"a"((u16)5), "Nd"((u16)0x510));
  int expected = inb(0x511);
  u64 until = rdtsc() + 50000000000ul;
  while (rdtsc() < until && started < expected) pause_();
  return started;
}
static int starts(const char *s, const char *w) { while (*w) if (*s++ != *w++) return 0; return *s == 0 || *s == ' '; }
int has(const char *word) {
  for (const char *s = command_line; *s; s++) if ((s == command_line || s[-1] == ' ') && starts(s, word)) return 1;
  return 0;
}
void boot(u32 *info) {
  if (info[0] & 4) command_line = (const char *)(u64)info[4];
  for (int v = 0; v < 256; v++) idt_set(v, stubs + 16 * v, v == 0x20 || v == 3 || v == 4 ? 3 : 0, v < 32 && v != 2);
  load_tables();
  u64 base = (u64)tss;
  *(u64 *)(tss + 0x24) = (u64)(fault_stack + sizeof fault_stack);
  *(u16 *)(tss + 0x66) = 0x68;
  gdt[8] = 0x0000890000000067ul | (base & 0xffffff) << 16 | (base >> 24 & 0xff) << 56; gdt[9] = base >> 32;
  asm volatile("ltr %w0" ::"r"(0x40));
  apic_write(0xf0, 0x1ff);
  outb(0x21, 0xff); outb(0xa1, 0xff);
  outl(0xf4, main());
  for (;;) asm volatile("cli; hlt");
}
