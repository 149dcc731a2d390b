/* Random cases of what segments, gates and tasks do in 32-bit kernels, by seed: far transfers between rings and between 32-bit, 16-bit and
   virtual-8086 code, with paging and without; call gates with parameters; interrupts, exceptions and IRET through gates of every kind;
   task switches by JMP, CALL, IRET, INT and exceptions with TSSs of 16 and 32 bits; VME and PVI; expand-down and 16-bit stacks.
   Command line: seed=N cases=N, `each` for one line per case, `plain` without VME, PVI and RF in frames, which QEMU does not have.
   Whatever a case does, it ends in a handler or a task that looks at everything (Intel SDM volume 3, chapters 5 to 7 and 20). */
#include "units.h"
#include "../seeded.h"
#define ENTRIES 64
/* All of it in the first MiB, where virtual-8086 code reaches it. INT 0x30 is everywhere on the code's page behind the case, and on the
   lowest page, where offsets that were cut to 16 bits go. */
#define CODE_AT 0x30000u
#define AREA 0x38000u
#define STACKS 0x40000u
#define STACK_WORDS 2048
#define HALTS 0x48000u
#define FRAME 0x58000u
#define AWAY 0x200000u
enum { MAIN = 0x28, C16 = 0x30, S16 = 0x38, C16_3 = 0x43, S16_3 = 0x4b, LOCAL = 0x50, RESCUE = 0x58, C1 = 0x89, D1 = 0x91, FREE = 20 };
enum { FIRST = 0x40, VECTORS = 0x20, RESCUES = 6, TASKS = 5 };
enum { TF = 0x100, IF = 0x200, DF = 0x400, NT = 0x4000, RF = 0x10000, VM = 0x20000, AC = 0x40000, VIF = 0x80000, VIP = 0x100000, ID = 0x200000 };
static u64 table[ENTRIES] __attribute__((aligned(16))), local[16] __attribute__((aligned(16)));
static u8 tasks[TASKS][256] __attribute__((aligned(256)));
static struct tss rescue[RESCUES];
static u32 directory[2][1024] __attribute__((aligned(4096))), pages[2][1024] __attribute__((aligned(4096)));
static u8 handler_stack[8192] __attribute__((aligned(16)));
static const u8 rescued[RESCUES] = { 8, 10, 11, 12, 13, 14 };
static int plain, paging, big[TASKS];
/* What the case starts with, in the order in which it is popped. */
struct { u32 edi, esi, ebp, esp_, ebx, edx, ecx, eax, gs, fs, es, ds, eip, cs, eflags, esp, ss, ves, vds, vfs, vgs; } in;
struct { u32 esp, ss; } in_stack;
/* What the handler finds. */
struct { u32 eax, ecx, edx, ebx, ebp, esi, edi, ds, es, fs, gs, esp, ss, vector, error, eip, cs, eflags, old_esp, old_ss, ves, vds, vfs, vgs, tr, ldtr, cr0, cr2, cr3, dr6, dr7; } out;
u32 resume_sp, task_error, kept = -1u;
u8 *handler_top = handler_stack + sizeof handler_stack;
extern u8 gate_stubs[], rescue_stubs[];
void run_case(void), look(void);
asm("run_case: push %ebx; push %ebp; push %esi; push %edi; mov %esp, resume_sp\n"
    "lea in, %esp; popa; pop %gs; pop %fs; pop %es; pop %ds; lss %cs:in_stack, %esp; iret\n"
    "after_case: mov $0x10, %eax; mov %eax, %ss; mov resume_sp, %esp; mov %eax, %ds; mov %eax, %es; xor %eax, %eax; mov %eax, %fs; mov %eax, %gs\n"
    "push $2; popf; pop %edi; pop %esi; pop %ebp; pop %ebx; ret\n"
    /* The stack is any: the frame is popped before it is left. */
    ".align 16; gate_stubs: vector = 0; .rept 256; .align 16\n"
    ".if (vector == 8) || (vector >= 10 && vector <= 14) || (vector == 17); .else; push $-1; .endif; push $vector; jmp found; vector = vector + 1; .endr\n"
    "found: push %ds; push $0x10; pop %ds; pop out + 28; mov %eax, out; mov %ecx, out + 4; mov %edx, out + 8; mov %ebx, out + 12; mov %ebp, out + 16; mov %esi, out + 20; mov %edi, out + 24\n"
    "mov %es, out + 32; mov %fs, out + 36; mov %gs, out + 40; mov %esp, out + 44; mov %ss, out + 48\n"
    "pop out + 52; pop out + 56; pop out + 60; pop out + 64; pop out + 68; mov kept, %eax; and %eax, out + 68; push out + 68; pop out + 68\n"
    "testl $0x20000, out + 68; jnz 1f; testl $3, out + 64; jz 2f; pop out + 72; pop out + 76; jmp 2f\n"
    "1: pop out + 72; pop out + 76; pop out + 80; pop out + 84; pop out + 88; pop out + 92\n"
    "2: mov $0x10, %eax; mov %eax, %ss; mov handler_top, %esp; mov %eax, %es; cld; call look; jmp after_case\n"
    ".align 16; rescue_stubs: vector = 0; .rept 6; .align 16; pop task_error; movl $vector, %ebx; jmp 3f; vector = vector + 1; .endr\n"
    "3: push %ebx; call look_task; jmp after_case\n");
