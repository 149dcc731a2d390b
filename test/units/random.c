/* Random cases in ring 0, by seed: code with what it leaves behind as a digest, page tables against a walk in C, MSRs. Command line: seed=N
   cases=N, one of code, pages and msr, `each` for one line per case, `plain` to leave out what the manuals leave undefined.
   Digests of the same command line have to be the same on every processor that behaves as the manuals say. */
#include "units.h"
#include "seeded.h"
#define WINDOW 0x8000000000ul
#define CODE 0x300000ul
#define PAGES 8
enum { P = 1, W = 2, U = 4, A = 0x20, D = 0x40, PS = 0x80 };
#define NX (1ul << 63)
static u64 edgy(void) {
  static const u64 edges[] = { 0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff, 0x7fffffffffffffff, 0x8000000000000000, -1ul, -2ul, 0x7fffffffff, 0x100000000 };
  u64 v = below(2) ? edges[below(sizeof edges / 8)] : next();
  if (below(3) == 0) v >>= below(64);
  /* Not where the image lies. */
  return v >= 0x200000 && v < 0x1000000 ? -v : v;
}
static u64 tables[3][512] __attribute__((aligned(4096)));
static u64 data[PAGES + 2][512] __attribute__((aligned(4096)));
static int plain;
/* Registers in the order of the frame, from R15 to RAX; RSP apart. */
u64 in[15], in_sp, in_flags, resume_sp;
static struct frame out;
static int caught;
static u64 out_cr2;
extern void run_case(void), after_case(void);
asm("run_case: push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15; mov %rsp, resume_sp\n"
    "lea in, %rsp; pop %r15; pop %r14; pop %r13; pop %r12; pop %r11; pop %r10; pop %r9; pop %r8; pop %rdi; pop %rsi; pop %rbp; pop %rbx; pop %rdx; pop %rcx; pop %rax\n"
    "mov resume_sp, %rsp; push in_flags; popfq; mov in_sp, %rsp; jmp 0x300000\n"
    "after_case: mov $0x10, %eax; mov %eax, %ds; mov %eax, %es; mov %eax, %ss; xor %eax, %eax; mov %eax, %fs; mov %eax, %gs\n"
    "cld; pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx; ret\n");
static void catch_it(struct frame *f) {
  out = *f; out_cr2 = RDCR(2); caught = 1;
  f->rip = (u64)after_case; f->rsp = resume_sp; f->cs = 8; f->ss = 0x10; f->rflags = 2;
}

