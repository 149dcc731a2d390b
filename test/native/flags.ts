// Which arithmetic flags instructions leave undefined (Intel SDM volume 2, "Flags Affected" of each), define or read: what the
// comparison with the host leaves out, and which sequences it does not make.

export const CF = 1;
export const PF = 4;
export const AF = 0x10;
export const ZF = 0x40;
export const SF = 0x80;
export const OF = 0x800;
export const ALL = CF | PF | AF | ZF | SF | OF;

interface FlagUse {
  readonly defines: number;
  readonly undefined: number;
}

const uses: readonly [RegExp, FlagUse][] = [
  [/^(add|sub|adc|sbb|cmp|neg|xadd|cmpxchg|cmps[bv]|scas[bv])$/, { defines: ALL, undefined: 0 }],
  [/^(and|or|xor|test)$/, { defines: ALL & ~AF, undefined: AF }],
  [/^(inc|dec)$/, { defines: ALL & ~CF, undefined: 0 }],
  [/^i?mul$/, { defines: CF | OF, undefined: SF | ZF | AF | PF }],
  [/^i?div$/, { defines: 0, undefined: ALL }],
  [/^bs[fr]$/, { defines: ZF, undefined: ALL & ~ZF }],
  [/^bt[src]?$/, { defines: CF, undefined: OF | SF | AF | PF }],
  [/^aa[as]$/, { defines: AF | CF, undefined: OF | SF | ZF | PF }],
  [/^aa[md]$/, { defines: SF | ZF | PF, undefined: OF | AF | CF }],
  [/^da[as]$/, { defines: ALL & ~OF, undefined: OF }],
  [/^(andn|bls(i|r|msk)|bzhi)$/, { defines: ALL & ~(PF | AF), undefined: PF | AF }],
  [/^bextr$/, { defines: ALL & ~(PF | AF | SF), undefined: PF | AF | SF }],
  [/^[lt]zcnt$/, { defines: CF | ZF, undefined: OF | SF | PF | AF }],
  [/^(popcnt|v?u?comis[sd]|v?p?test(p[sd])?|v?pcmp[ei]str[im]|popf)$/, { defines: ALL, undefined: 0 }],
  [/^(fu?comip?)$/, { defines: CF | ZF | PF, undefined: 0 }],
  [/^sahf$/, { defines: ALL & ~OF, undefined: 0 }],
  [/^(clc|stc)$/, { defines: CF, undefined: 0 }],
  // A count of zero leaves everything as it was, so these define nothing.
  [/^(sh[lr]|sal|sar)$/, { defines: 0, undefined: AF | OF }],
  [/^sh[lr]d$/, { defines: 0, undefined: AF | OF }],
  [/^r(ol|or|cl|cr)$/, { defines: 0, undefined: OF }],
];
const none: FlagUse = { defines: 0, undefined: 0 };

const readers = /^(j(?!mp|cxz)|set|cmov|adc$|sbb$|rc[lr]$|pushf|lahf|loopn?z|cmc|aa[as]$|da[as]$|salc|fcmov|adcx|adox)/;

/** True where the instruction's effect depends on arithmetic flags. */
export const readsFlags = (mnemonic: string): boolean => readers.test(mnemonic);

/**
 * The flags that are undefined after an instruction, given those before it. `count` is the masked count of a shift or rotate where
 * it is an immediate or one, else undefined; `size` its operand size.
 */
export function undefinedAfter(before: number, mnemonic: string, size: number, count?: number): number {
  const use = uses.find(([pattern]) => pattern.test(mnemonic))?.[1] ?? none;
  let left = use.undefined;
  if (count === 1) left &= ~OF;
  if (count === 0) left = 0;
  if (/^(sh[lr]|sal)$/.test(mnemonic) && size < 32 && (count === undefined || count >= size)) left |= CF;
  return (before & ~use.defines) | left;
}
