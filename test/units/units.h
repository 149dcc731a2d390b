/* What the test images share: output, reports, exceptions that are expected, CPL 3, MSRs, the local APIC, other vCPUs. */
#pragma once
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;
#define NULL ((void *)0)

struct frame {
  u64 r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax;
  u64 vector, error, rip, cs, rflags, rsp, ss;
};
/* The last exception: vector -1 for none. */
extern struct trap { long vector; u64 error, rip, rflags, rsp, cr2; struct frame frame; } trap;
typedef void (*handler)(struct frame *);
extern handler handlers[256];
extern u64 recover_ip, recover_sp;
extern u64 pml4[512], pdpt[512], pd[2048], gdt[16];
extern u8 tss[128];
extern volatile u32 started;

void put(const char *format, ...);
void report(int pass, const char *format, ...);
void skip(const char *format, ...);
extern int failures;
int done(void);
void enter_user(void (*f)(void), void *stack, long flags);
/* Runs f at CPL 3 with these extra flags; gives the vector that ended it, 0x20 for none. */
long user(void (*f)(void), long flags);
void idt_set(int vector, void *at, int dpl, int ist);
int start_cpus(void);
void on_cpu(int cpu, void (*f)(void *), void *argument);
void on_cpu_wait(int cpu);
extern const char *command_line;
int has(const char *word);
int main(void);

/* Runs instructions; gives the vector of the exception that they raise, or -1. RAX and RCX are theirs; RDX holds `argument`. */
#define TRY(code, argument)                                                                                                     \
  ({                                                                                                                            \
    trap.vector = -1;                                                                                                           \
    u64 argument_ = (u64)(argument), gone_ = 0, gone2_ = 0;                                                                       \
    asm volatile("mov %%rsp, recover_sp\n lea 77f(%%rip), %%rax\n mov %%rax, recover_ip\n" code "\n77: movq $0, recover_ip\n"     \
                 : "+d"(argument_), "=&a"(gone_), "=&c"(gone2_)                                                                 \
                 :                                                                                                              \
                 : "memory", "cc", "rsi", "rdi", "r8", "r9", "r10", "r11");                                                     \
    trap.vector;                                                                                                                \
  })

static inline void outb(u16 port, u8 v) { asm volatile("outb %0, %1" ::"a"(v), "Nd"(port)); }
static inline void outl(u16 port, u32 v) { asm volatile("outl %0, %1" ::"a"(v), "Nd"(port)); }
static inline u8 inb(u16 port) { u8 v; asm volatile("inb %1, %0" : "=a"(v) : "Nd"(port)); return v; }
static inline u64 rdmsr(u32 n) { u32 a, d; asm volatile("rdmsr" : "=a"(a), "=d"(d) : "c"(n)); return a | (u64)d << 32; }
static inline void wrmsr(u32 n, u64 v) { asm volatile("wrmsr" ::"a"((u32)v), "d"((u32)(v >> 32)), "c"(n) : "memory"); }
static inline u64 rdtsc(void) { u32 a, d; asm volatile("rdtsc" : "=a"(a), "=d"(d)); return a | (u64)d << 32; }
/* The vector that a WRMSR or RDMSR raises, or -1. */
long try_wrmsr(u32 n, u64 v);
long try_rdmsr(u32 n, u64 *v);
struct regs { u32 a, b, c, d; };
static inline struct regs cpuid(u32 leaf, u32 sub) { struct regs r; asm volatile("cpuid" : "=a"(r.a), "=b"(r.b), "=c"(r.c), "=d"(r.d) : "a"(leaf), "c"(sub)); return r; }
#define RDCR(n) ({ u64 v_; asm volatile("mov %%cr" #n ", %0" : "=r"(v_)::"memory"); v_; })
#define WRCR(n, v) asm volatile("mov %0, %%cr" #n ::"r"((u64)(v)) : "memory")
#define RDDR(n) ({ u64 v_; asm volatile("mov %%dr" #n ", %0" : "=r"(v_)); v_; })
#define WRDR(n, v) asm volatile("mov %0, %%dr" #n ::"r"((u64)(v)) : "memory")
static inline void cli(void) { asm volatile("cli" ::: "memory"); }
static inline void sti(void) { asm volatile("sti; nop" ::: "memory"); }
static inline void pause_(void) { asm volatile("pause" ::: "memory"); }
static inline void invlpg(void *p) { asm volatile("invlpg (%0)" ::"r"(p) : "memory"); }
#define APIC ((volatile u32 *)0xfee00000)
static inline u32 apic_read(u32 at) { return APIC[at / 4]; }
static inline void apic_write(u32 at, u32 v) { APIC[at / 4] = v; }
