// Code that changes: a constant that is patched again and again, and a small compiler whose code runs a few times.

#include "suite.h"
#include <string.h>

typedef uint32_t (*function)(uint32_t);

/** The argument into EAX: mov eax,edi or mov eax,[esp+4]. */
static uint8_t *argument(uint8_t *to) {
#ifdef __x86_64__
  memcpy(to, "\x89\xf8", 2);
  return to + 2;
#else
  memcpy(to, "\x8b\x44\x24\x04", 4);
  return to + 4;
#endif
}

static uint64_t smc_patch(long n) {
  uint8_t *code = area(4096, 1), *to = argument(code);
  // mov ecx,16; again: add eax,IMM; rol eax,3; dec ecx (as sub ecx,1); jnz again; ret
  memcpy(to, "\xb9\x10\0\0\0\x05\0\0\0\0\xc1\xc0\x03\x83\xe9\x01\x75\xf3\xc3", 19);
  uint8_t *constant = to + 6;
  uint32_t x = 1;
  for (n *= 100; n > 0; n--) {
    uint32_t value = (uint32_t)n * 77;
    memcpy(constant, &value, 4);
    BARRIER();
    x = ((function)(void *)code)(x);
  }
  return x;
}

static uint64_t jitgen(long n) {
  enum { BYTES = 1 << 18, FUNCTION = 256, CALLS = 20 };
  uint8_t *code = area(BYTES, 1);
  uint32_t x = 41, result = 1;
  size_t at = 0;
  for (; n > 0; n--, at = (at + FUNCTION) % BYTES) {
    uint8_t *to = argument(code + at);
    // Thirty operations: add, xor, sub with a constant, rol, imul.
    for (int i = 0; i < 30; i++) {
      uint32_t value = next(&x);
      switch (value % 5) {
      case 0: *to++ = 0x05; memcpy(to, &value, 4); to += 4; break;
      case 1: *to++ = 0x35; memcpy(to, &value, 4); to += 4; break;
      case 2: *to++ = 0x2d; memcpy(to, &value, 4); to += 4; break;
      case 3: memcpy(to, "\xc1\xc0\x07", 3); to += 3; break;
      case 4: memcpy(to, "\x69\xc0", 2); value |= 1; memcpy(to + 2, &value, 4); to += 6; break;
      }
    }
    *to = 0xc3;
    BARRIER();
    for (int i = 0; i < CALLS; i++) result = ((function)(void *)(code + at))(result);
  }
  return result;
}

const struct row code_rows[] = {
    {"smc_patch", "code that changes", 230, smc_patch},
    {"jitgen", "code that changes", 5500, jitgen},
    {0},
};
