/* What the 32-bit test images share: output, reports, descriptors, exceptions that are expected, other modes. */
#pragma once
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

/* What is on the stack of an exception; ESP and what follows only where it came from CPL 3 or virtual-8086 mode. */
struct frame {
  u32 es, ds, edi, esi, ebp, esp_, ebx, edx, ecx, eax, vector, error, eip, cs, eflags, esp, ss, ves, vds, vfs, vgs;
};
/* The last exception: vector -1 for none. */
extern struct trap { int vector; u32 error, eip, cs, eflags, cr2; struct frame frame; } trap;
extern void (*handlers[256])(struct frame *);
extern u64 gdt[32], idt[256];
/* The TSS of 32 bits that is loaded, with the interrupt redirection map before the permission map of the ports. */
extern struct tss { u32 link, esp0, ss0, esp1, ss1, esp2, ss2, cr3, eip, eflags, eax, ecx, edx, ebx, esp, ebp, esi, edi, es, cs, ss, ds, fs, gs, ldt; u16 t, map; u8 redirection[32], ports[8192 + 8]; } tss;
extern u32 recover_ip, recover_sp, real_eax, real_flags, real_stack, real_ip;

/* What enter() starts with. */
struct context { u32 ebp, esi, edi, ebx, edx, ecx, eax, unused[2], eip, cs, eflags, esp, ss, es, ds, fs, gs; };
void enter(const struct context *c);
void recover(void);
/* Calls 16-bit code at 0:at in real mode; gives the vector that ended it, or -1. */
int real(u32 at);
/* Copies 16-bit code to 0x7000 and gives that. */
u32 put_code(const void *from, const void *to);

void put(const char *format, ...);
void report(int pass, const char *format, ...);
extern int failures;
int done(void);
extern const char *command_line;
int has(const char *word);
/* A descriptor: `kind` is access byte and flags as in bits 40 to 55 (P 0x80, DPL 0x60, S 0x10; G 0x8000, D 0x4000). */
void descriptor(int selector, u32 base, u32 limit, u32 kind);
/* A gate in the IDT, or (`gate`) anywhere. */
void idt_set(int vector, u32 selector, u32 offset, u32 kind);
u64 gate(u32 selector, u32 offset, u32 kind, u32 parameters);
extern u8 stubs[];
int main(void);

enum { CODE = 8, DATA = 0x10, USER_CODE = 0x1b, USER_DATA = 0x23, TSS = 0x28, A = 0x30, B = 0x38, C = 0x40, D = 0x48, CODE16 = 0x50, DATA16 = 0x58, E = 0x60, F = 0x68, G = 0x70, H = 0x78 };
enum { PRESENT = 0x80, READ = 0x90, WRITE = 0x92, DOWN = 0x96, EXECUTE = 0x98, CODE_READ = 0x9a, CONFORMING = 0x9e, LDT = 0x82, TSS16 = 0x81, TSS32 = 0x89, CALL16 = 0x84, TASK = 0x85, INT16 = 0x86, TRAP16 = 0x87, CALL32 = 0x8c, INT32 = 0x8e, TRAP32 = 0x8f };
enum { DPL3 = 0x60, GRANULAR = 0x8000, BIG = 0x4000 };

/* Runs instructions at CPL 0; gives the vector of the exception that they raise, or -1. EAX and ECX are theirs; EDX holds `argument`. */
#define TRY(code, argument)                                                                                                     \
  ({                                                                                                                            \
    trap.vector = -1;                                                                                                           \
    u32 argument_ = (u32)(argument), gone_ = 0, gone2_ = 0;                                                                      \
    asm volatile("push %%ebx\n push %%ebp\n mov %%esp, recover_sp\n movl $77f, recover_ip\n" code "\n jmp 77f\n 77: movl $0, recover_ip\n pop %%ebp\n pop %%ebx\n" \
                 : "+d"(argument_), "=&a"(gone_), "=&c"(gone2_)                                                                 \
                 :                                                                                                              \
                 : "memory", "cc", "esi", "edi");                                                                               \
    trap.vector;                                                                                                                \
  })
/* The same with 16-bit data segments of other modes put back. */
#define FLAT "mov $0x10, %%eax\n mov %%eax, %%ds\n mov %%eax, %%es\n mov %%eax, %%fs\n mov %%eax, %%gs\n"
#define RDCR(n) ({ u32 v_; asm volatile("mov %%cr" #n ", %0" : "=r"(v_)::"memory"); v_; })
#define WRCR(n, v) asm volatile("mov %0, %%cr" #n ::"r"((u32)(v)) : "memory")
#define RDDR(n) ({ u32 v_; asm volatile("mov %%dr" #n ", %0" : "=r"(v_)); v_; })
#define WRDR(n, v) asm volatile("mov %0, %%dr" #n ::"r"((u32)(v)) : "memory")
static inline void outb(u16 port, u8 v) { asm volatile("outb %0, %1" ::"a"(v), "Nd"(port)); }
static inline void outl(u16 port, u32 v) { asm volatile("outl %0, %1" ::"a"(v), "Nd"(port)); }
static inline u8 inb(u16 port) { u8 v; asm volatile("inb %1, %0" : "=a"(v) : "Nd"(port)); return v; }
static inline void invlpg(u32 p) { asm volatile("invlpg (%0)" ::"r"(p) : "memory"); }
