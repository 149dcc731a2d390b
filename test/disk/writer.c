// A guest's program that writes its disk until the power goes: random places, now and then discards and zeros, and a line for each fsync that
// has returned. What a seed does is repeated by test/disk/killed.ts, number by number.
// Usage: writer DEVICE NAME SEED [direct]

#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/fs.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { SECTOR = 512, SECTORS = 16384, MOST = 256 };

static uint32_t state;

/* Numbers below n (G. Marsaglia, "Xorshift RNGs", 2003). */
static uint32_t below(uint32_t n) {
  state ^= state << 13;
  state ^= state >> 17;
  state ^= state << 5;
  return (state >> 4) % n;
}

int main(int argc, char **argv) {
  if (argc < 4) return 2;
  int fd = open(argv[1], O_RDWR | (argc > 4 ? O_DIRECT : 0));
  uint32_t *data;
  if (fd < 0 || posix_memalign((void **)&data, 4096, MOST * SECTOR)) return printf("BAD %s\n", argv[1]), 1;
  state = (uint32_t)atol(argv[3]);
  for (uint32_t step = 1;; step++) {
    uint32_t count = 1 + below(below(4) == 0 ? MOST : 16);
    uint32_t first = below(SECTORS - count);
    uint32_t kind = below(16);
    uint32_t flush = below(4) == 0;
    uint64_t range[2] = {(uint64_t)first * SECTOR, (uint64_t)count * SECTOR};
    int bad;
    if (kind == 0) bad = ioctl(fd, BLKDISCARD, range);
    else if (kind == 1) bad = ioctl(fd, BLKZEROOUT, range);
    else {
      for (uint32_t n = 0; n < count; n++)
        for (uint32_t i = 0; i < SECTOR / 4; i++) data[n * SECTOR / 4 + i] = i & 1 ? first + n : step;
      bad = pwrite(fd, data, range[1], (off_t)range[0]) != (ssize_t)range[1];
    }
    if (bad || (flush && fsync(fd))) {
      printf("BAD %s %u\n", argv[2], step);
      perror(argv[1]);
      return 1;
    }
    if (!flush) continue;
    char line[64];
    int length = snprintf(line, sizeof line, "F %s %u\n", argv[2], step);
    if (write(1, line, (size_t)length) != length) return 1;
  }
}
