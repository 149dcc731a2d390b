/* A ROM of 64 KiB: the boot CPU changes what INIT leaves alone and what it resets, sends itself an INIT, and tells what it finds behind it
   (Intel SDM volume 3, table 10-1 "IA-32 and Intel 64 Processor States Following Power-up, Reset, or INIT"). */
  .code16
  .org 0
start:
  mov %cr0, %eax
  mov %eax, 0x1010
  mov %edx, 0x1014
  mov %cr4, %eax
  mov %eax, 0x1018
  mov %cr2, %eax
  mov %eax, 0x101c
  mov %dr0, %eax
  mov %eax, 0x1020
  mov %dr7, %eax
  mov %eax, 0x1024
  pushfl
  pop %ax
  cs lgdtl gdt_pointer
  mov %cr0, %eax
  or $1, %eax
  mov %eax, %cr0
  ljmpl $8, $0xf0000 + flat

  .code32
flat:
  mov $16, %eax
  mov %eax, %ds
  mov %eax, %es
  mov %eax, %ss
  mov $0x8000, %esp
  mov %cr4, %eax
  or $0x200, %eax
  mov %eax, %cr4
  incl 0x1000
  cmpl $1, 0x1000
  jne again

  mov $0x175, %ecx
  mov $0x12345678, %eax
  xor %edx, %edx
  wrmsr
  mov $0x277, %ecx
  mov $0x00070106, %eax
  mov $0x00070105, %edx
  wrmsr
  mov $0xc0000080, %ecx
  mov $1, %eax
  xor %edx, %edx
  wrmsr
  mov $0xc0000081, %ecx
  mov $0x9abcdef0, %eax
  mov $0x00230010, %edx
  wrmsr
  mov $0x2ff, %ecx
  mov $0xc06, %eax
  xor %edx, %edx
  wrmsr
  mov $0x10, %ecx
  xor %eax, %eax
  mov $0x1000, %edx
  wrmsr
  fninit
  fld1
  fldpi
  pushl $0x37b
  fldcw (%esp)
  pushl $0x9f80
  ldmxcsr (%esp)
  mov $0x600df00d, %eax
  movd %eax, %xmm7
  mov $0x1111, %eax
  mov %eax, %dr0
  mov $0x2222, %eax
  mov %eax, %cr2
  mov %cr0, %eax
  and $~0x60000000, %eax
  mov %eax, %cr0
  movl $0x1ff, 0xfee000f0
  movl $0x20, 0xfee00080
  movl $0x01000000, 0xfee000d0
  movl $0, 0xfee00310
  movl $0x4500, 0xfee00300
1: jmp 1b

again:
  lea 0xf0000 + names, %esi
  mov 0x1010, %eax
  call show
  mov 0x1018, %eax
  call show
  mov 0x101c, %eax
  call show
  mov 0x1020, %eax
  call show
  mov 0x1024, %eax
  call show
  mov $0xc0000080, %ecx
  call msr
  mov $0x175, %ecx
  call msr
  mov $0x277, %ecx
  call msr
  mov $0xc0000081, %ecx
  call msr
  mov $0x2ff, %ecx
  call msr
  mov $0x10, %ecx
  rdmsr
  mov %edx, %eax
  call show
  mov $0x1b, %ecx
  call msr
  fnstcw 0x1030
  movzwl 0x1030, %eax
  call show
  fnstsw %ax
  movzwl %ax, %eax
  call show
  fstps 0x1030
  mov 0x1030, %eax
  call show
  stmxcsr 0x1030
  mov 0x1030, %eax
  call show
  movd %xmm7, %eax
  call show
  mov 0xfee000f0, %eax
  call show
  mov 0xfee00080, %eax
  call show
  mov 0xfee000d0, %eax
  call show
  mov $0, %al
  mov $0xf4, %edx
  out %al, %dx
1: hlt
  jmp 1b

msr:
  rdmsr
/* Prints the name at ESI and EAX. */
show:
  mov %eax, %ebx
  mov $0x3f8, %edx
1: lodsb
  test %al, %al
  jz 2f
  call put
  jmp 1b
2: mov $8, %ecx
3: rol $4, %ebx
  mov %bl, %al
  and $15, %al
  cmp $10, %al
  sbb $0x69, %al
  das
  call put
  loop 3b
  mov $10, %al
/* Prints AL, and waits until it has gone. */
put:
  out %al, %dx
  add $5, %edx
1: in %dx, %al
  test $0x40, %al
  jz 1b
  sub $5, %edx
  ret

names:
  .asciz "CR0=", "CR4=", "CR2=", "DR0=", "DR7=", "EFER=", "SYSENTER_ESP=", "PAT=", "STAR=", "MTRR=", "TSC=", "APIC_BASE="
  .asciz "FCW=", "FSW=", "ST0=", "MXCSR=", "XMM7=", "SVR=", "TPR=", "LDR="
  .align 8
gdt: .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdt_pointer:
  .word 23
  .long 0xf0000 + gdt
  .org 0xfff0
  .code16
  ljmp $0xf000, $start
  .org 0x10000
