// The counterpart of pio.ts in C: a guest that writes to a port in a loop, and a KVM_RUN loop that takes each write. Linux 6.1,
// Documentation/virt/kvm/api.rst. Prints nanoseconds per exit. Usage: pio EXITS

#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1e9 + t.tv_nsec;
}

static int check(int result, const char *what) {
  if (result >= 0) return result;
  perror(what);
  exit(1);
}

int main(int argc, char **argv) {
  uint32_t exits = argc > 1 ? atoi(argv[1]) : 20000;
  int kvm = check(open("/dev/kvm", O_RDWR), "/dev/kvm");
  int vm = check(ioctl(kvm, KVM_CREATE_VM, 0), "KVM_CREATE_VM");
  uint8_t *ram = mmap(0, 2 << 20, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  struct kvm_userspace_memory_region region = {.memory_size = 2 << 20, .userspace_addr = (uintptr_t)ram};
  check(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region), "KVM_SET_USER_MEMORY_REGION");
  // mov ecx,exits; L: out 0x80,al; dec ecx; jnz L; hlt
  uint8_t code[] = {0x66, 0xb9, 0, 0, 0, 0, 0xe6, 0x80, 0x66, 0x49, 0x75, 0xfa, 0xf4};
  memcpy(code + 2, &exits, 4);
  memcpy(ram + 0x1000, code, sizeof code);
  int vcpu = check(ioctl(vm, KVM_CREATE_VCPU, 0), "KVM_CREATE_VCPU");
  struct kvm_run *run = mmap(0, ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
  struct kvm_sregs sregs;
  check(ioctl(vcpu, KVM_GET_SREGS, &sregs), "KVM_GET_SREGS");
  sregs.cs.base = sregs.cs.selector = 0;
  check(ioctl(vcpu, KVM_SET_SREGS, &sregs), "KVM_SET_SREGS");
  struct kvm_regs regs = {.rip = 0x1000, .rflags = 2};
  check(ioctl(vcpu, KVM_SET_REGS, &regs), "KVM_SET_REGS");
  uint32_t seen = 0;
  double start = now();
  for (;;) {
    check(ioctl(vcpu, KVM_RUN, 0), "KVM_RUN");
    if (run->exit_reason == KVM_EXIT_HLT) break;
    if (run->exit_reason != KVM_EXIT_IO || run->io.port != 0x80) {
      fprintf(stderr, "exit %u\n", run->exit_reason);
      return 1;
    }
    seen += run->io.count;
  }
  double ns = (now() - start) / exits;
  if (seen != exits) {
    fprintf(stderr, "%u writes for %u\n", seen, exits);
    return 1;
  }
  printf("%.0f\n", ns);
  return 0;
}