static u8 *at;
static void byte(u8 v) { *at++ = v; }
static void bytes(const char *s, int n) { while (n--) byte(*s++); }
#define B(s) bytes(s, sizeof s - 1)
static void immediate(int n) { u64 v = edgy(); while (n--) { byte(v); v >>= 8; } }
/* ModRM with RBX, RSI or RDI as base and a small displacement, or a register. */
static void operand(int reg, int memory) {
  static const u8 bases[] = { 3, 6, 7, 3 };
  if (!memory) { byte(0xc0 | (reg & 7) << 3 | below(4)); return; }
  if (below(4) == 0) { byte(0x44 | (reg & 7) << 3); byte(bases[below(4)] | (below(3) == 0 ? 1 << 3 : 4 << 3)); byte(below(3) ? below(16) : next()); return; }
  byte(0x40 | (reg & 7) << 3 | bases[below(4)]); byte(below(3) ? below(32) : next());
}
static int low_register(void) { return below(4) == 0 ? 5 : below(4) == 3 ? 0 : below(3); }
static void segment_prefix(void) { if (below(12) == 0) byte(below(2) ? 0x64 : 0x65); }
static void instruction(void) {
  int memory = below(3) != 0, wide = below(3);
  segment_prefix();
  switch (below(plain ? 22 : 30)) {
    case 0: case 1: case 2: /* arithmetic */
      if (wide == 1) byte(0x66);
      if (wide == 2) byte(0x48);
      { int op = below(8); if (plain && (op == 1 || op == 4 || op == 6)) op = 0; byte(op << 3 | (below(2) ? 1 : 3)); }
      operand(low_register(), memory); break;
    case 3: case 4: if (wide == 1) byte(0x66); if (wide == 2) byte(0x48); byte(below(2) ? 0x89 : 0x8b); operand(low_register(), 1); break;
    case 5: byte(below(2) ? 0x88 : 0x8a); operand(below(4), 1); break;
    case 6: B("\x0f"); { static const u8 m[] = { 0xb6, 0xb7, 0xbe, 0xbf }; byte(m[below(4)]); } operand(low_register(), memory); break;
    case 7: if (wide == 2) byte(0x48); byte(0x8d); operand(low_register(), 1); break;
    case 8: byte(below(2) ? 0x50 | low_register() : 0x58 | low_register()); break;
    case 9: byte(0xff); operand(6, 1); break;
    case 10: byte(0x8f); operand(0, 1); break;
    case 11: { static const u8 s[] = { 0xa4, 0xa5, 0xaa, 0xab, 0xac, 0xad, 0xa6, 0xa7, 0xae, 0xaf }; if (below(3) == 0) { B("\xb9"); byte(below(24)); byte(0); byte(0); byte(0); byte(below(2) ? 0xf3 : 0xf2); } if (below(2)) byte(0x48); byte(s[below(10)]); break; }
    case 12: byte(below(2) ? 0xfc : 0xfd); break;
    case 13: byte(0x70 | (plain ? below(2) * 2 + below(2) : below(16))); byte(below(6)); break;
    case 14: if (below(2)) byte(0xf0); B("\x0f"); byte(below(2) ? 0xc1 : 0xb1); operand(low_register(), 1); break;
    case 15: if (wide == 2) byte(0x48); byte(0x87); operand(low_register(), memory); break;
    case 16: { static const char *m[] = { "\x0f\x28", "\x0f\x29", "\x0f\x10", "\x0f\x11", "\x66\x0f\x6f", "\xf3\x0f\x6f", "\x66\x0f\x7f", "\xf3\x0f\x7f" }; const char *s = m[below(8)]; while (*s) byte(*s++); } operand(below(8), 1); break;
    case 17: { static const u8 s[] = { 0x08, 0x10, 0x18, 0x20, 0x33, 0x3b, 0x30, 0, 3, 0x48, 0xff }; B("\xb8"); byte(s[below(plain ? 10 : 11)]); B("\0\0\0\x8e"); byte(0xc0 | (below(2) ? 0 : 3) << 3); break; }
    case 18: byte(0x8c); operand(below(6), memory); break;
    case 19: B("\x0f"); if (plain) { byte(0x0d); operand(1, 1); } else { byte(0xae); operand(7, 1); } break;
    case 20: { static const char *m[] = { "\x0f\x20\xc0", "\x0f\x20\xd0", "\x0f\x20\xe0", "\x44\x0f\x20\xc0", "\x0f\x06", "\x0f\x01\xcb", "\x0f\x01\xca", "\x90", "\xcc", "\xf4\xf4" }; int i = below(9); const char *s = m[i]; for (int n = i == 3 ? 4 : i == 4 ? 2 : i > 6 ? 1 : 3; n; n--) byte(*s++); break; }
    case 21: B("\x0f\x01"); operand(below(2) ? 7 : 4, 1); break;
    case 22: if (wide == 2) byte(0x48); byte(below(2) ? 0xc1 : 0xd3); operand(below(8), memory); if (at[-3] == 0xc1 || at[-2] == 0xc1 || at[-4] == 0xc1) byte(below(70)); break;
    case 23: if (wide == 2) byte(0x48); byte(0xf7); operand(2 + below(6), memory); break;
    case 24: B("\x0f"); { static const u8 m[] = { 0xa3, 0xab, 0xb3, 0xbb, 0xbc, 0xbd, 0xaf, 0xa5, 0xad }; byte(m[below(9)]); } operand(low_register(), memory); break;
    case 25: byte(below(2) ? 0x9c : 0x9f); break;
    case 26: B("\x0f"); byte(0x90 | below(16)); operand(0, memory); break;
    case 27: B("\x0f"); byte(0x40 | below(16)); operand(low_register(), memory); break;
    case 28: B("\xb8"); byte(below(10) * 8 | below(4)); B("\0\0\0\x0f"); byte(below(2) ? 2 : 3); operand(low_register(), 0); break;
    default: if (below(2)) { B("\x0f\x00"); operand(below(2) * 4 + below(2), memory); } else { B("\x0f\xc7"); operand(1, 1); } break;
  }
}
static void tables_for_code(void) {
  pml4[1] = (u64)tables[0] | P | W | U; tables[0][0] = (u64)tables[1] | P | W | U; tables[1][0] = (u64)tables[2] | P | W | U;
  for (int i = 0; i < PAGES; i++) {
    u64 flags = P | W | U;
    if (below(4) == 0) flags = below(8);
    if (below(8) == 0) flags |= NX;
    tables[2][i] = (u64)data[below(6) ? i : below(PAGES)] | flags;
  }
  WRCR(3, RDCR(3));
}
static void code_case(void) {
  { void *to = data; u64 n = sizeof data / 8; asm volatile("rep stosq" : "+D"(to), "+c"(n) : "a"(0) : "memory"); }
  asm volatile("pxor %%xmm0, %%xmm0; pxor %%xmm1, %%xmm1; pxor %%xmm2, %%xmm2; pxor %%xmm3, %%xmm3; pxor %%xmm4, %%xmm4; pxor %%xmm5, %%xmm5; pxor %%xmm6, %%xmm6; pxor %%xmm7, %%xmm7" ::);
  for (int i = 0; i < PAGES; i++) for (int n = 0; n < 512; n += 1 + below(64)) data[i][n] = edgy();
  tables_for_code();
  for (int i = 0; i < 15; i++) in[i] = edgy();
  /* RDI, RSI, RBX lie in the window, often near the end of a page. */
  for (int i = 8; i < 12; i++) if (i != 10) in[i] = WINDOW + (below(PAGES) + (below(3) == 0)) * 4096ul + (below(2) ? -below(24) : below(4096));
  in[13] &= 0xff;
  in_sp = WINDOW + below(PAGES) * 4096ul + 64 + (below(2) ? below(4000) : -8 * below(8));
  in_flags = 2 | (plain ? 0 : next() & 0x8d5);
  at = (u8 *)CODE;
  int count = 1 + below(12);
  for (int i = 0; i < count; i++) instruction();
  for (int i = 0; i < 8; i++) byte(0x90);
  B("\xcd\x30\x0f\x0b");
  caught = 0;
  /* SMEP and SMAP stay off: everything lies in user pages. */
  run_case();
  mix(out.vector); /* QEMU tells of the load where an operation that loads and stores faults. */
  mix(out.vector == 14 ? (out.error & (plain ? ~2ul : ~0ul)) | out_cr2 << 8 : out.error); mix(out.rip - CODE);
  
  /* Regions keep flags that are dead on the normal path stale in the frame of a fault. */
  mix(out.rflags & (plain || out.vector < 32 ? 0x40400 : 0x40cd5)); mix(out.rsp);
  for (int i = 0; i < 15; i++) mix(((u64 *)&out)[i]);
  for (int i = 0; i < PAGES; i++) { for (int n = 0; n < 512; n += 1) mix(data[i][n]); if (!plain) mix(tables[2][i]); }
}

