/* Start of every test image: multiboot 1 header, long mode with 4 GiB mapped one to one, exception stubs, the way to CPL 3 and back,
   and the trampoline of the other vCPUs (Multiboot 0.6.96, section 3.1; Intel SDM volume 3, sections 10.4.4 and 11.8.5). */
  .section .head, "ax"
  .code32
  .align 4
  .long 0x1badb002, 0x00000003, -(0x1badb002 + 0x00000003)
  .globl _start
_start:
  cli
  mov %ebx, multiboot_info
  mov $stack_top, %esp
  mov $pml4, %edi
  movl $pdpt + 7, (%edi)
  mov $pdpt, %edi
  mov $pd + 7, %eax
  mov $4, %ecx
1: mov %eax, (%edi)
  add $0x1000, %eax
  add $8, %edi
  loop 1b
  mov $pd, %edi
  mov $0x87, %eax
  mov $2048, %ecx
1: mov %eax, (%edi)
  add $0x200000, %eax
  add $8, %edi
  loop 1b
enter_long:
  mov $1, %eax
  cpuid
  shr $15, %edx
  and $0x400, %edx /* SSE: OSXMMEXCPT */
  mov %cr4, %eax
  or $0x2b0, %eax /* PSE PAE PGE OSFXSR */
  or %edx, %eax
  mov %eax, %cr4
  mov $pml4, %eax
  mov %eax, %cr3
  mov $0xc0000080, %ecx
  rdmsr
  or $0x900, %eax
  wrmsr
  mov %cr0, %eax
  and $~6, %eax
  or $0x80010022, %eax
  mov %eax, %cr0
  lgdt gdt_pointer
  ljmp $0x08, $start64
  .code64
start64:
  mov $0x10, %eax
  mov %eax, %ds
  mov %eax, %es
  mov %eax, %ss
  xor %eax, %eax
  mov %eax, %fs
  mov %eax, %gs
  fninit
  lock incl started
  mov $1, %eax
  lock xadd %eax, next_cpu
  test %eax, %eax
  jz 1f
  imul $4096, %eax, %ecx
  lea ap_stacks(%rcx), %rsp
  mov %eax, %edi
  call ap_main
1: lea stack_top(%rip), %rsp
  mov multiboot_info, %edi
  call boot
2: hlt
  jmp 2b

/* Real-mode code that is copied to 0x8000 for the other vCPUs. */
  .globl trampoline, trampoline_end
  .code16
trampoline:
  cli
  xor %ax, %ax
  mov %ax, %ds
  lgdtl 0x8000 + (boot_pointer - trampoline)
  mov %cr0, %eax
  or $1, %eax
  mov %eax, %cr0
  ljmpl $0x18, $trampoline32
boot_pointer:
  .word 8 * 8 - 1
  .long gdt
trampoline_end:
  .code32
trampoline32:
  mov $0x20, %eax
  mov %eax, %ds
  mov %eax, %ss
  mov $trampoline_stack, %esp
  jmp enter_long

  .code64
/* Exception and interrupt stubs: 16 bytes each, vector on the stack above an error code. */
  .globl stubs
  .align 16
stubs:
  vector = 0
  .rept 256
  .align 16
  .if (vector == 8) || (vector >= 10 && vector <= 14) || (vector == 17) || (vector == 21)
  .else
  push $-1
  .endif
  push $vector
  jmp common
  vector = vector + 1
  .endr
common:
  cld
  push %rax; push %rcx; push %rdx; push %rbx; push %rbp; push %rsi; push %rdi
  push %r8; push %r9; push %r10; push %r11; push %r12; push %r13; push %r14; push %r15
  mov %rsp, %rdi
  mov %rsp, %rbx
  and $-16, %rsp
  call on_trap
  mov %rbx, %rsp
  pop %r15; pop %r14; pop %r13; pop %r12; pop %r11; pop %r10; pop %r9; pop %r8
  pop %rdi; pop %rsi; pop %rbp; pop %rbx; pop %rdx; pop %rcx; pop %rax
  add $16, %rsp
  iretq

/* void enter_user(void (*f)(void), void *stack, long flags): runs f at CPL 3 until it ends or faults. */
  .globl enter_user, leave_user
enter_user:
  push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15
  mov %rsp, saved_sp
  mov %rsp, tss + 4
  pushq $0x33
  sub $8, %rsi
  lea user_done(%rip), %rax
  mov %rax, (%rsi)
  push %rsi
  push %rdx
  pushq $0x3b
  push %rdi
  iretq
user_done:
  int $0x20
  ud2
leave_user:
  mov saved_sp, %rsp
  pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx
  ret

  .data
  .globl gdt, tss, gdt_pointer, multiboot_info, started, pml4, pdpt, pd
  .align 16
gdt: /* null, code 64, data, code 32, data 32, user code 32, user data, user code 64, TSS */
  .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00cf9b000000ffff
  .quad 0x00cf93000000ffff, 0x00cffb000000ffff, 0x00cff3000000ffff, 0x00affb000000ffff
  .quad 0, 0, 0, 0, 0, 0, 0, 0
gdt_pointer:
  .word 16 * 8 - 1
  .quad gdt
multiboot_info: .long 0
started: .long 0
next_cpu: .long 0
saved_sp: .quad 0
  .bss
  .align 4096
pml4: .skip 4096
pdpt: .skip 4096
pd: .skip 4 * 4096
tss: .skip 128
  .align 4096
  .skip 0x8000
stack_top:
ap_stacks: .skip 16 * 4096
  .skip 256
trampoline_stack:
  .section .note.GNU-stack, "", @progbits
