// Pointers and random access, in 16 KiB and in 64 MiB.

#include "suite.h"

/** A cycle through all of `count` places, as indices. */
static uint32_t *cycle(size_t count) {
  uint32_t *p = area(count * sizeof *p, 0), x = 23;
  for (size_t i = 0; i < count; i++) p[i] = (uint32_t)i;
  // Sattolo's shuffle.
  for (size_t i = count - 1; i > 0; i--) {
    size_t j = next(&x) % i;
    uint32_t t = p[i];
    p[i] = p[j], p[j] = t;
  }
  return p;
}

static uint64_t chase(uint32_t *p, long steps) {
  uint32_t at = 0;
  begin();
  for (; steps > 0; steps--) at = p[at];
  return at;
}
static uint64_t chase_small(long n) { return chase(cycle(4096), n * 1000); }
static uint64_t chase64m(long n) { return chase(cycle(16 << 20), n * 1000); }

static uint64_t rand64m(long n) {
  uint32_t *p = area(64 << 20, 0), x = 31;
  for (size_t i = 0; i < 16 << 20; i += 1024) p[i] = (uint32_t)i;
  begin();
  for (n *= 1000; n > 0; n--) {
    uint32_t r = next(&x);
    p[r & 0xffffff] += r;
  }
  uint64_t result = 0;
  for (size_t i = 0; i < 16 << 20; i += 4099) result = sum(result, p[i]);
  return result;
}

const struct row random_rows[] = {
    {"chase_small", "integer and branches", 72000, chase_small},
    {"chase64m", "64 MiB random access", 1200, chase64m},
    {"rand64m", "64 MiB random access", 1100, rand64m},
    {0},
};