/* Page tables. */
static u8 touch[16] __attribute__((aligned(16)));
static u64 wrong;
extern u8 probe_load[], probe_store[];
asm("probe_load: mov (%rdi), %al; ret; probe_store: movb $0xc3, (%rdi); ret\n");
static u64 target; static int kind;
static void in_user(void) {
  u64 t = target;
  if (kind == 0) asm volatile("mov (%0), %%al" ::"r"(t) : "eax", "memory");
  else if (kind == 1) asm volatile("movb $0xc3, (%0)" ::"r"(t) : "memory");
  else asm volatile("call *%0" ::"r"(t) : "memory");
}
static u64 random_entry(u64 to, int leaf) {
  u64 e = to | P | W | U | A;
  if (below(6) == 0) e &= ~(u64)P;
  if (below(3) == 0) e &= ~(u64)W;
  if (below(3) == 0) e &= ~(u64)U;
  if (below(2)) e &= ~(u64)A;
  if (below(4) == 0) e |= NX;
  if (leaf && below(2)) e |= D;
  if (below(8) == 0) e |= 1ul << (40 + below(12));
  if (below(8) == 0) e |= (u64)below(8) << 9 | (u64)below(128) << 52;
  if (below(6) == 0) e |= below(2) ? 8 : 0x10;
  if (leaf && below(6) == 0) e |= 0x100;
  return e;
}
static int has_pku, has_pks;
static void page_case(void) {
  int level = below(8) ? 0 : 1 + below(2), user_mode = below(2), ac = below(2), wp = below(2), smep = 0, smap = 0;
  kind = below(3);
  u64 physical = level ? 0x40000000ul * 0 + 0x800000 : (u64)data[0];
  u8 *page = (u8 *)physical; page[0] = 0xc3;
  u64 e[4];
  e[0] = random_entry((u64)tables[0], 0);
  e[1] = random_entry(level == 2 ? 0 : (u64)tables[1], level == 2);
  e[2] = random_entry(level == 1 ? 0x800000 : (u64)tables[2], level == 1);
  e[3] = random_entry(physical, 1);
  if (level == 2) { e[1] |= PS; if (below(8) == 0) e[1] |= 1ul << (13 + below(17)); }
  if (level == 1) { e[2] |= PS; if (below(8) == 0) e[2] |= 1ul << (13 + below(8)); }
  if (below(16) == 0) e[0] |= PS;
  u64 key = below(16);
  int last = 3 - level;
  if (below(2)) e[last] = (e[last] & ~(15ul << 59)) | key << 59;
  target = WINDOW + (level == 2 ? 0x800000 : 0);
  if (level == 2) page = (u8 *)0x800000, page[0] = 0xc3;
  u32 pkru = below(2) ? next() : 0, pkrs = below(2) ? next() & ~3u : 0;
  pml4[1] = e[0]; tables[0][0] = e[1]; tables[1][0] = e[2]; tables[1][4] = e[2]; tables[2][0] = e[3];
  /* What has to happen (SDM volume 3, 4.5 to 4.7). */
  u64 error = 0, rights = U | W; int fault = 0, nx = 0;
  for (int i = 0; i <= last && !fault; i++) {
    u64 bad = 0x000fff0000000000ul;
    if (i == 0) bad |= PS;
    if (i == last && i == 1) bad |= 0x3fffe000;
    if (i == last && i == 2) bad |= 0x1fe000;
    if (!(e[i] & P)) fault = 1;
    else if (e[i] & bad) { fault = 1; error = 9; }
    rights &= e[i]; nx |= e[i] >> 63;
  }
  if (!fault) {
    error = 1;
    int user_page = !!(rights & U);
    if (user_mode && !user_page) fault = 1;
    if (kind == 1 && !(rights & W) && (user_mode || wp)) fault = 1;
    if (kind == 2 && nx) fault = 1;
    u32 keys = user_page ? has_pku ? pkru : 0 : has_pks && !user_mode ? pkrs : 0;
    keys = keys >> 2 * (e[last] >> 59 & 15) & 3;
    if (kind != 2 && (keys & 1 || (keys & 2 && kind == 1 && (user_mode || wp)))) { fault = 1; error |= 0x20; }
  }
  error |= (kind == 1) << 1 | user_mode << 2 | (kind == 2) << 4;
  WRCR(0, wp ? RDCR(0) | 0x10000 : RDCR(0) & ~0x10000ul);
  if (has_pku) asm volatile(".byte 0x0f, 0x01, 0xef" ::"a"(pkru & ~3u), "c"(0), "d"(0));
  if (has_pku && (e[last] >> 59 & 15) == 0 && pkru & 3) { pkru &= ~3u; if (fault && error & 0x20) { WRCR(0, RDCR(0) | 0x10000); return; } }
  if (has_pks) wrmsr(0x6e1, pkrs);
  WRCR(3, RDCR(3));
  long v;
  if (user_mode) { v = user(in_user, 0); if (v == 0x20) v = -1; }
  else if (kind == 0) v = TRY("mov (%%rdx), %%al", target);
  else if (kind == 1) v = TRY("movb $0xc3, (%%rdx)", target);
  else v = TRY("call *%%rdx", target);
  WRCR(0, RDCR(0) | 0x10000);
  if (has_pku) asm volatile(".byte 0x0f, 0x01, 0xef" ::"a"(0), "c"(0), "d"(0));
  u64 now[4] = { pml4[1], tables[0][0], level == 2 ? e[2] : tables[1][level == 1 ? 0 : 0], tables[2][0] };
  int good = fault ? v == 14 && trap.error == error && trap.cr2 == target : v == -1;
  for (int i = 0; i <= last && !fault; i++) good &= now[i] == (e[i] | A | (i == last && kind == 1 ? D : 0));
  if (fault) good &= now[last] == e[last];
  if (!good && wrong++ < 5)
    put("  wrong: entries %x %x %x %x level %d kind %d user %d wp %d pkru %x pkrs %x: vector %d error %x, expected %d %x; now %x %x %x %x\n", e[0], e[1], e[2], e[3], level, kind, user_mode, wp, (u64)pkru, (u64)pkrs,
        (int)v, trap.error, fault, error, now[0], now[1], now[2], now[3]);
  mix(v); mix(v == 14 ? trap.error : 0); for (int i = 0; i < 4; i++) mix(now[i]);
}

