// Integer arithmetic and branches.

#include "suite.h"
#include <string.h>

static uint64_t sieve(long n) {
  static uint8_t composite[1 << 18];
  uint64_t result = 0;
  for (; n > 0; n--) {
    memset(composite, 0, sizeof composite);
    uint32_t count = 0;
    for (uint32_t i = 2; i < sizeof composite; i++) {
      if (composite[i]) continue;
      count++;
      for (uint32_t j = 2 * i; j < sizeof composite; j += i) composite[j] = 1;
    }
    result = sum(result, count);
  }
  return result;
}

static uint64_t intmix(long n) {
  uint32_t a = 1, b = 2, c = 3, d = 4;
  for (n *= 1000; n > 0; n--) {
    a += b ^ (c >> 3);
    b = (b << 7 | b >> 25) + d;
    c ^= a * 5 + 1;
    if (c & 64) d -= a;
    else d += b & 0xff;
    if ((int32_t)a < (int32_t)b) c++;
    d ^= d >> 15;
  }
  return sum(sum(a, b), sum(c, d));
}

static uint64_t division(long n) {
  uint32_t x = 12345, acc = 0;
  uint64_t wide = 0x123456789abcdefull;
  int32_t s = -77777777;
  for (n *= 1000; n > 0; n--) {
    uint32_t d = (next(&x) & 0xffff) + 1;
    acc += 0xfedcba98u / d;
    acc ^= x % d;
    s += (int32_t)x / (int32_t)d;
    wide += wide % (d + 0x10000001ull);
  }
  return sum(acc + (uint32_t)s, wide);
}

static uint64_t int64(long n) {
  uint64_t a = 0x9e3779b97f4a7c15ull, b = 1, c = 2;
  for (n *= 1000; n > 0; n--) {
    a = a * 6364136223846793005ull + 1442695040888963407ull;
    b += a >> 17;
    c ^= b << 9 | b >> 55;
    if (c > a) c -= b;
    b ^= (int64_t)a >> 31;
  }
  return sum(sum(a, b), c);
}

static uint64_t crc32(long n) {
  static uint32_t table[256];
  static uint8_t data[65536];
  uint32_t x = 1;
  for (uint32_t i = 0; i < 256; i++) {
    uint32_t r = i;
    for (int k = 0; k < 8; k++) r = r >> 1 ^ (r & 1 ? 0xedb88320u : 0);
    table[i] = r;
  }
  for (size_t i = 0; i < sizeof data; i++) data[i] = next(&x);
  begin();
  uint32_t crc = ~0u;
  for (; n > 0; n--)
    for (size_t i = 0; i < sizeof data; i++) crc = table[(crc ^ data[i]) & 0xff] ^ crc >> 8;
  return ~crc;
}

static uint32_t sha_k[64];
static uint32_t rotate(uint32_t x, int by) { return x >> by | x << (32 - by); }

static void sha_block(uint32_t h[8], const uint8_t *p) {
  uint32_t w[64];
  for (int i = 0; i < 16; i++) w[i] = (uint32_t)p[4 * i] << 24 | p[4 * i + 1] << 16 | p[4 * i + 2] << 8 | p[4 * i + 3];
  for (int i = 16; i < 64; i++) {
    uint32_t s0 = rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ w[i - 15] >> 3;
    uint32_t s1 = rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ w[i - 2] >> 10;
    w[i] = w[i - 16] + s0 + w[i - 7] + s1;
  }
  uint32_t a = h[0], b = h[1], c = h[2], d = h[3], e = h[4], f = h[5], g = h[6], z = h[7];
  for (int i = 0; i < 64; i++) {
    uint32_t t1 = z + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) + ((e & f) ^ (~e & g)) + sha_k[i] + w[i];
    uint32_t t2 = (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
    z = g, g = f, f = e, e = d + t1, d = c, c = b, b = a, a = t1 + t2;
  }
  h[0] += a, h[1] += b, h[2] += c, h[3] += d, h[4] += e, h[5] += f, h[6] += g, h[7] += z;
}

static uint64_t sha256(long n) {
  static uint8_t data[16384];
  uint32_t x = 7, h[8];
  // The constants' values do not matter for time: any will do.
  for (int i = 0; i < 64; i++) sha_k[i] = next(&x);
  for (int i = 0; i < 8; i++) h[i] = next(&x);
  for (size_t i = 0; i < sizeof data; i++) data[i] = next(&x);
  begin();
  for (; n > 0; n--)
    for (size_t i = 0; i < sizeof data; i += 64) sha_block(h, data + i);
  uint64_t result = 0;
  for (int i = 0; i < 8; i++) result = sum(result, h[i]);
  return result;
}

const struct row integer_rows[] = {
    {"sieve", "integer and branches", 150, sieve},
    {"intmix", "integer and branches", 75000, intmix},
    {"div", "integer and branches", 30000, division},
    {"int64", "integer and branches", 140000, int64},
    {"crc32", "integer and branches", 900, crc32},
    {"sha256", "integer and branches", 1000, sha256},
    {0},
};
