// A guest's program for vsock. `vsock c PORT`: connects to the host, sends its input, prints what comes back. `vsock s PORT`: answers each
// connection of the host with what it says in capitals.
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <linux/vm_sockets.h>
#include <unistd.h>

static void put(int fd, char *bytes, int n) {
  while (n > 0) {
    int m = write(fd, bytes, n);
    if (m <= 0) exit(3);
    bytes += m;
    n -= m;
  }
}

int main(int argc, char **argv) {
  char bytes[65536];
  int n, s = socket(AF_VSOCK, SOCK_STREAM, 0);
  struct sockaddr_vm at = {.svm_family = AF_VSOCK, .svm_port = argc > 2 ? atoi(argv[2]) : 0};
  if (argv[1][0] == 'c') {
    at.svm_cid = VMADDR_CID_HOST;
    if (connect(s, (void *)&at, sizeof at)) return perror("connect"), 1;
    if (fork() == 0) {
      while ((n = read(0, bytes, sizeof bytes)) > 0) put(s, bytes, n);
      shutdown(s, SHUT_WR);
      _exit(0);
    }
    while ((n = read(s, bytes, sizeof bytes)) > 0) put(1, bytes, n);
    return 0;
  }
  at.svm_cid = VMADDR_CID_ANY;
  if (bind(s, (void *)&at, sizeof at) || listen(s, 5)) return perror("listen"), 1;
  for (int f; (f = accept(s, 0, 0)) >= 0; close(f))
    while ((n = read(f, bytes, sizeof bytes)) > 0) {
      for (int i = 0; i < n; i++) bytes[i] = toupper(bytes[i]);
      put(f, bytes, n);
    }
  return 1;
}