/* MSRs: what one reads after a write. */
static void msr_case(void) {
  static const u32 list[] = { 0x174, 0x175, 0x176, 0x17b, 0x1a0, 0x1d9, 0x200, 0x201, 0x20f, 0x250, 0x26f, 0x277, 0x2ff, 0x400, 0x401, 0x402, 0x427, 0x428, 0x6e1, 0xda0, 0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084,
    0xc0000100, 0xc0000101, 0xc0000102, 0xc0000103, 0xc0010000, 0xc0010004, 0xc0010007, 0xc1, 0x186, 0x309, 0x38d, 0x38e, 0x390, 0x345, 0x4c1, 0x48, 0x49, 0x122, 0x3a, 0xe1, 0x9e, 0x8b, 0xfe, 0x179, 0x17a, 0xc0010015, 0xc0010055 };
  u32 n = below(8) ? list[below(sizeof list / 4)] : (u32)edgy();
  if (n == 0x10 || n == 0x1b || n == 0x3b || n == 0x6e0 || (n >= 0x800 && n < 0x900) || n == 0xc0000080 || (n >= 0x4b564d00 && n < 0x4b564e00)) return;
  u64 v = 0, old = 0, value = edgy();
  long first = try_rdmsr(n, &old), w = try_wrmsr(n, value), second = try_rdmsr(n, &v);
  if (first != second || (w == 13 && second == -1 && v != old)) wrong++;
  mix(n); mix(first); mix(w); mix(v);
  if (w == -1 && first == -1) try_wrmsr(n, old);
}

