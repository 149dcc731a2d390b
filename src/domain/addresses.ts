// IP addresses as text and as numbers (RFC 791 section 3.2; RFC 4291 section 2.2).

/** The value of an address; IPv4 in 32 bits, IPv6 in 128. @throws Error when it is not one: test with `isIp`. */
export function ipNumber(text: string): bigint {
  const value = parseIp(text);
  if (value === undefined) throw new Error(`Cannot read an IP address: '${text}', accepted are IPv4 and IPv6 addresses`);
  return value;
}

export const isIp = (text: string): boolean => parseIp(text) !== undefined;

function parseIp(text: string): bigint | undefined {
  return text.includes(':') ? parseV6(text) : parseV4(text);
}

function parseV4(text: string): bigint | undefined {
  const parts = text.split('.');
  if (parts.length !== 4 || !parts.every((part) => /^\d{1,3}$/.test(part) && Number(part) < 256)) return undefined;
  return parts.reduce((sum, part) => sum * 256n + BigInt(part), 0n);
}

function parseV6(text: string): bigint | undefined {
  const halves = text.split('::');
  if (halves.length > 2) return undefined;
  const groups = halves.map(groupsOf);
  const [head, tail] = groups;
  if (!head || (halves.length === 2 && !tail)) return undefined;
  const missing = 8 - head.length - (tail?.length ?? 0);
  if (halves.length === 2 ? missing < 1 : missing !== 0) return undefined;
  const all = [...head, ...Array.from({ length: missing }, () => 0), ...(tail ?? [])];
  return all.reduce((sum, group) => sum * 65536n + BigInt(group), 0n);
}

/** The 16-bit groups of one side of `::`; the last may be an IPv4 address, which is two. */
function groupsOf(text: string): number[] | undefined {
  if (text === '') return [];
  const groups: number[] = [];
  for (const part of text.split(':')) {
    if (part.includes('.')) {
      const v4 = parseV4(part);
      if (v4 === undefined) return undefined;
      groups.push(Number(v4 >> 16n), Number(v4 & 0xffffn));
    } else if (/^[0-9a-f]{1,4}$/i.test(part)) groups.push(Number.parseInt(part, 16));
    else return undefined;
  }
  return groups;
}

/** The number of leading ones of an IPv4 netmask: `255.255.255.0` is 24. */
export function prefixOfMask(netmask: string): number {
  const bits = ipNumber(netmask).toString(2).padStart(32, '0');
  const zero = bits.indexOf('0');
  return zero === -1 ? 32 : zero;
}
