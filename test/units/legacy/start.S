/* Start of the 32-bit test images: multiboot 1 header, flat 32-bit protected mode without paging, exception stubs, ways into other modes, and
   what runs in real mode (Multiboot 0.6.96, section 3.1; Intel SDM volume 3, sections 9.9 and 20.2). */
  .section .head, "ax"
  .code32
  .align 4
  .long 0x1badb002, 0x00000003, -(0x1badb002 + 0x00000003)
  .globl _start
_start:
  cli
  mov %ebx, multiboot_info
  mov $stack_top, %esp
  lgdt gdt_pointer
  ljmp $0x08, $1f
1: mov $0x10, %eax
  mov %eax, %ds
  mov %eax, %es
  mov %eax, %ss
  mov %eax, %fs
  mov %eax, %gs
  mov %cr0, %eax
  and $~6, %eax
  or $0x22, %eax
  mov %eax, %cr0
  mov %cr4, %eax
  or $0x600, %eax
  mov %eax, %cr4
  fninit
  call boot
2: hlt
  jmp 2b

/* Exception stubs: 16 bytes each, vector on the stack above an error code. */
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
  pusha
  push %ds
  push %es
  mov $0x10, %eax
  mov %eax, %ds
  mov %eax, %es
  cld
  lea (%esp), %eax
  push %eax
  call on_trap
  add $4, %esp
  pop %es
  pop %ds
  popa
  add $8, %esp
  iret

/* Back into TRY or enter() from whatever faulted: flat segments, the flags of a start. */
  .globl recover
recover:
  mov $0x10, %eax
  mov %eax, %ds
  mov %eax, %es
  mov %eax, %fs
  mov %eax, %gs
  mov %eax, %ss
  mov recover_sp, %esp
  push $2
  popf
  jmp *recover_ip

/* void enter(const struct context *c): IRET into it, comes back by an exception. */
  .globl enter
enter:
  push %ebx; push %ebp; push %esi; push %edi
  mov 20(%esp), %ebp
  mov %esp, recover_sp
  mov %esp, tss + 4
  movl $1f, recover_ip
  pushl 68(%ebp); pushl 64(%ebp); pushl 60(%ebp); pushl 56(%ebp) /* GS FS DS ES */
  pushl 52(%ebp); pushl 48(%ebp); pushl 44(%ebp); pushl 40(%ebp); pushl 36(%ebp) /* SS ESP EFLAGS CS EIP */
  testl $0x20000, 44(%ebp)
  jnz 2f
  mov 68(%ebp), %gs
  mov 64(%ebp), %fs
  mov 56(%ebp), %es
  pushl 60(%ebp)
  mov 4(%ebp), %esi; mov 8(%ebp), %edi; mov 12(%ebp), %ebx; mov 16(%ebp), %edx; mov 20(%ebp), %ecx; mov 24(%ebp), %eax
  mov 0(%ebp), %ebp
  pop %ds
  iret
2: mov 4(%ebp), %esi; mov 8(%ebp), %edi; mov 12(%ebp), %ebx; mov 16(%ebp), %edx; mov 20(%ebp), %ecx; mov 24(%ebp), %eax
  mov 0(%ebp), %ebp
  iret
1: movl $0, recover_ip
  pop %edi; pop %esi; pop %ebp; pop %ebx
  ret

/* long real(u32 at): calls the 16-bit code at 0:at in real mode, with the vectors 0 to 31 caught. Gives the vector, or -1; what was in EAX
   is in real_eax, the flags in real_flags. */
  .globl real
real:
  push %ebx; push %ebp; push %esi; push %edi
  mov 20(%esp), %edi
  mov %esp, real_sp
  ljmp $0x50, $0x6000 + (to_real - low_start)
