// Floating point and SIMD.

#include "suite.h"
#include <emmintrin.h>

static uint64_t bits(double x) {
  union {
    double d;
    uint64_t u;
  } v = {.d = x};
  return v.u;
}

#define SIZE 64
#define MATMUL(name, type)                                                                                                       \
  static uint64_t name(long n) {                                                                                                 \
    static type a[SIZE][SIZE], b[SIZE][SIZE], c[SIZE][SIZE];                                                                     \
    uint32_t x = 5;                                                                                                              \
    for (int i = 0; i < SIZE; i++)                                                                                               \
      for (int j = 0; j < SIZE; j++) a[i][j] = (type)(int32_t)next(&x) / 65536, b[i][j] = (type)(int32_t)next(&x) / 131072;      \
    begin();                                                                                                                     \
    for (; n > 0; n--) {                                                                                                         \
      for (int i = 0; i < SIZE; i++)                                                                                             \
        for (int j = 0; j < SIZE; j++) {                                                                                         \
          type s = 0;                                                                                                            \
          for (int k = 0; k < SIZE; k++) s += a[i][k] * b[k][j];                                                                 \
          c[i][j] = s;                                                                                                           \
        }                                                                                                                        \
      a[n % SIZE][0] += 1;                                                                                                       \
    }                                                                                                                            \
    uint64_t result = 0;                                                                                                         \
    for (int i = 0; i < SIZE; i++)                                                                                               \
      for (int j = 0; j < SIZE; j++) result = sum(result, bits((double)c[i][j]));                                                \
    return result;                                                                                                               \
  }
MATMUL(matmul_sse2, double)
MATMUL(matmul_x87, long double)

/** Blends two pictures with 8-bit channels, then a packed single and a packed double loop. */
static uint64_t simd(long n) {
  static uint8_t front[8192] __attribute__((aligned(16))), back[8192] __attribute__((aligned(16)));
  static float f[2048] __attribute__((aligned(16)));
  static double d[1024] __attribute__((aligned(16)));
  uint32_t x = 11;
  for (int i = 0; i < 8192; i++) front[i] = next(&x), back[i] = next(&x);
  for (int i = 0; i < 2048; i++) f[i] = (float)(next(&x) % 1000) / 8;
  for (int i = 0; i < 1024; i++) d[i] = (double)(next(&x) % 1000) / 8;
  begin();
  __m128i total = _mm_setzero_si128(), zero = _mm_setzero_si128();
  for (; n > 0; n--) {
    __m128i alpha = _mm_set1_epi16((short)(n & 255)), rest = _mm_set1_epi16((short)(255 - (n & 255)));
    for (int i = 0; i < 8192; i += 16) {
      __m128i p = _mm_load_si128((__m128i *)(front + i)), q = _mm_load_si128((__m128i *)(back + i));
      __m128i low = _mm_add_epi16(_mm_mullo_epi16(_mm_unpacklo_epi8(p, zero), alpha), _mm_mullo_epi16(_mm_unpacklo_epi8(q, zero), rest));
      __m128i high = _mm_add_epi16(_mm_mullo_epi16(_mm_unpackhi_epi8(p, zero), alpha), _mm_mullo_epi16(_mm_unpackhi_epi8(q, zero), rest));
      __m128i mixed = _mm_packus_epi16(_mm_srli_epi16(low, 8), _mm_srli_epi16(high, 8));
      total = _mm_add_epi64(total, _mm_sad_epu8(mixed, p));
      _mm_store_si128((__m128i *)(back + i), _mm_max_epu8(mixed, _mm_shuffle_epi32(q, 0x1b)));
    }
    __m128 half = _mm_set1_ps(0.5f), one = _mm_set1_ps(1);
    for (int i = 0; i < 2048; i += 4) _mm_store_ps(f + i, _mm_add_ps(_mm_mul_ps(_mm_load_ps(f + i), half), _mm_sqrt_ps(_mm_add_ps(_mm_load_ps(f + i), one))));
    __m128d third = _mm_set1_pd(1.0 / 3);
    for (int i = 0; i < 1024; i += 2) _mm_store_pd(d + i, _mm_sub_pd(_mm_load_pd(d + i), _mm_mul_pd(_mm_load_pd(d + i), third)));
  }
  uint64_t result = 0, parts[2];
  _mm_storeu_si128((__m128i *)parts, total);
  for (int i = 0; i < 2048; i++) result = sum(result, bits(f[i]));
  for (int i = 0; i < 1024; i++) result = sum(result, bits(d[i]));
  return sum(sum(result, parts[0]), parts[1]);
}

const struct row float_rows[] = {
    {"matmul_sse2", "floating point and SIMD", 150, matmul_sse2},
    {"matmul_x87", "floating point and SIMD", 20, matmul_x87},
    {"simd", "floating point and SIMD", 5000, simd},
    {0},
};
