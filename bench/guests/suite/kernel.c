// Kernel work: system calls, processes, pipes, page faults.

#define _GNU_SOURCE
#include "suite.h"
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static uint64_t syscalls(long n) {
  char buffer[64];
  int zero = open("/dev/zero", O_RDONLY);
  uint64_t result = 0;
  if (zero < 0) fail("/dev/zero");
  for (n *= 100; n > 0; n--) {
    result += syscall(SYS_getppid) > 0;
    result += (uint64_t)read(zero, buffer, sizeof buffer);
    result += syscall(SYS_getuid) == 0;
  }
  return result;
}

static uint64_t forkexec(long n) {
  uint64_t result = 0;
  for (; n > 0; n--) {
    pid_t child = fork();
    if (child == 0) {
      execl("/proc/self/exe", "suite", "true", (char *)0);
      _exit(1);
    }
    int status = 1;
    if (child < 0 || waitpid(child, &status, 0) != child || status) fail("fork and exec");
    result++;
  }
  return result;
}

static uint64_t pipes(long n) {
  int there[2], back[2];
  uint32_t value = 1;
  if (pipe(there) || pipe(back)) fail("pipe");
  pid_t child = fork();
  if (child == 0) {
    while (read(there[0], &value, sizeof value) == sizeof value) {
      value = value * 1664525 + 1013904223;
      if (write(back[1], &value, sizeof value) != sizeof value) break;
    }
    _exit(0);
  }
  begin();
  for (n *= 10; n > 0; n--) {
    if (write(there[1], &value, sizeof value) != sizeof value || read(back[0], &value, sizeof value) != sizeof value) fail("pipe");
  }
  close(there[1]);
  // The child holds the writing end, too.
  kill(child, 9);
  waitpid(child, 0, 0);
  return value;
}

static uint64_t pagefault(long n) {
  enum { BYTES = 2 << 20 };
  uint64_t result = 0;
  for (; n > 0; n--) {
    uint8_t *p = mmap(0, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) fail("mmap");
    madvise(p, BYTES, MADV_NOHUGEPAGE);
    for (size_t i = 0; i < BYTES; i += 4096) p[i] = 1;
    mprotect(p, BYTES / 2, PROT_READ);
    for (size_t i = 0; i < BYTES; i += 4096) result += p[i];
    munmap(p, BYTES);
  }
  return result;
}

const struct row kernel_rows[] = {
    {"syscall", "kernel work", 1600, syscalls},
    {"forkexec", "kernel work", 90, forkexec},
    {"pipe", "kernel work", 450, pipes},
    {"pagefault", "kernel work", 53, pagefault},
    {0},
};
