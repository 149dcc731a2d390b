// What the guest programs of the benchmark share. Each is one function: it does `n` rounds of its work and gives a checksum of the result.

#include <stddef.h>
#include <stdint.h>

typedef uint64_t (*program)(long n);

/** A row of the suite: name, class, rounds that take QEMU's TCG about 0.3 s, and the function. */
struct row {
  const char *name, *class;
  long rounds;
  program run;
};

/** Says that the preparations are over: the time counts from here. */
void begin(void);
/** Memory of zeros for `bytes`, which may hold code too where `code`; ends the program where there is none. */
void *area(size_t bytes, int code);
/** Ends the program: it could not be measured. */
void fail(const char *what) __attribute__((noreturn));

/** A generator of pseudo-random numbers that is the same everywhere (xorshift). */
static inline uint32_t next(uint32_t *state) {
  uint32_t x = *state;
  x ^= x << 13;
  x ^= x >> 17;
  x ^= x << 5;
  return *state = x;
}
/** Adds bytes to a checksum (FNV-1a, a word at a time). */
static inline uint64_t sum(uint64_t old, uint64_t value) { return (old ^ value) * 0x100000001b3ull; }
/** Keeps the compiler from knowing a value. */
#define HIDE(x) __asm__ volatile("" : "+r"(x))
/** Keeps the compiler from knowing what memory holds. */
#define BARRIER() __asm__ volatile("" ::: "memory")

extern const struct row integer_rows[], call_rows[], float_rows[], bulk_rows[], random_rows[], kernel_rows[], code_rows[], real_rows[];
