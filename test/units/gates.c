/* Random cases of what segments and gates do in IA-32e mode, by seed: far transfers of every form between privilege levels and between
   64-bit, 32- and 16-bit code, interrupts and exceptions through random gates and stacks, loads of segment registers, LDTR and TR,
   SYSCALL and SYSENTER and their ways back. Command line: seed=N cases=N, `each` for one line per case, `plain` without RF, which QEMU does not set in
   frames, and which here an IRET sets with breakpoints only. Whatever a case does, it ends in a handler that looks at everything: see random.c. */
#include "units.h"
#include "seeded.h"
#define CODE 0x300000ul
#define FREE 16
#define ENTRIES 64
#define STACK_WORDS 1024
static u64 table[ENTRIES] __attribute__((aligned(16))), local[16] __attribute__((aligned(16)));
static struct { u16 low, selector; u16 kind; u16 middle; u32 high, zero; } vectors[256] __attribute__((aligned(16)));
static u8 tasks[3][128] __attribute__((aligned(16)));
static u64 area[64] __attribute__((aligned(64))), stacks[STACK_WORDS] __attribute__((aligned(4096)));
static u8 handler_stack[8192] __attribute__((aligned(16)));
static int plain;
u64 in[15], in_frame[5], resume_sp;
static struct frame out;
/* `code`: access rights of the code segment. */
static struct { u64 cr2, code, ds, es, fs, gs, tr, ldtr, fs_base, gs_base, kernel_gs; } also;
extern void run_case(void), after_case(void);
asm("run_case: push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15; mov %rsp, resume_sp\n"
    "lea in, %rsp; pop %r15; pop %r14; pop %r13; pop %r12; pop %r11; pop %r10; pop %r9; pop %r8; pop %rdi; pop %rsi; pop %rbp; pop %rbx; pop %rdx; pop %rcx; pop %rax\n"
    "lea in_frame, %rsp; iretq\n"
    "after_case: mov $0x10, %eax; mov %eax, %ds; mov %eax, %es; mov %eax, %ss; xor %eax, %eax; mov %eax, %fs; mov %eax, %gs\n"
    "cld; pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx; ret\n");
static void catch_it(struct frame *f) {
  out = *f;
  also.cr2 = RDCR(2);
  asm volatile("mov %%ds, %0; mov %%es, %1; mov %%fs, %2; mov %%gs, %3; str %4; sldt %5" : "=r"(also.ds), "=r"(also.es), "=r"(also.fs), "=r"(also.gs), "=r"(also.tr), "=r"(also.ldtr));
  also.code = 0; asm volatile("lar %1, %0" : "+r"(also.code) : "r"(out.cs) : "cc");
  also.fs_base = rdmsr(0xc0000100); also.gs_base = rdmsr(0xc0000101); also.kernel_gs = rdmsr(0xc0000102);
  f->rip = (u64)after_case; f->rsp = resume_sp; f->cs = 8; f->ss = 0x10; f->rflags = 2;
}
static void end_it(struct frame *f) { apic_write(0xb0, 0); }

