// Runs the programs that its arguments name (all without names), each in a process of its own, and prints a line for each:
// name, class, nanoseconds, checksum. Usage: suite SCALE [NAME...]

#define _GNU_SOURCE
#include "suite.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static struct timespec start;

void begin(void) { clock_gettime(CLOCK_MONOTONIC, &start); }

void fail(const char *what) {
  fprintf(stderr, "Cannot measure: %s\n", what);
  _exit(1);
}

void *area(size_t bytes, int code) {
  int protection = PROT_READ | PROT_WRITE | (code ? PROT_EXEC : 0);
  void *p = mmap(NULL, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) fail("no memory");
  return p;
}

static void measure(const struct row *row, double scale) {
  struct timespec end;
  long n = (long)(row->rounds * scale);
  alarm(120);
  begin();
  uint64_t result = row->run(n > 0 ? n : 1);
  clock_gettime(CLOCK_MONOTONIC, &end);
  long long ns = (end.tv_sec - start.tv_sec) * 1000000000ll + (end.tv_nsec - start.tv_nsec);
  printf("%s|%s|%lld|%016" PRIx64 "\n", row->name, row->class, ns, result);
}

int main(int argc, char **argv) {
  // The program that `forkexec` starts.
  if (argc == 2 && strcmp(argv[1], "true") == 0) return 0;
  const struct row *all[] = {integer_rows, call_rows, float_rows, bulk_rows, random_rows, kernel_rows, code_rows, real_rows};
  double scale = argc > 1 ? atof(argv[1]) : 1;
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    for (const struct row *row = all[i]; row->name; row++) {
      int wanted = argc <= 2;
      for (int a = 2; a < argc; a++) wanted |= strcmp(argv[a], row->name) == 0;
      if (!wanted) continue;
      fflush(stdout);
      pid_t child = fork();
      if (child == 0) {
        measure(row, scale);
        fflush(stdout);
        _exit(0);
      }
      int status;
      if (child < 0 || waitpid(child, &status, 0) < 0) fail("no process");
      if (status) printf("%s|%s|-1|0\n", row->name, row->class);
    }
  }
  return 0;
}
