// Calls, callbacks and indirect jumps.

#include "suite.h"
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

static int compare(const void *a, const void *b) {
  uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return x < y ? -1 : x > y;
}

static uint64_t sort(long n) {
  static uint32_t values[10000];
  uint32_t x = 99;
  uint64_t result = 0;
  for (; n > 0; n--) {
    for (size_t i = 0; i < 10000; i++) values[i] = next(&x);
    qsort(values, 10000, sizeof *values, compare);
    result = sum(result, values[n % 10000]);
  }
  return result;
}

static uint64_t strings(long n) {
  static char text[4096], upper[4096];
  uint32_t x = 3;
  for (size_t i = 0; i < sizeof text - 1; i++) text[i] = next(&x) % 6 ? 'a' + x % 23 : ' ';
  uint64_t result = 0;
  begin();
  for (; n > 0; n--) {
    size_t words = 0, longest = 0;
    for (char *p = text; *p;) {
      while (*p == ' ') p++;
      char *end = strchr(p, ' ');
      size_t length = end ? (size_t)(end - p) : strlen(p);
      words++;
      if (length > longest) longest = length;
      if (strncmp(p, "ab", 2) == 0) result++;
      p += length;
    }
    for (size_t i = 0; text[i]; i++) upper[i] = toupper((unsigned char)text[i]);
    strcpy(upper + 2000, text + 100);
    result = sum(result, words + longest + strlen(upper) + (strstr(text, "xyzzy") != 0) + (size_t)strcmp(text, upper) % 3);
    BARRIER();
  }
  return result;
}

static __attribute__((noinline)) uint32_t fib_of(uint32_t n) {
  HIDE(n);
  return n < 2 ? n : fib_of(n - 1) + fib_of(n - 2);
}
static uint64_t fib(long n) {
  uint64_t result = 0;
  for (; n > 0; n--) result = sum(result, fib_of(20));
  return result;
}

// A machine with registers; its program adds up the steps of the Collatz sequences from 1 to a limit.
enum op { SET, MOVE, ADD, MULTIPLY, SHIFT, MASK, IF_ZERO, IF_LESS, GOTO, HALT };
struct code {
  uint8_t op, a, b;
  int16_t value;
};

static __attribute__((noinline)) uint32_t interpret(const struct code *code, uint32_t limit) {
  uint32_t r[8] = {0};
  r[4] = limit;
  for (const struct code *at = code;; at++) {
    switch (at->op) {
    case SET: r[at->a] = (uint32_t)at->value; break;
    case MOVE: r[at->a] = r[at->b]; break;
    case ADD: r[at->a] = r[at->b] + (uint32_t)at->value; break;
    case MULTIPLY: r[at->a] = r[at->b] * (uint32_t)at->value; break;
    case SHIFT: r[at->a] = r[at->b] >> at->value; break;
    case MASK: r[at->a] = r[at->b] & (uint32_t)at->value; break;
    case IF_ZERO: if (r[at->a] == 0) at = code + at->value - 1; break;
    case IF_LESS: if (r[at->a] < r[at->b]) at = code + at->value - 1; break;
    case GOTO: at = code + at->value - 1; break;
    case HALT: return r[2];
    }
  }
}

static uint64_t interp(long n) {
  static const struct code code[] = {
      {SET, 0, 0, 1},      {SET, 3, 0, 2},       {MOVE, 1, 0, 0},      // number 0, two 3, value 1
      {IF_LESS, 1, 3, 10}, {MASK, 5, 1, 1},      {IF_ZERO, 5, 0, 13},  // 3: done when below 2
      {MULTIPLY, 1, 1, 3}, {ADD, 1, 1, 1},       {ADD, 2, 2, 1},       // 6: odd
      {GOTO, 0, 0, 3},     {ADD, 0, 0, 1},       {IF_LESS, 0, 4, 2},   // 9
      {HALT, 0, 0, 0},     {SHIFT, 1, 1, 1},     {ADD, 2, 2, 1},       // 12; 13: even
      {GOTO, 0, 0, 3},
  };
  uint64_t result = 0;
  for (; n > 0; n--) result = sum(result, interpret(code, 500));
  return result;
}

// Machine code that means the same in 32-bit and 64-bit mode: 64 pieces, each at the end of a page, with an instruction across it.
static uint64_t xpage(long n) {
  enum { PAGES = 64 };
  uint8_t *code = area((PAGES + 1) * 4096, 1), *to = code;
  // The argument: mov eax,edi or mov eax,[esp+4].
  static const uint8_t entry[] = {
#ifdef __x86_64__
      0x89, 0xf8,
#else
      0x8b, 0x44, 0x24, 0x04,
#endif
  };
  memcpy(to, entry, sizeof entry);
  to += sizeof entry;
  for (int page = 1; page <= PAGES; page++) {
    uint8_t *piece = code + page * 4096 - 3;
    // jmp piece; there: add eax,imm32 (5 bytes, 3 of them before the boundary); rol eax,5
    int32_t distance = (int32_t)(piece - (to + 5)), value = page * 0x01030507;
    *to = 0xe9;
    memcpy(to + 1, &distance, 4);
    *piece = 0x05;
    memcpy(piece + 1, &value, 4);
    memcpy(piece + 5, "\xc1\xc0\x05", 3);
    to = piece + 8;
  }
  *to = 0xc3;
  begin();
  uint32_t x = 1;
  for (n *= 100; n > 0; n--) x = ((uint32_t(*)(uint32_t))(void *)code)(x);
  return x;
}

const struct row call_rows[] = {
    {"qsort", "integer and branches", 50, sort},
    {"strings", "integer and branches", 15000, strings},
    {"fib", "calls and indirect jumps", 2600, fib},
    {"interp", "calls and indirect jumps", 180, interp},
    {"xpage", "calls and indirect jumps", 800, xpage},
    {0},
};