back32:
  mov $0x10, %eax
  mov %eax, %ds
  mov %eax, %es
  mov %eax, %fs
  mov %eax, %gs
  mov %eax, %ss
  mov real_sp, %esp
  lidt idt_pointer
  mov 0x6000 + (low_eax - low_start), %eax
  mov %eax, real_eax
  mov 0x6000 + (low_flags - low_start), %eax
  mov %eax, real_flags
  mov 0x6000 + (low_sp - low_start), %eax
  mov %eax, real_stack
  mov 0x6000 + (low_ip - low_start), %eax
  mov %eax, real_ip
  movswl 0x6000 + (low_vector - low_start), %eax
  pop %edi; pop %esi; pop %ebp; pop %ebx
  ret

/* Copied to 0x6000. */
  .globl low_start, low_end
  .code16
low_start:
to_real:
  mov $0x58, %ax
  mov %ax, %ds
  mov %ax, %es
  mov %ax, %fs
  mov %ax, %gs
  mov %ax, %ss
  mov %cr0, %eax
  and $~1, %al
  mov %eax, %cr0
  ljmp $0, $0x6000 + (in_real - low_start)
in_real:
  xor %ax, %ax
  mov %ax, %ds
  mov %ax, %es
  mov %ax, %fs
  mov %ax, %gs
  mov %ax, %ss
  mov $0x5ff0, %sp
  lidtl 0x6000 + (low_idt - low_start)
  movw $-1, 0x6000 + (low_vector - low_start)
  pushl $2
  popfl
  call *%di
real_done:
  mov %eax, %cs:(0x6000 + (low_eax - low_start))
  pushfl
  popl %cs:(0x6000 + (low_flags - low_start))
to_protected:
  cli
  xor %ax, %ax
  mov %ax, %ss
  mov $0x5ff0, %sp
  mov %ax, %ds
  lgdtl 0x6000 + (low_gdt - low_start)
  mov %cr0, %eax
  or $1, %al
  mov %eax, %cr0
  ljmpl $0x08, $back32
low_caught: /* FLAGS, CS, IP and the vector are on the stack */
  mov %eax, %cs:(0x6000 + (low_eax - low_start))
  mov %sp, %cs:(0x6000 + (low_sp - low_start))
  mov %sp, %bp
  mov (%bp), %ax
  mov %ax, %cs:(0x6000 + (low_vector - low_start))
  mov 2(%bp), %ax
  mov %ax, %cs:(0x6000 + (low_ip - low_start))
  movzwl 6(%bp), %eax
  mov %eax, %cs:(0x6000 + (low_flags - low_start))
  jmp to_protected
  .align 8
  .globl low_stubs
low_stubs:
  vector = 0
  .rept 33
  .align 8
  pushw $vector
  jmp low_caught
  vector = vector + 1
  .endr
low_vector: .long 0
low_eax: .long 0
low_flags: .long 0
low_sp: .long 0
low_ip: .long 0
low_idt: .word 0x3ff
  .long 0
low_gdt: .word 32 * 8 - 1
  .long gdt
low_end:

  .code32
  .data
  .globl gdt, tss, idt_pointer, gdt_pointer, recover_ip, recover_sp, real_eax, real_flags, real_stack, real_ip
  .align 16
gdt: /* null, code, data, user code, user data at 0x20, then free ones; 0x50 and 0x58 are those of real mode */
  .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00cffb000000ffff, 0x00cff3000000ffff
  .quad 0, 0, 0, 0, 0
  .quad 0x00009b000000ffff, 0x000093000000ffff
  .skip 20 * 8
gdt_pointer:
  .word 32 * 8 - 1
  .long gdt
idt_pointer:
  .word 256 * 8 - 1
  .long idt
  .globl multiboot_info
multiboot_info: .long 0
recover_ip: .long 0
recover_sp: .long 0
real_sp: .long 0
real_eax: .long 0
real_flags: .long 0
real_stack: .long 0
real_ip: .long 0
  .bss
  .align 4096
tss: .skip 104 + 32 + 8192 + 8
  .align 4096
  .skip 0x8000
stack_top:
  .section .note.GNU-stack, "", @progbits
