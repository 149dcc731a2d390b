// Instructions and their text: mode, bytes, what Capstone 4 says of them at 0x1000, as QEMU's monitor does. Chosen at random.

export const disassembled = `
16 00d3  addb %dl, %bl
32 66095e08  orw %bx, 8(%esi)
32 2aa3cc060782  subb -0x7df8f934(%ebx), %ah
16 f7ee  imulw %si
32 2f  das
32 2f  das
16 663f  aas
64 f30f38f618  adoxl (%rax), %ebx
64 6647c0870723ff9001  rolb $1, -0x6f00dcf9(%r15)
16 66c04a501f  rorb $0x1f, 0x50(%bp, %si)
32 6664d22b  shrb %cl, %fs:(%ebx)
32 c0fe00  sarb $0, %dh
32 0fa4b201837f8669  shldl $0x69, %esi, -0x79807cff(%edx)
64 0fbc33  bsfl (%rbx), %esi
32 0fbdd0  bsrl %eax, %edx
16 0fbdfc  bsrw %sp, %di
32 f30fbc5f52  tzcntl 0x52(%edi), %ebx
32 f30fbdc0  lzcntl %eax, %eax
32 f30fb8a7950a7e11  popcntl 0x117e0a95(%edi), %esp
32 0fb720  movzwl (%eax), %esp
64 0fbe726e  movsbl 0x6e(%rdx), %esi
64 4990  xchgq %r8, %rax
16 0fc0ee  xaddb %ch, %dh
64 2e0fb1fc  cmpxchgl %edi, %esp
32 8f4574  popl 0x74(%ebp)
32 61  popal
32 6661  popaw
64 0fca  bswapl %edx
64 45d7  xlatb
64 2ed7  xlatb
32 0f1db402002d070f  nopl 0xf072d00(%edx, %eax)
64 660f404502  cmovow 2(%rbp), %ax
64 490f42fe  cmovbq %r14, %rdi
32 640f42647f55  cmovbl %fs:0x55(%edi, %edi, 2), %esp
64 410f44b10bc194c5  cmovel -0x3a6b3ef5(%r9), %esi
32 0f48f5  cmovsl %ebp, %esi
16 2e0f924e02  setb %cs:2(%bp)
32 0f93c4  setae %ah
16 640f98820b01  sets %fs:0x10b(%bp, %si)
32 0f9b4124  setnp 0x24(%ecx)
64 4dff97e3cf0907  callq *0x709cfe3(%r15)
64 44700b  jo 0x100e
16 650f807fae  jo 0xbe84
64 4a0f8107690204  jno 0x402790e
64 447402  je 0x1005
64 644e0f862e30eeed  jbe 0xffffffffedee4036
64 66407b18  jnp 0x101c
16 7c05  jl 0x1007
16 2e7da2  jge 0xfa5
16 e202  loop 0x1004
32 e376  jecxz 0x1078
32 66a4  movsb (%esi), %es:(%edi)
64 f2ab  repne stosl %eax, (%rdi)
32 c5754f  ldsl 0x4f(%ebp), %esi
16 0fb2870374  lssw 0x7403(%bx), %ax
64 4a0fb4895af8a983  lfsq -0x7c5607a6(%rcx), %rcx
32 640f00814b0504ee  sldtw %fs:-0x11fbfab5(%ecx)
32 0f005c7a02  ltrw 2(%edx, %edi, 2)
64 4a0f0387c6fa6f48  lslq 0x486ffac6(%rdi), %rax
16 0f03fd  lslw %bp, %di
32 66cd91  int $0x91
32 66ce  into
64 f1  int1
32 624f01  bound 1(%edi), %ecx
64 4a9d  popfq
64 43fb  sti
64 2efc  cld
32 66650f014536  sgdtw %gs:0x36(%ebp)
64 650f31  rdtsc
64 654b0f01f8  swapgs
64 45e50b  inl $0xb, %eax
16 66e7b0  outl %eax, $0xb0
32 66f4  hlt
64 440fae3dcf6b0331  clflush 0x31036bcf(%rip)
32 660fae3d3d4b035c  clflushopt 0x5c034b3d
64 66430faeb50ba5aa07  clwb 0x7aaa50b(%r13)
64 420fc7f3  rdrandl %ebx
32 660fc7fd  rdseedw %bp
32 0f6f5c035b  movq 0x5b(%ebx, %eax), %mm3
64 0fe7540815  movntq %mm2, 0x15(%rax, %rcx)
32 0f10b2051e74d7  movups -0x288be1fb(%edx), %xmm6
32 660f1022  movupd (%edx), %xmm4
32 660f1392ba0bb36c  movlpd %xmm2, 0x6cb30bba(%edx)
64 2e0f16cc  movlhps %xmm4, %xmm1
32 660f50c1  movmskpd %xmm1, %eax
64 f3480fc2fa6f  cmpss $0x6f, %xmm2, %xmm7
64 f30fc2d703  cmpunordss %xmm7, %xmm2
64 66400f3a08fa0b  roundps $0xb, %xmm2, %xmm7
64 660f3a0bdfde  roundsd $0xde, %xmm7, %xmm3
64 f34a0f2c45dc  cvttss2si -0x24(%rbp), %rax
64 660f2c925d946cab  cvttpd2pi -0x54936ba3(%rdx), %mm2
32 660f5a32  cvtpd2ps (%edx), %xmm6
64 f20f5a4c8f94  cvtsd2ss -0x6c(%rdi, %rcx, 4), %xmm1
16 0f5c81be00  subps 0xbe(%bx, %di), %xmm0
64 410f5d7103  minps 3(%r9), %xmm6
64 660f5daca212010102  minpd 0x2010112(%rdx), %xmm5
32 2e0f5f642241  maxps %cs:0x41(%edx), %xmm4
32 f20f5fca  maxsd %xmm2, %xmm1
32 660f7c92e3350a02  haddpd 0x20a35e3(%edx), %xmm2
32 660f3a402b07  dpps $7, (%ebx), %xmm5
64 440fecf5  paddsb %mm5, %mm6
16 0fdca06c24  paddusb 0x246c(%bx, %si), %mm4
64 0fdd6672  paddusw 0x72(%rsi), %mm4
64 660fd95908  psubusw 8(%rcx), %xmm3
64 66440fe0bb03ccba3b  pavgb 0x3bbacc03(%rbx), %xmm15
32 660fda3dc1e9e359  pminub 0x59e3e9c1, %xmm7
64 0f74c4  pcmpeqb %mm4, %mm0
32 660f65882f510e02  pcmpgtw 0x20e512f(%eax), %xmm1
32 660fefb20707d000  pxor 0xd00707(%edx), %xmm6
64 660f3838821600ca00  pminsb 0xca0016(%rdx), %xmm0
32 660f383bc2  pminud %xmm2, %xmm0
64 0fdf5708  pandn 8(%rdi), %mm2
64 664e0fe405065708db  pmulhuw -0x24f7a8fa(%rip), %xmm8
64 66460f3802a675ce040a  phaddd 0xa04ce75(%rsi), %xmm12
32 660f381d4306  pabsw 6(%ebx), %xmm0
64 66420f72f3dc  pslld $0xdc, %xmm3
64 66440fd16205  psrlw 5(%rdx), %xmm12
32 660fd19f0b088d06  psrlw 0x68d080b(%edi), %xmm3
64 660fe29303d50306  psrad 0x603d503(%rbx), %xmm2
64 664a0f73f951  pslldq $0x51, %xmm1
64 66470f38176ee6  ptest -0x1a(%r14), %xmm13
64 660f6a23  punpckhdq (%rbx), %xmm4
32 0f14d5  unpcklps %xmm5, %xmm2
64 66420f70aa0137054de8  pshufd $0xe8, 0x4d053701(%rdx), %xmm5
16 0f70fe00  pshufw $0, %mm6, %mm7
32 660fc60e0b  shufpd $0xb, (%esi), %xmm1
16 650f3a0fee9b  palignr $0x9b, %mm6, %mm5
64 664e0f3a0d4b2afe  blendpd $0xfe, 0x2a(%rbx), %xmm9
32 660f3810718b  pblendvb -0x75(%ecx), %xmm6
32 660f3815a977065c06  blendvpd 0x65c0677(%ecx), %xmm5
32 640fc4220c  pinsrw $0xc, %fs:(%edx), %mm4
32 660f3a20e3b6  pinsrb $0xb6, %ebx, %xmm4
64 66460f3a17930842be0794  extractps $0x94, %xmm10, 0x7be4208(%rbx)
32 660f38218b2d4a0756  pmovsxbd 0x56074a2d(%ebx), %xmm1
32 660f3831f4  pmovzxbd %xmm4, %xmm6
64 c4e179f7f8  vmaskmovdqu %xmm0, %xmm7
32 c4e17b2dc7  vcvtsd2si %xmm7, %eax
16 c4e17b2dd9  vcvtsd2si %xmm1, %ebx
16 c4e17a5b44e9  vcvttps2dq -0x17(%si), %xmm0
32 c4e15e5abf99e70009  vcvtss2sd 0x900e799(%edi), %xmm4, %xmm7
32 c4e17858531d  vaddps 0x1d(%ebx), %xmm0, %xmm2
64 c4e17d585e98  vaddpd -0x68(%rsi), %ymm0, %ymm3
64 c4e154592b  vmulps (%rbx), %ymm5, %ymm5
16 c4e1455cdb  vsubpd %ymm3, %ymm7, %ymm3
64 c4e1795d6ea9  vminpd -0x57(%rsi), %xmm0, %xmm5
16 c4e14a516102  vsqrtss 2(%bx, %di), %xmm6, %xmm4
64 c4e17351b500d00781  vsqrtsd -0x7ef83000(%rbp), %xmm1, %xmm6
64 c4e17852da  vrsqrtps %xmm2, %xmm3
32 c4e15854786e  vandps 0x6e(%eax), %xmm4, %xmm7
64 c4e14d565e7f  vorpd 0x7f(%rsi), %ymm6, %ymm3
64 c4e15457be0008d8da  vxorps -0x2527f800(%rsi), %ymm5, %ymm7
16 c4e169fd8e05ed  vpaddw -0x12fb(%bp), %xmm2, %xmm1
64 c4e171d88b0b07c50b  vpsubusb 0xbc5070b(%rbx), %xmm1, %xmm1
64 c4e151deabd302c7b9  vpmaxub -0x4638fd2d(%rbx), %xmm5, %xmm5
16 c4e149ee6803  vpmaxsw 3(%bx, %si), %xmm6, %xmm5
16 c4e26538805976  vpminsb 0x7659(%bx, %si), %ymm3, %ymm0
64 c4e2413a07  vpminuw (%rdi), %xmm7, %xmm0
64 c4e255284d04  vpmuldq 4(%rbp), %ymm5, %ymm1
32 c4e175f63f  vpsadbw (%edi), %ymm1, %ymm7
64 c4e27101b056b90bed  vphaddw -0x12f446aa(%rax), %xmm1, %xmm6
16 c4e2610318  vphaddsw (%bx, %si), %xmm3, %xmm3
64 c4e24d079d03015b91  vphsubsw -0x6ea4fefd(%rbp), %ymm6, %ymm3
32 c4e249020c01  vphaddd (%ecx, %eax), %xmm6, %xmm1
64 c4e24506d5  vphsubd %ymm5, %ymm7, %ymm2
32 c4e24d085803  vpsignb 3(%eax), %ymm6, %ymm3
64 c4e16df191050735ba  vpsllw -0x45caf8fb(%rcx), %ymm2, %ymm2
64 c4e179f2a401c24e059a  vpslld -0x65fab13e(%rcx, %rax), %xmm0, %xmm4
32 c4e14dd170a9  vpsrlw -0x57(%eax), %ymm6, %ymm6
64 c4e14dd2c6  vpsrld %xmm6, %ymm6, %ymm0
64 c4e179d301  vpsrlq (%rcx), %xmm0, %xmm0
16 c4e1456c0d  vpunpcklqdq (%di), %ymm7, %ymm1
64 c4e1716dd7  vpunpckhqdq %xmm7, %xmm1, %xmm2
64 c4e15d14f1  vunpcklpd %ymm1, %ymm4, %ymm6
16 c4e14567a1fe0b  vpackuswb 0xbfe(%bx, %di), %ymm7, %ymm4
16 c4e1797098c30456  vpshufd $0x56, 0x4c3(%bx, %si), %xmm3
32 c4e36d0f96a003065201  vpalignr $1, 0x520603a0(%esi), %ymm2, %ymm2
32 c4e3790cbfefab06103c  vblendps $0x3c, 0x1006abef(%edi), %xmm0, %xmm7
32 c4e37d0d6004fb  vblendpd $0xfb, 4(%eax), %ymm0, %ymm4
64 c4e371208c0b60043ceedc  vpinsrb $0xdc, -0x11c3fba0(%rbx, %rcx), %xmm1, %xmm1
16 c4e3512299007fb3  vpinsrd $0xb3, 0x7f00(%bx, %di), %xmm5, %xmm3
64 c4e37914ad0448037905  vpextrb $5, %xmm5, 0x79034804(%rbp)
64 c4e37917b32b0305eb0a  vextractps $0xa, %xmm6, -0x14fafcd5(%rbx)
64 c4e27d212d31d95349  vpmovsxbd 0x4953d931(%rip), %ymm5
16 c4e27924b447af  vpmovsxwq -0x50b9(%si), %xmm6
64 c4e27925acd6550b740b  vpmovsxdq 0xb740b55(%rsi, %rdx, 8), %xmm5
64 c4e27d3286c6e60907  vpmovzxbq 0x709e6c6(%rsi), %ymm0
32 c4e37961ffa0  vpcmpestri $0xa0, %xmm7, %xmm7
32 c4e3f961680b02  vpcmpestri $2, 0xb(%eax), %xmm5
32 c4e279db1cd3  vaesimc (%ebx, %edx, 8), %xmm3
64 c4e379dfba06fa060a03  vaeskeygenassist $3, 0xa06fa06(%rdx), %xmm7
64 c4e16572f6f4  vpslld $0xf4, %ymm6, %ymm3
16 c4e17d28c1  vmovapd %ymm1, %ymm0
64 c4e150126704  vmovlps 4(%rdi), %xmm5, %xmm4
64 c4e14112346a  vmovlpd (%rdx, %rbp, 2), %xmm7, %xmm6
64 c4e1511693844a9d52  vmovhpd 0x529d4a84(%rbx), %xmm5, %xmm2
32 c4e17d50c9  vmovmskpd %ymm1, %ecx
32 c4e17950db  vmovmskpd %xmm3, %ebx
64 c4e27d184d04  vbroadcastss 4(%rbp), %ymm1
32 c4e35d0682330b098e17  vperm2f128 $0x17, -0x71f6f4cd(%edx), %ymm4, %ymm0
64 c4e37d04f582  vpermilps $0x82, %ymm5, %ymm6
32 c4e2412e460a  vmaskmovps %xmm0, %xmm7, 0xa(%esi)
64 c4e27d465c4470  vpsravd 0x70(%rsp, %rax, 2), %ymm0, %ymm3
16 c4e157c23d44  vcmpsd $0x44, (%di), %xmm5, %xmm7
32 0f38c81e  sha1nexte (%esi), %xmm3
64 400f38cabf08058205  sha1msg2 0x5820508(%rdi), %xmm7
32 c4e2499629  vfmaddsub132ps (%ecx), %xmm6, %xmm5
16 c4e2cd96ed  vfmaddsub132pd %ymm5, %ymm6, %ymm5
64 c4e2d9a6e7  vfmaddsub213pd %xmm7, %xmm4, %xmm4
32 c4e275b633  vfmaddsub231ps (%ebx), %ymm1, %ymm6
16 c4e2c1b64207  vfmaddsub231pd 7(%bp, %si), %xmm7, %xmm0
64 c4e2499709  vfmsubadd132ps (%rcx), %xmm6, %xmm1
32 c4e245b70a  vfmsubadd231ps (%edx), %ymm7, %ymm1
64 c4e2dda98953767702  vfmadd213sd 0x2777653(%rcx), %xmm4, %xmm1
64 c4e279b84f0b  vfmadd231ps 0xb(%rdi), %xmm0, %xmm1
16 c4e249b9acca9e  vfmadd231ss -0x6136(%si), %xmm6, %xmm5
32 c4e2ddab38  vfmsub213sd (%eax), %xmm4, %xmm7
64 c4e2699d5084  vfnmadd132ss -0x7c(%rax), %xmm2, %xmm2
32 c4e2f59d4fc6  vfnmadd132sd -0x3a(%edi), %xmm1, %xmm1
64 c4e265adfe  vfnmadd213ss %xmm6, %xmm3, %xmm7
16 c4e2e9adbeaaf0  vfnmadd213sd -0xf56(%bp), %xmm2, %xmm7
32 c4e2e1bd1b  vfnmadd231sd (%ebx), %xmm3, %xmm3
64 c4e268f3490d  blsrl 0xd(%rcx), %edx
64 c4e260f5e7  bzhil %ebx, %edi, %esp
32 64db81ec016515  fildl %fs:0x156501ec(%ecx)
64 64d9eb  fldpi
32 df1d82132ac5  fistps 0xc52a1382
32 66db95029703c7  fistl -0x38fc68fe(%ebp)
16 66db1f  fistpl (%bx)
64 66d9c8  fxch %st(0)
16 d8cc  fmul %st(4)
16 d8ce  fmul %st(6)
64 dec9  fmulp %st(1)
64 4dd8a6091d0003  fsubs 0x3001d09(%r14)
16 dce6  fsub %st(0), %st(6)
16 d8e8  fsubr %st(0)
64 4cdfed  fucomip %st(5)
16 dac2  fcmovb %st(2), %st(0)
64 6648d9f4  fxtract
64 d9fe  fsin
16 dda61802  frstor 0x218(%bp)
64 66dbe3  fninit
32 dbe3  fninit
64 4f0fae0c6e  fxrstor64 (%r14, %r13, 2)
32 0fc7a534252f6d  xsavec 0x6d2f2534(%ebp)
32 0fc79909a37705  xrstors 0x577a309(%ecx)
64 480fc79e00320508  xrstors64 0x8053200(%rsi)
`;
