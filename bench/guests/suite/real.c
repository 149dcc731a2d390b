// Real programs: busybox's shell, gzip and awk.

#define _GNU_SOURCE
#include "suite.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define BUSYBOX "/bin/busybox"
#define TEXT "/tmp/suite.txt"
#define OUT "/tmp/suite.out"

/** Writes `bytes` of text: lines of words that repeat as in a language. */
static void text(long bytes) {
  FILE *f = fopen(TEXT, "w");
  uint32_t x = 77;
  char words[200][10];
  if (!f) fail(TEXT);
  for (int i = 0; i < 200; i++) {
    int length = 2 + next(&x) % 7;
    for (int k = 0; k < length; k++) words[i][k] = 'a' + next(&x) % 26;
    words[i][length] = 0;
  }
  for (long at = 0, column = 0; at < bytes;) {
    uint32_t r = next(&x) % 200;
    r = r * (next(&x) % 200) / 200;
    int n = fprintf(f, column++ % 11 == 10 ? "%s %u\n" : "%s ", words[r], r * 7);
    at += n;
  }
  fclose(f);
}

/** Runs a shell command with busybox; the checksum of what it wrote to OUT. */
static uint64_t shell(const char *command) {
  pid_t child = fork();
  if (child == 0) {
    execl(BUSYBOX, "busybox", "sh", "-c", command, (char *)0);
    _exit(127);
  }
  int status = 1;
  if (child < 0 || waitpid(child, &status, 0) != child || status) fail(command);
  uint64_t result = 0;
  uint8_t buffer[4096];
  int file = open(OUT, O_RDONLY);
  for (long n; (n = read(file, buffer, sizeof buffer)) > 0;)
    for (long i = 0; i < n; i++) result = sum(result, buffer[i]);
  close(file);
  return result;
}

static uint64_t ash(long n) {
  char command[512];
  snprintf(command, sizeof command,
           "i=0 s=0 t=; while [ $i -lt %ld ]; do case $i in *5) s=$((s + i * 3 %% 7));; *00) t=$t.;; *) s=$((s ^ i));; esac; "
           "i=$((i + 1)); done; echo $s $t >" OUT, n * 100);
  begin();
  return shell(command);
}
static uint64_t gzip(long n) {
  text(n * 10000);
  begin();
  return shell(BUSYBOX " gzip -c " TEXT " >" OUT);
}
static uint64_t gunzip(long n) {
  text(n * 10000);
  shell(BUSYBOX " gzip -c " TEXT " >/tmp/suite.gz && " BUSYBOX " rm " TEXT);
  begin();
  return shell(BUSYBOX " gunzip -c /tmp/suite.gz >" OUT);
}
static uint64_t awk(long n) {
  text(n * 10000);
  begin();
  return shell(BUSYBOX " awk '{ for (i = 1; i < NF; i++) count[$i]++; total += $NF } "
                       "END { for (w in count) if (count[w] > most) most = count[w]; print total, most, NR }' " TEXT " >" OUT);
}

const struct row real_rows[] = {
    {"ash", "real programs", 100, ash},
    {"gzip", "real programs", 175, gzip},
    {"gunzip", "real programs", 800, gunzip},
    {"awk", "real programs", 34, awk},
    {0},
};