void look(void) {
  out.cr0 = RDCR(0); out.cr2 = RDCR(2); out.cr3 = RDCR(3); out.dr6 = RDDR(6); out.dr7 = RDDR(7);
  asm volatile("str %0; sldt %1" : "=r"(out.tr), "=r"(out.ldtr));
}
/* The rest lies in the TSS of the task that was left. */
void look_task(u32 which) { out.vector = rescued[which]; out.error = task_error; out.cs = 0x10000; look(); }

static u8 *at;
static int wide;
static void byte(u8 v) { *at++ = v; }
static void bytes(const char *s, int n) { while (n--) byte(*s++); }
#define B(s) bytes(s, sizeof s - 1)
static void word(u32 v, int n) { while (n--) { byte(v); v >>= 8; } }
static int seldom(void) { return below(24) == 0; }
/* An offset in the code's page; with `flat`, the address of one. */
static u32 offset(int flat) { return (flat ? CODE_AT : 0) + 0x200 + 2 * below(0x680); }
/* Beyond what 16 bits and most limits reach; with paging, there is nothing. */
static u32 place(void) { return seldom() ? AWAY + below(0xf000) : offset(below(2)); }
static u32 stack_offset(void) { return seldom() ? below(16) : below(5) ? 0x800 + below(800) * 4 : 0x800 + below(3200); }
static u32 stack_place(void) { return seldom() ? below(2) ? AWAY + below(0xf000) : 0 : (below(2) ? STACKS : 0) + stack_offset(); }
static u16 selector(void) {
  static const u16 usual[] = { CODE, DATA, USER_CODE, USER_DATA, C16, S16, C16_3, S16_3, C1, D1, 0, LOCAL, MAIN };
  switch (below(5)) {
    case 0: return usual[below(13)];
    case 1: return below(16) * 8 | 4 | below(4);
    default: return (FREE + below(ENTRIES - FREE + seldom() * 4)) * 8 | (below(3) ? 0 : below(4));
  }
}
/* Pairs of code and stack that go together. */
static const u16 pairs[][2] = { { CODE, DATA }, { USER_CODE, USER_DATA }, { C16, S16 }, { C16_3, S16_3 }, { C1, D1 }, { CODE, S16 }, { C16, DATA }, { USER_CODE, S16_3 } };
/* QEMU takes VIF and VIP where VME is there, which it never is. */
static u32 flags(void) {
  u32 f = 2 | ((u32)next() & 0x8d5);
  if (below(3) == 0) f |= below(4) << 12;
  if (below(3) == 0) f |= IF;
  if (seldom()) f |= TF;
  if (below(12) == 0) f |= NT;
  if (below(8) == 0) f |= VM;
  if (below(8) == 0) f |= (u32)next() & (ID | RF | DF);
  if (below(6) == 0) f |= (u32)next() & (VIF | VIP);
  return plain ? f & ~(RF | VIF | VIP) : f;
}
static u64 made(u32 base, u32 limit, u32 kind) { if (kind & 0x10) kind |= plain; return (u64)(base >> 24) << 56 | (u64)((kind & 0xf000) | (limit >> 8 & 0xf00) | (kind & 0xff)) << 40 | (u64)(base & 0xffffff) << 16 | (limit & 0xffff); }
static u64 random_descriptor(void) {
  u32 access = below(10) ? 0x80 : 0, level = below(2) ? 0 : below(2) ? 3 : below(4), base = 0, limit = 0xfffff, high = GRANULAR;
  access |= level << 5;
  int kind = below(12);
  if (kind < 3) { /* code */
    access |= 0x18 | below(8) | plain;
    if (below(3)) high |= BIG; else { base = CODE_AT; high = 0; limit = 0xffff; }
    if (below(8) == 0) { high &= ~GRANULAR; limit = 0x200 + below(0xd00); }
  } else if (kind < 6) { /* data, some of it expanding down */
    access |= 0x10 | (below(6) ? 2 : 0) | below(2) | plain | (below(4) ? 0 : 4);
    if (below(2)) high |= BIG; else high = 0;
    if (below(2)) { base = STACKS; high &= ~GRANULAR; limit = below(3) ? 0xffff : below(0x2000); }
    if (access & 4) { high &= ~GRANULAR; limit = below(2) ? below(0x1800) : 0x7ff; base = STACKS; }
  } else if (kind < 8) { /* call gate */
    int gate32 = below(2);
    u64 g = gate(below(2) ? pairs[below(8)][0] : selector(), gate32 ? place() : offset(0), access | (gate32 ? 0xc : 4), below(2) ? 0 : seldom() ? below(256) : below(5));
    return g;
  } else if (kind == 8) return gate(below(3) ? (FREE + below(TASKS)) * 8 : selector(), (u32)next(), access | 5, (u32)next() & 0xff);
  else if (kind == 9) { access |= 2; base = (u32)local; limit = below(4) ? 127 : below(128); high = 0; }
  else { /* A TSS of the other size would load any CR3. */
    int t = below(TASKS), type = seldom() ? below(16) : below(4) ? 1 : 3;
    if ((type & 5) == 1) type = (type & 3) | big[t] << 3;
    access |= type; base = (u32)tasks[t]; limit = (access & 8 ? 0x67 : 0x2b) + (below(12) ? below(2) * 152 : -1); high = 0; }
  return made(base, limit, access | high);
}
/* A task that can run, now and then with something wrong. */
static void random_task(u8 *t, int big) {
  const u16 *pair = pairs[below(8)];
  int v86 = below(6) == 0, small = (pair[0] & ~3) == (C16 & ~3) || (pair[0] & ~3) == (C16_3 & ~3);
  u32 f = flags() & ~(VM | (plain ? VIF | VIP : 0));
  if (v86 && big) f |= VM;
  u32 ip = seldom() ? place() : offset(!small && !v86 && big);
  u16 segments[6] = { selector(), pair[0], pair[1], selector(), selector(), selector() };
  for (int i = 0; i < 6; i++) if (i == 1 || i == 2 ? below(16) == 0 : 0) segments[i] = selector();
  for (int i = 0; i < 6; i += i == 0 ? 3 : 1) if (below(5)) segments[i] = below(2) ? DATA + 0x13 * ((pair[0] & 3) == 3) : pair[1];
  if (v86 && big) { for (int i = 0; i < 6; i++) segments[i] = AREA >> 4; segments[1] = CODE_AT >> 4; segments[2] = STACKS >> 4; }
  for (int i = 0; i < 256; i++) t[i] = 0;
  if (big) {
    struct tss *s = (struct tss *)t;
    s->link = selector();
    s->ss0 = below(12) ? below(2) ? DATA : S16 : selector(); s->esp0 = s->ss0 == S16 ? stack_offset() : STACKS + stack_offset();
    s->ss1 = below(6) ? D1 : selector(); s->esp1 = stack_place(); s->ss2 = selector(); s->esp2 = stack_place();
    s->cr3 = (u32)directory[below(2)];
    s->eip = ip; s->eflags = f; s->esp = (pair[1] & ~3) == (S16 & ~3) || (pair[1] & ~3) == (S16_3 & ~3) || v86 ? stack_offset() : STACKS + stack_offset();
    for (int i = 0; i < 8; i++) if (i != 4) (&s->eax)[i] = next();
    s->ebx = v86 ? 0 : AREA; s->ebp = STACKS + stack_offset();
    for (int i = 0; i < 6; i++) (&s->es)[i] = segments[i];
    s->ldt = below(3) ? 0 : below(4) ? LOCAL : selector();
    s->t = seldom(); s->map = below(8) ? 136 : below(256);
    for (int i = 0; i < 32; i++) s->redirection[i] = next();
    s->redirection[6] |= 1;
    t[136 + 16] = next(); t[136 + 17] = t[253] = 0xff;
  } else {
    u16 *s = (u16 *)t;
    s[0] = selector(); s[2] = below(12) ? S16 : selector(); s[1] = stack_offset(); s[4] = below(6) ? D1 : selector(); s[3] = stack_offset();
    s[7] = ip; s[8] = f; for (int i = 9; i < 17; i++) s[i] = i == 13 ? stack_offset() : next();
    for (int i = 0; i < 4; i++) s[17 + i] = segments[i];
    s[21] = below(3) ? 0 : below(4) ? LOCAL : selector();
  }
}
static void set_up(void) {
  for (int i = 0; i < 5; i++) table[i] = gdt[i];
  table[C16 >> 3] = made(CODE_AT, 0xffff, CODE_READ); table[S16 >> 3] = made(STACKS, 0xffff, WRITE);
  table[C16_3 >> 3] = made(CODE_AT, 0xffff, CODE_READ | DPL3); table[S16_3 >> 3] = made(STACKS, 0xffff, WRITE | DPL3);
  table[C1 >> 3] = made(0, 0xfffff, CODE_READ | 0x20 | BIG | GRANULAR); table[D1 >> 3] = made(0, 0xfffff, WRITE | 0x20 | BIG | GRANULAR);
  table[LOCAL >> 3] = made((u32)local, 127, LDT);
  for (int i = 0; i < TASKS; i++) big[i] = i == 0 || below(3);
  for (int i = FREE; i < ENTRIES; i++) table[i] = random_descriptor();
  for (int i = 0; i < 16; i++) local[i] = random_descriptor();
  for (int i = 0; i < TASKS; i++) {
    random_task(tasks[i], big[i]);
    if (i) table[FREE + i] = made((u32)tasks[i], below(2) ? 255 : big[i] ? 0x67 : 0x2b, (below(16) ? 0x80 : 0) | (big[i] ? 9 : 1) | (below(3) == 0 ? 2 : 0) | (below(2) ? DPL3 : 0));
  }
  table[MAIN >> 3] = made((u32)tasks[0], 255, TSS32);
  ((struct tss *)tasks[0])->cr3 = (u32)directory[0];
  for (int i = 0; i < RESCUES; i++) {
    for (u32 *p = (u32 *)(rescue + i); p < (u32 *)&rescue[i].redirection; p++) *p = 0;
    struct tss *s = rescue + i;
    s->eip = (u32)rescue_stubs + 16 * i; s->eflags = 2; s->cs = CODE; s->ss = s->ds = s->es = DATA; s->esp = (u32)handler_top; s->cr3 = (u32)directory[0]; s->map = 104;
    table[(RESCUE >> 3) + i] = made((u32)s, 103, TSS32);
  }
  for (int v = 0; v < 32; v++) idt_set(v, CODE, (u32)gate_stubs + 16 * v, INT32 | (v == 3 || v == 4 || below(16) == 0 ? DPL3 : 0));
  for (int i = 0; i < RESCUES; i++) if (i < 2 || below(4) == 0) idt[rescued[i]] = gate(RESCUE + 8 * i, 0, TASK, 0);
  for (int v = FIRST; v < FIRST + VECTORS; v++) {
    static const u8 kinds[] = { 0xe, 0xf, 6, 7, 5, 5 };
    int kind = seldom() ? below(16) : kinds[below(6)];
    u32 to = place();
    if (plain && !(kind & 8)) to &= 0xffff;
    idt[v] = gate(kind == 5 ? below(4) ? (FREE + 1 + below(TASKS - 1)) * 8 : selector() : below(2) ? CODE : below(2) ? pairs[below(8)][0] & ~3 : selector(), to, (below(12) ? 0x80 : 0) | (below(3) ? DPL3 : below(4) << 5) | kind, seldom() ? below(256) : 0);
  }
  for (int d = 0; d < 2; d++) {
    for (int i = 0; i < 1024; i++) pages[d][i] = i << 12 | 7 * (i < AWAY >> 12);
    for (u32 p = STACKS >> 12; p < (STACKS >> 12) + 4; p++) if (paging && seldom()) pages[d][p] = (p << 12) | below(8);
    if (paging && seldom()) pages[d][AREA >> 12] &= ~below(8);
  }
  struct { u16 limit; u32 base; } __attribute__((packed)) g = { sizeof table - 1, (u32)table };
  asm volatile("lgdt %0; ltr %w1; lldt %w2" ::"m"(g), "r"(MAIN), "r"(below(2) ? LOCAL : 0));
}
static void fill(void) {
  for (u32 i = 0; i < STACK_WORDS; i++) ((volatile u32 *)STACKS)[i] = below(4) ? selector() : place();
  for (int i = 0; i < 64; i += 2) { u32 *a = (u32 *)AREA + i; a[0] = place(); a[1] = selector(); if (below(3) == 0) a[0] = (a[0] & 0xffff) | (u32)selector() << 16; }
  for (int i = 0; i < 128; i++) ((volatile u32 *)0)[i] = below(2) || i == 0x30 ? HALTS << 12 | below(0x1000) : CODE_AT << 12 | offset(0);
}
/* What IRET and far returns take, at the linear address `sp`. */
static void frame_at(u32 sp) {
  int size = below(3) == 0 ? 6 - wide : wide, far = below(3) == 0;
  const u16 *pair = pairs[below(8)];
  u32 values[9] = { place(), below(4) ? pair[0] : selector(), flags(), stack_place(), below(4) ? pair[1] : selector(), selector(), selector(), selector(), selector() };
  if (values[2] & VM) { values[0] = offset(0); values[1] = CODE_AT >> 4; values[3] = stack_offset(); values[4] = STACKS >> 4; }
  for (int i = 0; i < 9; i++) if (!(far && i == 2)) for (int n = 0; n < size; n++) ((u8 *)sp)[(far && i > 2 ? i - 1 : i) * size + n] = values[i] >> 8 * n;
}
/* Memory at [EBX + disp8] or [BX + disp8], 0 in virtual-8086 mode with DS at the area. */
static void memory(int reg) { byte(0x40 | reg << 3 | (wide == 4 ? 3 : 7)); byte(below(16) * 8); }
static void instruction(void) {
  static const u8 segments[] = { 0x26, 0x36, 0x3e, 0x64, 0x65, 0x2e };
  int prefix = below(5) == 0;
  int size = prefix ? 6 - wide : wide;
  switch (below(27)) {
    case 0: case 1: case 2: case 3: byte(0xcd); byte(below(10) ? FIRST + below(VECTORS) : below(32)); break;
    case 4: byte(below(2) ? 0xcc : below(2) || plain ? 0xce : 0xf1); break;
    case 5: case 6: if (prefix) byte(0x66); byte(0xff); memory(below(2) ? 5 : 3); break;
    case 7: case 8: case 9: { if (prefix) byte(0x66); byte(below(2) ? 0xea : 0x9a); int task = below(3) == 0; word(place(), size); word(task ? (FREE + 1 + below(TASKS - 1)) * 8 : selector(), 2); break; }
    case 10: if (prefix) byte(0x66); if (below(2)) byte(0xcb); else { byte(0xca); word(below(4) * 4, 2); } break;
    case 11: case 12: case 13: if (prefix) byte(0x66); byte(0xcf); break;
    case 14: case 15: { byte(0xb8); word(selector(), wide); byte(0x8e); static const u8 s[] = { 0, 2, 3, 4, 5, 2 }; byte(0xc0 | s[below(6)] << 3); break; }
    case 16: byte(0xb8); word(selector(), wide); B("\x0f\x00"); byte(0xc0 | (2 + below(2)) << 3); break;
    case 17: byte(0xb9); word(selector(), wide); if (below(2)) { byte(0x0f); byte(2 + below(2)); byte(0xc1); } else { B("\x0f\x00"); byte(0xc1 | (4 + below(2)) << 3); } break;
    case 18: { static const u8 pops[] = { 7, 0x17, 0x1f, 0xa1, 0xa9 }; if (below(2)) { byte(0x6a); byte(selector()); } int i = below(5); if (i > 2) byte(0x0f); byte(pops[i]); break; }
    case 19: { static const u8 l[] = { 0xc4, 0xc5, 0xb2, 0xb4, 0xb5 }; int i = below(5); if (prefix) byte(0x66); if (i > 1) byte(0x0f); byte(l[i]); memory(0); break; }
    case 20: { static const char *const m[] = { "\xfa\x90", "\xfb\x90", "\x9c\x9d", "\x50\x58", "\x66\x9c\x66\x9d", "\x0f\x06", "\x60\x61", "\x9c\x90", "\xc9\x90" }; int i = below(9); bytes(m[i], i == 4 ? 4 : 2); break; }
    case 21: { static const u8 ports[] = { 0xe6, 0xe7 }; if (prefix) byte(0x66); byte(ports[below(2)]); byte(0x80 + below(8)); break; }
    case 22: byte(segments[below(6)]); byte(below(2) ? 0x8b : 0x89); memory(below(2)); break;
    case 23: byte(0xc8); word(below(32), 2); byte(below(4)); break;
    case 24: byte(0x63); byte(0xc0 | below(8)); break;
    case 25: B("\xb8"); word(flags(), wide); B("\x50\x9d"); break;
    default: byte(segments[below(5)]); byte(0xff); memory(6); break;
  }
}
/* Digests of the parts tell where a difference lies: registers, frame, GDT, LDT, area, stacks, lowest page, TSSs. */
static u16 parts[7 + TASKS];
static void part(int n, const u32 *from, int words) {
  u64 all = digest;
  digest = 0;
  while (words--) mix(*from++);
  parts[n] = digest ^ digest >> 32;
  u64 own = digest;
  digest = all;
  mix(own);
}
static volatile u32 *const APIC = (u32 *)0xfee00000;
static void gate_case(void) {
  { u32 to = 0x1000, n = 0x4c00; asm volatile("rep stosl" : "+D"(to), "+c"(n) : "a"(0xcccccccc) : "memory"); }
  { u32 to = 0x200, n = 0x700; asm volatile("rep stosw" : "+D"(to), "+c"(n) : "a"(0x30cd) : "memory"); }
  { u32 to = CODE_AT, n = 0x800; asm volatile("rep stosw" : "+D"(to), "+c"(n) : "a"(0x30cd) : "memory"); }
  paging = below(2);
  WRCR(4, (RDCR(4) & ~3) | 0x10 | (plain ? 0 : below(4)));
  set_up();
  fill();
  for (u32 *p = (u32 *)&out; p < (u32 *)(&out + 1); p++) *p = 0;
  for (u32 *p = (u32 *)&in; p < (u32 *)(&in + 1); p++) *p = below(2) ? (u32)next() : place();
  const u16 *pair = pairs[below(8)];
  int v86 = below(4) == 0, same = !v86 && !(pair[0] & 3), small = (pair[1] & ~3) == (S16 & ~3) || (pair[1] & ~3) == (S16_3 & ~3);
  wide = v86 || (pair[0] & ~3) == (C16 & ~3) || (pair[0] & ~3) == (C16_3 & ~3) ? 2 : 4;
  in.ebp = STACKS + stack_offset(); in.ebx = v86 ? 0 : AREA; in.ecx = below(2) ? STACKS + stack_offset() : place(); in.edx = place();
  for (u32 *p = &in.gs; p <= &in.ds; p++) { static const u16 usual[] = { DATA, USER_DATA, 0, DATA, USER_DATA }; *p = usual[below(5)]; }
  in.eip = wide == 4 ? CODE_AT : 0; in.cs = v86 ? CODE_AT >> 4 : pair[0];
  in.eflags = (flags() & ~(TF | NT | VM)) | (v86 ? VM : 0);
  u32 sp = 0x1000 + below(600) * 4;
  in.esp = small || v86 ? sp : STACKS + sp; in.ss = v86 ? STACKS >> 4 : pair[1];
  in.ves = in.vds = AREA >> 4; in.vfs = selector(); in.vgs = AREA >> 4;
  frame_at(STACKS + sp);
  if (same) { u32 *f = (u32 *)(STACKS + sp - 12); f[0] = in.eip; f[1] = in.cs; f[2] = in.eflags; in_stack.esp = in.esp - 12; in_stack.ss = in.ss; }
  /* IRET to a 16-bit stack keeps the upper half of ESP, which is not to lead to this program's own data. */
  else { for (int i = 0; i < 9; i++) ((u32 *)FRAME)[i] = (&in.eip)[i]; in_stack.esp = FRAME; in_stack.ss = DATA; }
  at = (u8 *)CODE_AT;
  int count = 1 + below(4);
  for (int i = 0; i < count; i++) instruction();
  if ((u32)at & 1) byte(0x90);
  { u32 to = HALTS, n = 0x800; asm volatile("rep stosl" : "+D"(to), "+c"(n) : "a"(0xf4f4f4f4) : "memory"); }
  int raised = below(8) == 0 ? FIRST + below(VECTORS) : 0;
  if (raised) {
    APIC[0x300 / 4] = 0x40000 | raised;
    while (!(APIC[(0x200 + (raised >> 5) * 16) / 4] >> (raised & 31) & 1)) asm volatile("pause");
  }
  asm volatile("clts");
  WRDR(6, 0xffff0ff0); WRDR(7, 0x455);
  WRCR(3, directory[0]);
  if (paging) WRCR(0, (RDCR(0) & ~0x10000) | 0x80000000 | below(2) << 16);
  run_case();
  WRCR(0, RDCR(0) & ~0x80010000);
  WRDR(7, 0x400);
  
  mix(out.vector); mix(out.error); mix(out.vector == 14 ? out.cr2 : 0); mix(out.eip); mix(out.cs);
  u32 shown = (out.vector == 0x30 ? 0x3f7fd7 : 0x3f7702) & (plain ? ~(u32)RF : ~0u);
  mix(out.eflags & shown); mix(out.tr); mix(out.ldtr); mix(out.cr0 & 0x80010008); mix(out.cr3); mix(out.dr6 & 0xf00f); mix(out.dr7);
  part(0, (u32 *)&out, 13); part(1, &out.old_esp, 6);
  part(2, (u32 *)table, 2 * ENTRIES); part(3, (u32 *)local, 32); part(4, (void *)AREA, 64); part(5, (void *)STACKS, STACK_WORDS); part(6, (void *)0, 0x500);
  for (int i = 0; plain && i < TASKS; i++) if (big[i]) ((struct tss *)tasks[i])->eflags &= kept;
  for (int i = 0; i < TASKS; i++) part(7 + i, (u32 *)tasks[i], 64);
  APIC[0xb0 / 4] = 0;
  if (raised) {
    for (int v = FIRST; v < FIRST + VECTORS; v++) { extern u8 end_stub[]; idt_set(v, CODE, (u32)end_stub, INT32); }
    asm volatile("sti; nop; nop; cli");
  }
}
asm(".text; end_stub: movl $0, %ds:0xfee000b0; iret\n");