static u8 *at;
static void byte(u8 v) { *at++ = v; }
static void bytes(const char *s, int n) { while (n--) byte(*s++); }
#define B(s) bytes(s, sizeof s - 1)
static void word(u32 v, int n) { while (n--) { byte(v); v >>= 8; } }
static int seldom(void) { return below(24) == 0; }
/* INT 0x30 is everywhere on the code's page behind the case, and on the lowest page, where offsets that were cut to 16 bits go. */
static u64 place(void) { return CODE + 0x100 + 2 * below(0x700); }
static u64 far_place(void) { return seldom() ? below(2) ? 0x8000000000ul + next() % 0x1000 : 1ul << 47 | next() : place(); }
static u64 stack_place(void) { return seldom() ? below(2) ? 0x8000000000ul : 1ul << 47 | next() : (u64)stacks + 1024 + (below(4) ? below(800) * 8 : below(6400)); }
static u16 selector(void) {
  static const u8 usual[] = { 8, 0x10, 0x18, 0x20, 0x2b, 0x33, 0x3b, 0 };
  switch (below(5)) {
    case 0: return usual[below(8)];
    case 1: return below(16) * 8 | 4 | below(4);
    default: return (FREE + below(ENTRIES - FREE + seldom() * 4)) * 8 | (below(3) ? 0 : below(4));
  }
}
static u64 flags(void) {
  u64 f = 2 | (next() & 0x8d5);
  if (below(3) == 0) f |= below(4) << 12;
  if (below(3) == 0) f |= 0x200;
  if (seldom()) f |= 0x100;
  if (seldom()) f |= 0x4000;
  if (seldom()) f |= 0x20000;
  if (below(8) == 0) f |= next() & 0x250000;
  if (seldom()) f |= 0x180000;
  return plain ? f & ~0x10000ul : f;
}
static void descriptor(u64 *d, int last) {
  u64 access = below(8) ? 0x80 : 0, level = below(3) == 0 ? below(4) : below(2) * 3, base = 0, limit = 0xfffff, high = 0;
  access |= level << 5;
  int kind = below(8);
  if (kind < 3) { /* code */
    access |= 0x18 | below(8);
    int size = below(8);
    high = size < 4 ? 0xa : size < 6 ? 0xc : size < 7 ? 8 : seldom() ? 0xe : 0xa;
    if (!(high & 6)) base = CODE; else if (below(6) == 0 && !(high & 2)) base = CODE;
    if (below(8) == 0) limit = base == CODE ? 0 : below(2) ? 0x2ff : 0x300;
  } else if (kind < 5) { access |= 0x10 | (below(4) ? 2 : 0) | below(8); high = below(4) ? 0xc : below(2) ? 8 : 0; if (below(4) == 0) base = (u64)stacks; if (below(8) == 0) limit = below(0x400); }
  else if (kind == 5 && !last) { /* call gate */
    u64 to = far_place();
    d[0] = (to & 0xffff) | (u64)selector() << 16 | (access | 0xc | (seldom() ? below(16) : 0)) << 40 | (to >> 16 & 0xffff) << 48 | (seldom() ? next() & 0x1f : 0) << 32;
    d[1] = to >> 32 | (seldom() ? (u64)below(32) << 40 : 0);
    return;
  } else { /* LDT, TSS, and what is none of these */
    access |= below(3) == 0 ? 2 : below(4) ? 9 : below(2) ? 0xb : below(16);
    base = (access & 15) == 2 ? (u64)local : (u64)tasks[below(3)]; limit = (access & 15) == 2 ? below(4) ? 127 : below(128) : 0x67 + below(4);
  }
  d[0] = (limit & 0xffff) | (base & 0xffffff) << 16 | access << 40 | (limit >> 16) << 48 | high << 52 | (base >> 24) << 56;
  if (!last) d[1] = seldom() ? (u64)below(32) << 40 : 0;
}
static void set_up(void) {
  for (int i = 0; i < 8; i++) table[i] = gdt[i];
  for (int i = FREE; i < ENTRIES; i++) table[i] = 0;
  for (int i = 0; i < 16; i++) local[i] = 0;
  for (int i = FREE; i < ENTRIES; i += below(2) + 1) descriptor(table + i, i == ENTRIES - 1);
  for (int i = 0; i < 16; i += below(2) + 1) descriptor(local + i, i == 15);
  for (int t = 0; t < 3; t++) {
    for (int i = 0; i < 128; i++) tasks[t][i] = 0;
    for (int i = 0; i < 3; i++) *(u64 *)(tasks[t] + 4 + 8 * i) = stack_place();
    for (int i = 1; i < 7; i++) *(u64 *)(tasks[t] + 0x24 + 8 * i) = stack_place();
    *(u64 *)(tasks[t] + 0x24) = (u64)(handler_stack + sizeof handler_stack);
    *(u16 *)(tasks[t] + 0x66) = 0x68;
  }
  u64 base = (u64)tasks[0];
  table[8] = 0x0000890000000067ul | (base & 0xffffff) << 16 | (base >> 24 & 0xff) << 56; table[9] = base >> 32;
  struct { u16 limit; u64 base; } __attribute__((packed)) g = { sizeof table - 1, (u64)table }, i = { sizeof vectors - 1, (u64)vectors };
  asm volatile("lgdt %0; lidt %1; ltr %w2; lldt %w3" ::"m"(g), "m"(i), "r"(0x40), "r"(0));
  for (int v = 0x40; v < 0x60; v++) {
    u64 to = far_place();
    vectors[v].low = to; vectors[v].middle = to >> 16; vectors[v].high = to >> 32; vectors[v].zero = 0;
    vectors[v].selector = below(3) ? selector() : 8;
    vectors[v].kind = (below(12) ? 0x8000 : 0) | (below(3) ? 3 : below(4)) << 13 | (below(12) ? 0xe00 + 0x100 * below(2) : below(32) << 8) | (below(3) ? 0 : below(8)) | (seldom() ? 0xf8 & next() : 0);
  }
  wrmsr(0xc0000081, (u64)(below(3) ? 0x28 | below(4) : selector() & ~4) << 48 | (u64)(below(3) ? 8 : selector() & ~4) << 32);
  wrmsr(0xc0000082, place()); wrmsr(0xc0000083, place()); wrmsr(0xc0000084, next() & 0x257fd5);
  wrmsr(0x174, seldom() ? 0 : below(3) ? 8 : selector() & ~4); wrmsr(0x175, stack_place() & 0x7fffffffffff); wrmsr(0x176, place());
  wrmsr(0xc0000100, 0x1000); wrmsr(0xc0000101, 0x2000); wrmsr(0xc0000102, 0x3000);
}
/* What IRET, far returns and far pointers take. */
static void fill(void) {
  for (int i = 0; i < STACK_WORDS; i++) stacks[i] = below(4) ? selector() : place();
  u64 sp = in_frame[3];
  if (sp >= (u64)stacks && sp + 128 < (u64)(stacks + STACK_WORDS)) {
    int size = below(3) == 0 ? 4 : below(6) == 0 ? 2 : 8;
    u64 values[] = { far_place(), selector(), flags(), stack_place(), selector() };
    if (below(2)) { static const u8 pairs[][2] = { { 8, 0x10 }, { 0x2b, 0x33 }, { 0x3b, 0x33 }, { 0x18, 0x20 }, { 0x3b, 0 }, { 8, 0 } }; int p = below(6); values[1] = pairs[p][0]; values[4] = pairs[p][1]; }
    int far = below(3) == 0; /* as a far return has them */
    for (int i = 0; i < 5; i++) if (!(far && i == 2)) for (int n = 0; n < size; n++) ((u8 *)sp)[(far && i > 2 ? i - 1 : i) * size + n] = values[i] >> 8 * n;
  }
  for (int i = 0; i < 64; i += 2) { u64 to = place(), s = selector(); area[i] = i % 8 < 4 ? to : to | s << 32; area[i + 1] = s; if (i % 8 == 6) area[i] = (to & 0xffff) | s << 16; }
}
static void instruction(void) {
  static const u8 prefixes[] = { 0x48, 0x66 };
  int form = below(4);
  switch (below(19)) {
    case 0: case 1: case 2: byte(0xcd); byte(0x40 + below(32)); break;
    case 3: byte(below(2) ? 0xcc : below(2) ? 0xce : 0xf1); break;
    case 4: case 5: if (form < 2) byte(0x48); if (form == 3) byte(0x66); byte(0xff); byte(0x43 | (below(2) ? 5 : 3) << 3); byte((below(2) * 4 + form) * 16); break;
    case 6: if (below(3)) byte(prefixes[below(3) == 0]); if (below(2)) byte(0xcb); else { byte(0xca); word(below(4) * 8, 2); } break;
    case 7: case 8: if (below(4)) byte(prefixes[below(4) == 0]); byte(0xcf); break;
    case 9: if (below(2)) B("\x0f\x05"); else { if (below(2)) byte(0x48); B("\x0f\x07"); } break;
    case 10: if (below(2)) B("\x0f\x34"); else { if (below(2)) byte(0x48); B("\x0f\x35"); } break;
    case 11: case 12: byte(0xb8); word(selector(), 4); byte(0x8e); { static const u8 s[] = { 0, 2, 3, 4, 5, 2 }; byte(0xc0 | s[below(6)] << 3); } break;
    case 13: byte(0xb8); word(selector(), 4); B("\x0f\x00"); byte(0xc0 | (2 + below(2)) << 3); break;
    case 14: byte(0xb9); word(selector(), 4); if (below(2)) { byte(0x0f); byte(2 + below(2)); byte(0xc1); } else { B("\x0f\x00"); byte(0xc1 | (4 + below(2)) << 3); } break;
    case 15: if (below(2)) { byte(0x6a); byte(selector()); } byte(0x0f); byte(below(2) ? 0xa1 : 0xa9); break;
    case 16: if (below(3) == 0) byte(prefixes[below(2)]); byte(0x0f); { static const u8 l[] = { 0xb2, 0xb4, 0xb5 }; byte(l[below(3)]); } byte(0x43); byte((below(2) * 4 + form) * 16); break;
    case 17: { static const char *const m[] = { "\x0f\x01\xf8", "\xfa\x90\x90", "\xfb\x90\x90", "\x9c\x9d\x90", "\x50\x58\x90", "\x0f\x01\xe0" }; bytes(m[below(6)], 3); break; }
    default: byte(below(2) ? 0xea : 0x9a); word(place(), 4); word(selector(), 2); break;
  }
}
/* What a case leaves behind, in parts: the registers, segments, GDT, LDT, far pointers and the stacks. */
enum { REGISTERS, SEGMENTS, GDT, LDT, AREA, STACKS, PARTS };
static u64 parts[PARTS];
static void part(int n, const void *from, int words) {
  const u64 *p = from;
  u64 whole = digest;
  digest = 0;
  while (words--) mix(*p++);
  parts[n] = digest;
  digest = whole;
  mix(parts[n]);
}
static void gate_case(void) {
  { void *to = (void *)CODE; u64 n = 0x800; asm volatile("rep stosw" : "+D"(to), "+c"(n) : "a"(0x30cd) : "memory"); }
  { void *to = 0; u64 n = 0x800; asm volatile("rep stosw" : "+D"(to), "+c"(n) : "a"(0x30cd) : "memory"); }
  set_up();
  for (int i = 0; i < 15; i++) in[i] = below(2) ? next() : below(2) ? far_place() : stack_place();
  in[11] = (u64)area; /* RBX */
  in[13] = below(4) ? stack_place() : place(); in[12] = below(4) ? place() : stack_place(); in[4] = flags() & ~0x20000ul; /* RCX, RDX, R11 */
  static const u8 starts[][2] = { { 8, 0x10 }, { 0x2b, 0x33 }, { 0x3b, 0x33 }, { 0x18, 0x20 }, { 0x3b, 0x33 } };
  int s = below(5);
  in_frame[0] = CODE; in_frame[1] = starts[s][0]; in_frame[2] = flags() & ~0x1a4100ul; in_frame[3] = (u64)stacks + 2048 + below(400) * 8; in_frame[4] = starts[s][1];
  fill();
  at = (u8 *)CODE;
  int count = 1 + below(4);
  for (int i = 0; i < count; i++) instruction();
  if ((u64)at & 1) byte(0x90);
  int raised = below(6) == 0;
  if (raised) {
    int v = 0x40 + below(32);
    apic_write(0x300, 0x40000 | v);
    while (!(apic_read(0x200 + (v >> 5) * 16) >> (v & 31) & 1)) pause_();
  }
  run_case();
  mix(out.vector); mix(out.vector == 14 && plain ? out.error & ~2ul : out.error); /* QEMU tells of the load where an operation loads and stores. */
  mix(out.vector == 14 ? also.cr2 : 0); mix(out.rip); mix(out.cs);
  /* Regions keep flags that are dead on the normal path stale in the frame of a fault; QEMU does not set RF there. */
  mix(out.rflags & (out.vector == 0x30 ? 0x3f7fd7 : 0x3f7702) & (plain ? ~0x10000ul : ~0ul));
  mix(out.rsp); mix(out.ss);
  part(REGISTERS, &out, 15);
  part(SEGMENTS, &also.ds, 9);
  part(GDT, table, ENTRIES); part(LDT, local, 16); part(AREA, area, 64); part(STACKS, stacks, STACK_WORDS);
  apic_write(0xb0, 0);
  if (raised) {
    for (int v = 0x40; v < 0x60; v++) { vectors[v] = vectors[0x60]; u64 to = (u64)vectors[v].low | (u64)vectors[v].middle << 16; to -= 16 * (0x60 - v); vectors[v].low = to; vectors[v].middle = to >> 16; }
    asm volatile("sti; nop; nop; cli");
  }
}

