/* Random numbers by seed, arguments of the command line, and a digest of what cases leave behind. */
#pragma once
static u64 state;
static u64 next(void) { state ^= state << 13; state ^= state >> 7; state ^= state << 17; return state * 0x2545f4914f6cdd1dul; }
static u32 below(u32 n) { return (u32)(next() >> 33) % n; }
static void seeded(u64 seed) { state = seed * 0x9e3779b97f4a7c15ul + 1; next(); next(); }
static u64 number(const char *name, u64 otherwise) {
  for (const char *s = command_line; *s; s++) {
    const char *a = s, *b = name;
    while (*b && *a == *b) a++, b++;
    if (*b || *a != '=') continue;
    u64 v = 0;
    for (a++; *a >= '0' && *a <= '9'; a++) v = v * 10 + *a - '0';
    return v;
  }
  return otherwise;
}
static u64 digest;
static void mix(u64 v) { digest = (digest ^ v) * 0x100000001b3ul; digest ^= digest >> 29; }