int main(void) {
  u64 seed = number("seed", 1), cases = number("cases", 2000);
  int each = has("each");
  plain = has("plain");
  if (plain) kept = ~(u32)(RF | VIF | VIP);
  idt_set(0x30, CODE, (u32)gate_stubs + 16 * 0x30, INT32 | DPL3);
  for (int d = 0; d < 2; d++) { for (int i = 0; i < 1024; i++) directory[d][i] = i << 22 | 0x87 * (i < 2); directory[d][0] = (u32)pages[d] | 7; }
  /* Nothing of the firmware's stays below 640 KiB: INT3 is there wherever code may run away to. */
  for (u32 *p = (u32 *)0x1000; p < (u32 *)0x9f000; p++) *p = 0xcccccccc;
  for (u32 *p = (u32 *)AWAY; p < (u32 *)(AWAY + 0x10000); p++) *p = 0xcccccccc;
  for (u32 *p = (u32 *)0x800000; p < (u32 *)0x4800000; p++) *p = 0xcccccccc;
  asm volatile("rdmsr; or $0x800, %%eax; wrmsr" ::"c"(0x1b) : "eax", "edx");
  APIC[0xf0 / 4] = 0x1ff;
  for (u64 i = 0; i < cases; i++) {
    seeded(seed + i);
    if (each) digest = 0;
    gate_case();
    if (each) {
      put("case %x: %x%x vector %x error %x cr2 %x cs:eip %x:%x flags %x ss:esp %x:%x old %x:%x tr %x ldtr %x ds %x es %x fs %x gs %x paging %d start %x:%x flags %x code", (u32)(seed + i), (u32)(digest >> 32), (u32)digest,
        out.vector, out.error, out.cr2, out.cs, out.eip, out.eflags, out.ss, out.esp, out.old_ss, out.old_esp, out.tr, out.ldtr, out.ds, out.es, out.fs, out.gs, paging, in.cs, in.eip, in.eflags);
      for (u8 *b = (u8 *)CODE_AT; b < at; b++) put(" %x", (u32)*b);
      put(" parts");
      for (int p = 0; p < 7 + TASKS; p++) put(" %x", (u32)parts[p]);
      put("\n");
    } else if ((u32)(i + 1) % 1000 == 0) put("to %x: %x%x\n", (u32)(seed + i), (u32)(digest >> 32), (u32)digest);
  }
  report(1, "%d cases from seed %x, digest %x%x", (int)cases, (u32)seed, (u32)(digest >> 32), (u32)digest);
  return done();
}