int main(void) {
  u64 seed = number("seed", 1), cases = number("cases", 2000);
  int each = has("each");
  plain = has("plain");
  extern u8 stubs[];
  struct { u16 limit; u64 base; } __attribute__((packed)) p;
  asm volatile("sidt %0" : "=m"(p));
  for (int i = 0; i < 256; i++) { handlers[i] = i >= 0x40 && i < 0x60 ? end_it : catch_it; idt_set(i, stubs + 16 * i, i == 0x30 || i == 3 || i == 4 ? 3 : 0, 1); }
  for (int i = 0; i < 256; i++) ((u64 *)vectors)[2 * i] = ((u64 *)p.base)[2 * i], ((u64 *)vectors)[2 * i + 1] = ((u64 *)p.base)[2 * i + 1];
  wrmsr(0xc0000080, rdmsr(0xc0000080) | 1);
  for (int i = 3; i < 2048; i++) if (i != 2039) pd[i] = 0; /* the local APIC */
  WRCR(3, RDCR(3));
  /* Nothing of the firmware's stays below 640 KiB: INT3 is there wherever code may run away to. */
  for (u32 *p = (u32 *)0x1000; p < (u32 *)0x9f000; p++) *p = 0xcccccccc;
  for (u64 i = 0; i < cases; i++) {
    seeded(seed + i);
    if (each) digest = 0;
    gate_case();
    if (each) {
      put("case %x: %x vector %d error %x cr2 %x cs:rip %x:%x flags %x ss:rsp %x:%x start %x tr %x ldtr %x ds %x es %x fs %x gs %x rights %x code", seed + i, digest, (int)out.vector, out.error, also.cr2, out.cs, out.rip, out.rflags, out.ss, out.rsp, in_frame[1], also.tr, also.ldtr, also.ds, also.es, also.fs, also.gs, also.code);
      for (u8 *b = (u8 *)CODE; b < at; b++) put(" %x", (u64)*b);
      put(" parts");
      for (int n = 0; n < PARTS; n++) put(" %x", parts[n]);
      put("\n");
    } else if ((i + 1) % 1000 == 0) put("to %x: %x\n", seed + i, digest);
  }
  report(1, "%d cases from seed %x, digest %x", (int)cases, seed, digest);
  return done();
}
