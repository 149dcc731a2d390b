/* The library of the 32-bit test images: see units.h. */
#include "units.h"
#include <stdarg.h>

struct trap trap = { .vector = -1 };
void (*handlers[256])(struct frame *);
u64 idt[256] __attribute__((aligned(16)));
int failures;
extern const u32 *multiboot_info;
const char *command_line = "";
static int passes;
extern u8 low_start[], low_end[], low_stubs[];

static void put_char(char c) { while (!(inb(0x3fd) & 0x20)); outb(0x3f8, c); }
static void put_number(u32 v, u32 base) {
  char text[12]; int n = 0;
  do text[n++] = "0123456789abcdef"[v % base]; while (v /= base);
  while (n) put_char(text[--n]);
}
static void put_list(const char *f, va_list list) {
  for (; *f; f++) {
    if (*f != '%') { put_char(*f); continue; }
    switch (*++f) {
      case 'd': { int v = va_arg(list, int); if (v < 0) { put_char('-'); v = -v; } put_number(v, 10); break; }
      case 'x': put_number(va_arg(list, u32), 16); break;
      case 's': for (const char *s = va_arg(list, const char *); *s; s++) put_char(*s); break;
      default: put_char(*f);
    }
  }
}
void put(const char *f, ...) { va_list l; va_start(l, f); put_list(f, l); va_end(l); }
void report(int pass, const char *f, ...) {
  put(pass ? "PASS: " : "FAIL: ");
  va_list l; va_start(l, f); put_list(f, l); va_end(l);
  if (!pass) put(" (last exception %d, error %x, at %x:%x, flags %x, cr2 %x)", trap.vector, trap.error, trap.cs, trap.eip, trap.eflags, trap.cr2);
  put("\n");
  if (pass) passes++; else failures++;
}
int done(void) { put("SUMMARY: %d tests, %d failures, 0 skipped\n", passes + failures, failures); return failures != 0; }

static int starts(const char *s, const char *word) { while (*word && *s == *word) s++, word++; return !*word; }
int has(const char *word) {
  for (const char *s = command_line; *s; s++) if ((s == command_line || s[-1] == ' ') && starts(s, word)) return 1;
  return 0;
}

void on_trap(struct frame *f) {
  trap.vector = f->vector; trap.error = f->error; trap.eip = f->eip; trap.cs = f->cs; trap.eflags = f->eflags; trap.cr2 = RDCR(2);
  trap.frame = *f;
  if (handlers[f->vector]) { handlers[f->vector](f); return; }
  if (recover_ip) recover();
  put("FAIL: unexpected exception %d error %x at %x:%x cr2 %x\n", f->vector, f->error, f->cs, f->eip, RDCR(2));
  outl(0xf4, 1);
  for (;;) asm volatile("cli; hlt");
}
void descriptor(int selector, u32 base, u32 limit, u32 kind) {
  gdt[selector >> 3] = (u64)(base >> 24) << 56 | (u64)((kind & 0xf000) | (limit >> 8 & 0xf00) | (kind & 0xff)) << 40 | (u64)(base & 0xffffff) << 16 | (limit & 0xffff);
}
u64 gate(u32 selector, u32 offset, u32 kind, u32 parameters) { return (u64)(offset & 0xffff0000) << 32 | (u64)kind << 40 | (u64)parameters << 32 | (u64)selector << 16 | (offset & 0xffff); }
void idt_set(int vector, u32 selector, u32 offset, u32 kind) { idt[vector] = gate(selector, offset, kind, 0); }
u32 put_code(const void *from, const void *to) {
  for (const u8 *s = from, *e = to; s < e; s++) ((volatile u8 *)0x7000)[s - (const u8 *)from] = *s;
  return 0x7000;
}
void boot(void) {
  if (multiboot_info[0] & 4) command_line = (const char *)multiboot_info[4];
  for (int v = 0; v < 256; v++) idt_set(v, CODE, (u32)stubs + 16 * v, INT32 | (v == 0x20 || v == 3 || v == 4 ? DPL3 : 0));
  asm volatile("lidt idt_pointer");
  volatile u8 *low = (u8 *)0x6000;
  for (u8 *s = low_start; s < low_end; s++) *low++ = *s;
  for (int v = 0; v < 33; v++) ((volatile u32 *)0)[v] = 0x6000 + (u32)(low_stubs + 8 * v - low_start);
  tss.ss0 = DATA;
  tss.map = 136;
  for (int i = 0; i < (int)sizeof tss.ports; i++) tss.ports[i] = 0xff;
  descriptor(TSS, (u32)&tss, sizeof tss - 1, TSS32);
  asm volatile("ltr %w0" ::"r"(TSS));
  outb(0x21, 0xff); outb(0xa1, 0xff);
  outl(0xf4, main());
  for (;;) asm volatile("cli; hlt");
}