int main(void) {
  u64 seed = number("seed", 1), cases = number("cases", 2000);
  int each = has("each"), pages = has("pages"), msr = has("msr");
  plain = has("plain");
  has_pku = cpuid(7, 0).c >> 3 & 1; has_pks = cpuid(7, 0).c >> 31 & 1;
  if (pages) WRCR(4, RDCR(4) | (u64)has_pku << 22 | (u64)has_pks << 24);
  if (!pages && !msr) {
    extern u8 stubs[];
    /* INT n of any n: jumps into the middle of instructions find them (seed 9983000). */
    for (int i = 0; i < 256; i++) handlers[i] = catch_it;
    for (int i = 32; i < 256; i++) idt_set(i, stubs + 16 * i, 0, 1);
    state = seed * 0x9e3779b97f4a7c15ul + 1;
    tables_for_code();
    for (int i = 0; i < 2048; i++) if (i < 1 || i > 7) pd[i] = 0;
    WRCR(3, RDCR(3));
  }
  for (u64 i = 0; i < cases; i++) {
    seeded(seed + i);
    if (each) digest = 0;
    if (pages) page_case(); else if (msr) msr_case(); else code_case();
    if (each) {
      put("case %x: %x", seed + i, digest);
      if (!pages && !msr) { put(" vector %d error %x cr2 %x rip %x flags %x registers", (int)out.vector, out.error, out_cr2, out.rip, out.rflags); for (int k = 0; k < 15; k++) put(" %x", ((u64 *)&out)[k]); put(" %x code", out.rsp); for (u8 *s = (u8 *)CODE; s < at - 12; s++) put(" %x", (u64)*s); }
      put("\n");
    } else if ((i + 1) % 1000 == 0) put("to %x: %x\n", seed + i, digest);
  }
  report(!wrong, "%d cases from seed %x, digest %x", (int)cases, seed, digest);
  return done();
}
