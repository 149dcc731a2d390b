// Bulk memory: the C library's functions, string instructions, and a plain loop.

#include "suite.h"
#include <string.h>

static uint64_t check(const uint8_t *p, size_t bytes) {
  uint64_t result = 0;
  for (size_t i = 0; i < bytes; i += 509) result = sum(result, p[i]);
  return result;
}

static void fill(uint8_t *p, size_t bytes) {
  uint32_t x = 17;
  for (size_t i = 0; i + 4 <= bytes; i += 4) {
    uint32_t v = next(&x);
    memcpy(p + i, &v, 4);
  }
}

static uint64_t memcpy_small(long n) {
  static uint8_t from[4096], to[4096];
  uint32_t x = 1;
  fill(from, sizeof from);
  begin();
  for (n *= 1000; n > 0; n--) {
    uint32_t r = next(&x);
    size_t bytes = r & 63;
    HIDE(bytes);
    memcpy(to + (r >> 6 & 2047), from + (r >> 17 & 2047), bytes);
  }
  return check(to, sizeof to);
}

/** Copies 256 KiB blocks between two buffers that start `apart` bytes from each other. */
static uint64_t copy_blocks(long n, size_t apart) {
  enum { BLOCK = 256 << 10 };
  uint8_t *p = area(apart + 2 * BLOCK, 0);
  fill(p, BLOCK);
  memset(p + apart, 1, BLOCK);
  begin();
  for (; n > 0; n--) {
    p[n & 0xffff]++;
    memcpy(p + apart, p, BLOCK);
    BARRIER();
  }
  return check(p + apart, BLOCK);
}
static uint64_t memcpy_big(long n) { return copy_blocks(n, (1 << 20) + (68 << 10)); }
static uint64_t memcpy_alias(long n) { return copy_blocks(n, 8 << 20); }

static uint64_t memset_sizes(long n) {
  uint8_t *p = area(1 << 20, 0);
  uint32_t x = 1;
  memset(p, 1, 1 << 20);
  begin();
  for (; n > 0; n--) {
    for (size_t bytes = 256; bytes <= 1 << 16; bytes *= 2) {
      HIDE(bytes);
      memset(p + (next(&x) & 0x7ffff), (int)n, bytes);
    }
  }
  return check(p, 1 << 20);
}

static uint64_t repmovs(long n) {
  enum { MOST = 1 << 16 };
  uint8_t *p = area(6 * MOST, 0);
  fill(p, 2 * MOST);
  memset(p + 2 * MOST, 1, 4 * MOST);
  begin();
  for (; n > 0; n--) {
    for (size_t bytes = 64; bytes <= MOST; bytes *= 4) {
      void *to = p + 2 * MOST + (n & 0xff0), *from = p + (n * 16 & 0xff0);
      size_t count = bytes;
      __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count)::"memory");
      count = bytes / 4;
      __asm__ volatile("rep movsl" : "+D"(to), "+S"(from), "+c"(count)::"memory");
      count = bytes / 4;
      to = p;
      __asm__ volatile("rep stosl" : "+D"(to), "+c"(count) : "a"((int)n * 3) : "memory");
      // A search and a comparison that go on to the end.
      to = p + 2 * MOST;
      count = bytes;
      __asm__ volatile("repe cmpsb" : "+D"(to), "+S"(from), "+c"(count)::"memory", "cc");
      p[MOST]++;
    }
  }
  return check(p, 6 * MOST);
}

static __attribute__((noinline, optimize("no-tree-loop-distribute-patterns"))) void copy(uint32_t *to, const uint32_t *from, size_t words) {
  for (size_t i = 0; i < words; i++) {
    uint32_t v = from[i];
    HIDE(v);
    to[i] = v;
  }
}
static uint64_t copyloop(long n) {
  static uint32_t from[16384], to[16384];
  fill((uint8_t *)from, sizeof from);
  begin();
  for (; n > 0; n--) {
    from[n & 16383]++;
    copy(to, from, 16384);
  }
  return check((uint8_t *)to, sizeof to);
}

const struct row bulk_rows[] = {
    {"memcpy_small", "integer and branches", 11000, memcpy_small},
    {"memcpy_big", "bulk memory", 700, memcpy_big},
    {"memcpy_alias", "bulk memory", 100, memcpy_alias},
    {"memset", "bulk memory", 2100, memset_sizes},
    {"repmovs", "bulk memory", 1400, repmovs},
    {"copyloop", "integer and branches", 10500, copyloop},
    {0},
};
