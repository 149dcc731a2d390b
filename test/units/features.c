/* Instructions that the CPU model has, and those that it lacks: #UD (Intel SDM volume 2, "Exceptions" of each). */
#include "units.h"
static u8 room[4096] __attribute__((aligned(64)));
#define CHECK(leaf, register, bit, name, code)                                                                                   \
  do {                                                                                                                           \
    int has = cpuid(leaf, 0).register >> bit & 1;                                                                                \
    report((TRY(code, room) == 6) != has, "%s: %s", name, has ? "there" : "undefined");                                        \
  } while (0)
int main(void) {
  if (cpuid(1, 0).c >> 26 & 1) {
    WRCR(4, RDCR(4) | 1 << 18);
    asm volatile("xor %%ecx, %%ecx\n xgetbv\n or $3, %%eax\n xsetbv" ::: "eax", "ecx", "edx");
    if (cpuid(1, 0).c >> 28 & 1) asm volatile("xor %%ecx, %%ecx\n xgetbv\n or $7, %%eax\n xsetbv" ::: "eax", "ecx", "edx");
  } else report(TRY("xor %%ecx, %%ecx\n xgetbv", 0) == 6 && TRY("xor %%eax, %%eax\n xsave (%%rdx)", room) == 6, "no XSAVE: XGETBV and XSAVE are undefined");
  CHECK(1, c, 0, "SSE3", "haddps %%xmm0, %%xmm0");
  CHECK(1, c, 1, "PCLMULQDQ", "pclmulqdq $0, %%xmm0, %%xmm0");
  CHECK(1, c, 9, "SSSE3", "pshufb %%xmm0, %%xmm0");
  report((TRY("pshufb %%mm0, %%mm0\n emms", 0) == 6) != (cpuid(1, 0).c >> 9 & cpuid(1, 0).d >> 23 & 1), "PSHUFB of MMX");
  CHECK(1, c, 12, "FMA", "vfmadd132ps %%xmm0, %%xmm0, %%xmm0");
  CHECK(1, c, 13, "CMPXCHG16B", "mov %%rbx, %%r8\n mov %%rdx, %%rsi\n cmpxchg16b (%%rsi)\n mov %%r8, %%rbx");
  CHECK(1, c, 19, "SSE4.1", "pmulld %%xmm0, %%xmm0");
  CHECK(1, c, 19, "SSE4.1: PEXTRW to memory", "pextrw $0, %%xmm0, (%%rdx)");
  CHECK(1, c, 20, "SSE4.2", "pcmpgtq %%xmm0, %%xmm0");
  CHECK(1, c, 20, "CRC32", "crc32l %%eax, %%eax");
  CHECK(1, c, 22, "MOVBE", "movbe (%%rdx), %%eax");
  CHECK(1, c, 23, "POPCNT", "popcnt %%eax, %%eax");
  CHECK(1, c, 25, "AES", "aesenc %%xmm0, %%xmm0");
  CHECK(1, c, 28, "AVX", "vaddps %%xmm0, %%xmm0, %%xmm0");
  CHECK(1, c, 28, "AVX: VADDPS of 256 bits", "vaddps %%ymm0, %%ymm0, %%ymm0");
  CHECK(1, c, 28, "AVX: VPADDB", "vpaddb %%xmm0, %%xmm0, %%xmm0");
  CHECK(1, c, 28, "AVX: VPTEST of 256 bits", "vptest %%ymm0, %%ymm0");
  CHECK(1, c, 28, "AVX: VMOVDQA of 256 bits", "vmovdqa %%ymm0, %%ymm0");
  CHECK(1, c, 28, "AVX: VPERMILPS of 256 bits", "vpermilps $0, %%ymm0, %%ymm0");
  CHECK(1, c, 28, "AVX: VBROADCASTSS", "vbroadcastss (%%rdx), %%ymm0");
  CHECK(1, c, 29, "F16C", "vcvtph2ps %%xmm0, %%xmm0");
  CHECK(1, c, 30, "RDRAND", "rdrand %%eax");
  CHECK(1, d, 8, "CMPXCHG8B", "mov %%rbx, %%r8\n mov %%rdx, %%rsi\n cmpxchg8b (%%rsi)\n mov %%r8, %%rbx");
  CHECK(1, d, 15, "CMOV", "cmovc %%eax, %%eax");
  CHECK(1, d, 19, "CLFLUSH", "clflush (%%rdx)");
  CHECK(1, d, 15, "FCOMI", "fldz\n fcomi %%st(0), %%st\n fninit");
  CHECK(1, d, 23, "MMX: PADDB", "paddb %%mm0, %%mm0\n emms");
  CHECK(1, d, 23, "MMX: MOVD", "movd %%eax, %%mm0\n emms");
  CHECK(1, d, 23, "MMX: PSRLW", "psrlw $1, %%mm0\n emms");
  CHECK(1, d, 23, "MMX: EMMS", "emms");
  CHECK(1, d, 24, "FXSAVE", "fxsave (%%rdx)");
  CHECK(1, d, 25, "SSE: ADDPS", "addps %%xmm0, %%xmm0");
  CHECK(1, d, 25, "SSE: MOVSS", "movss (%%rdx), %%xmm0");
  CHECK(1, d, 25, "SSE: SHUFPS", "shufps $0, %%xmm0, %%xmm0");
  CHECK(1, d, 25, "SSE: CVTSI2SS", "cvtsi2ssl %%eax, %%xmm0");
  CHECK(1, d, 25, "SSE: UCOMISS", "ucomiss %%xmm0, %%xmm0");
  CHECK(1, d, 26, "SSE2: ADDPD", "addpd %%xmm0, %%xmm0");
  CHECK(1, d, 26, "SSE2: PADDB", "paddb %%xmm0, %%xmm0");
  CHECK(1, d, 26, "SSE2: MOVDQA", "movdqa (%%rdx), %%xmm0");
  CHECK(1, d, 26, "SSE2: MOVD", "movd %%eax, %%xmm0");
  CHECK(1, d, 26, "SSE2: CVTPS2PD", "cvtps2pd %%xmm0, %%xmm0");
  CHECK(1, d, 26, "SSE2: PSRLDQ", "psrldq $1, %%xmm0");
  int both = cpuid(1, 0).d >> 26 & cpuid(1, 0).d >> 23 & 1;
  report((TRY("paddq %%mm0, %%mm0\n emms", 0) == 6) != both, "SSE2: PADDQ of MMX: %s", both ? "there" : "undefined");
  report((TRY("pmuludq %%mm0, %%mm0\n emms", 0) == 6) != both, "SSE2: PMULUDQ of MMX: %s", both ? "there" : "undefined");
  CHECK(1, d, 25, "SFENCE", "sfence");
  CHECK(1, d, 26, "LFENCE", "lfence");
  CHECK(1, d, 26, "MFENCE", "mfence");
  CHECK(1, d, 26, "MOVNTI", "movnti %%eax, (%%rdx)");
  CHECK(7, b, 3, "BMI1", "andn %%eax, %%eax, %%eax");
  CHECK(7, b, 5, "AVX2", "vpbroadcastd %%xmm0, %%xmm0");
  CHECK(7, b, 5, "AVX2: VPADDB of 256 bits", "vpaddb %%ymm0, %%ymm0, %%ymm0");
  CHECK(7, b, 5, "AVX2: VPSRLDQ of 256 bits", "vpsrldq $1, %%ymm0, %%ymm0");
  CHECK(7, b, 5, "AVX2: VMPSADBW of 256 bits", "vmpsadbw $0, %%ymm0, %%ymm0, %%ymm0");
  CHECK(7, b, 5, "AVX2: VMOVNTDQA of 256 bits", "vmovntdqa (%%rdx), %%ymm0");
  CHECK(7, b, 5, "AVX2: VPMOVMSKB of 256 bits", "vpmovmskb %%ymm0, %%eax");
  CHECK(7, b, 5, "AVX2: VBROADCASTSS of a register", "vbroadcastss %%xmm0, %%ymm0");
  CHECK(7, b, 5, "AVX2: VBROADCASTSD of a register", "vbroadcastsd %%xmm0, %%ymm0");
  CHECK(7, b, 8, "BMI2", "pdep %%eax, %%eax, %%eax");
  CHECK(7, b, 18, "RDSEED", "rdseed %%eax");
  CHECK(7, b, 19, "ADX", "adox %%eax, %%eax");
  CHECK(7, b, 20, "SMAP", "clac");
  CHECK(7, b, 23, "CLFLUSHOPT", "clflushopt (%%rdx)");
  CHECK(7, b, 24, "CLWB", "clwb (%%rdx)");
  CHECK(7, b, 29, "SHA", "sha1nexte %%xmm0, %%xmm0");
  CHECK(7, c, 8, "GFNI", "gf2p8mulb %%xmm0, %%xmm0");
  CHECK(7, c, 9, "VAES", "vaesenc %%ymm0, %%ymm0, %%ymm0");
  CHECK(7, c, 10, "VPCLMULQDQ", "vpclmulqdq $0, %%ymm0, %%ymm0, %%ymm0");
  CHECK(7, c, 22, "RDPID", "rdpid %%rax");
  CHECK(0x80000001, c, 0, "LAHF in 64-bit code", "lahf");
  /* AMD's extension of MMX has them, too. */
  report((TRY("pavgb %%mm0, %%mm0\n emms", 0) == 6) != ((cpuid(1, 0).d >> 25 | cpuid(0x80000001, 0).d >> 22) & 1), "PAVGB of MMX");
  report((TRY("pextrw $0, %%mm0, %%eax\n emms", 0) == 6) != ((cpuid(1, 0).d >> 25 | cpuid(0x80000001, 0).d >> 22) & 1), "PEXTRW of MMX");
  CHECK(0x80000001, d, 27, "RDTSCP", "rdtscp");
  report(TRY(".byte 0x66, 0x0f, 0xae, 0xf8", 0) == 6, "PCOMMIT, which no model has: #UD");
  report(TRY(".byte 0x0f, 0x01, 0xfd", 0) == 6, "RDPRU: #UD");
  report(TRY(".byte 0xf3, 0x0f, 0xc7, 0xf0", 0) == 6 && TRY(".byte 0xf2, 0x0f, 0xc7, 0xf8", 0) == 6, "RDRAND and RDSEED behind F2 and F3: #UD");
  report(TRY(".byte 0xf2, 0x0f, 0x01, 0xca", 0) == 6 && TRY(".byte 0xf3, 0x0f, 0x01, 0xcb", 0) == 6 && TRY(".byte 0x66, 0x0f, 0x01, 0xca", 0) == 6, "CLAC and STAC behind a prefix: #UD");
  report(TRY("xor %%ecx, %%ecx\n .byte 0x66, 0x0f, 0x01, 0xd0", 0) == 6 && TRY("xor %%ecx, %%ecx\n .byte 0xf3, 0x0f, 0x01, 0xd0", 0) == 6, "XGETBV behind a prefix: #UD");
  /* Without their features LZCNT and TZCNT are BSR and BSF, which leave the destination of 0 alone. */
  u64 r = 7;
  asm volatile("lzcnt %1, %0" : "+r"(r) : "r"(1ul << 10));
  report(r == (cpuid(0x80000001, 0).c >> 5 & 1 ? 53 : 10), "LZCNT is %s (%d)", r == 53 ? "there" : "BSR", (int)r);
  asm volatile("tzcnt %1, %0" : "+r"(r) : "r"(0ul) : "cc");
  report((r == 64) == (cpuid(7, 0).b >> 3 & 1), "TZCNT is %s", r == 64 ? "there" : "BSF");
  return done();
}
