// Cases that once failed, or that pin an edge, with what a host's CPU did (an Intel server processor). They replay in every run,
// with or without a compiler. A line is made by `node tools/fuzz.ts --case '…'`.

/** Case, effects, and the arithmetic flags that are undefined after it: see case.ts for the words. */
export type Golden = readonly [text: string, effects: string, undefinedFlags?: number];

export const golden: readonly Golden[] = [
  ['mode=64 code=f30fb8c6 rax=5 flags=ad7', 'vector=3 rax=0 rip=10000005 flags=242'],
  ['mode=64 code=660f77', 'vector=6'],
  ['mode=32 code=f9d6 rax=1234', 'vector=3 rax=12ff rip=10000003 flags=203'],
  ['mode=32 code=61 rsp=0', 'vector=14 address=0 error=4'],
  ['mode=64 code=664b0f38f094fb0c2c0020', 'vector=3 rdx=b197136191caf105 rip=1000000c'],
  ['mode=64 code=66480f38f1923c1c0020 rdx=1122334455667788', 'vector=13'],
  ['mode=32 code=670fc035', 'vector=14 address=0 error=6'],
  ['mode=64 code=90 rax=123456789abcdef0', 'vector=3 rip=10000002'],
  ['mode=64 code=4190 rax=123456789abcdef0 r8=fedcba9876543210', 'vector=3 rax=76543210 r8=9abcdef0 rip=10000003'],
  ['mode=32 code=67632c', 'vector=14 address=0 error=4'],
  ['mode=32 code=a6 rdi=1f', 'vector=14 address=1f error=4'],
  ['mode=64 code=89d8 rax=ffffffffffffffff rbx=80000000', 'vector=3 rax=80000000 rip=10000003'],
  ['mode=64 code=48f7f1 rax=10 rcx=5 rdx=5', 'vector=0'],
  ['mode=64 code=48f7f1 rax=1234567890abcdef rcx=5 rdx=4', 'vector=3 rax=d070de181cef292f rip=10000004'],
  [
    'mode=64 code=f3a4 rcx=9 rsi=20000000 rdi=20000003',
    'vector=3 rcx=0 rsi=20000009 rdi=2000000c rip=10000003 m0=4e96364e96364e96 m8=3e4a78e9364e9636',
  ],
  [
    'mode=64 code=f3aa rax=77 rcx=20 rdi=20003ff0',
    'vector=14 address=20004000 error=7 rcx=10 rdi=20004000 m3ff0=7777777777777777 m3ff8=7777777777777777',
  ],
  ['mode=64 code=660f3a63c118 xmm0=41424344454647 xmm1=4243', 'vector=3 rip=10000007 flags=ac3'],
  [
    'mode=64 code=d9c9dec1 fcw=27f ftw=ff st0=3fff8000000000000001 st1=3ffe8000000000000000',
    'vector=3 rip=10000005 fsw=820 ftw=fe st0=3fffc000000000000000 st1=0 st7=3ffe8000000000000000',
  ],
  ['mode=64 code=f20f5ec1 xmm0=3ff0000000000000', 'vector=3 rip=10000005 mxcsr=1f84 xmm0=7ff0000000000000'],
  ['mode=64 code=f20f5ec1 mxcsr=1d80 xmm0=3ff0000000000000', 'vector=19 mxcsr=1d84'],
  [
    'mode=64 code=0f58c1 mxcsr=ffc0 xmm0=7fa00001ff800000007fffff3f800000 xmm1=3f8000007f8000000080000000000001',
    'vector=3 rip=10000004 mxcsr=ffc1 xmm0=7fe00001ffc00000008000003f800000',
  ],
  ['mode=64 code=48c1e0204811d8 rax=ffffffff rbx=1 flags=203', 'vector=3 rax=ffffffff00000001 rip=10000008 flags=282'],
  ['mode=64 code=c3 rsp=20000100 m100=10000040', 'vector=3 rsp=20000108 rip=10000041'],
  ['mode=64 code=4c0fc7 rbx=20000100', 'vector=6'],
  ['mode=64 code=f0480fc70b rax=1 rcx=3 rdx=2 rbx=20000120', 'vector=3 rax=354fa986ed6359f5 rdx=c8c644bbc0021f78 rip=10000006'],
  ['mode=64 code=f0480fc70b rbx=20000128', 'vector=13'],
];
