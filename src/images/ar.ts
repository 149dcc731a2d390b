// Reader of ar archives, the container of a Debian package: deb(5) "FORMAT", and the common ar format that it builds on.

/** One member of an ar archive. `data` is a view of the archive's own bytes. */
export type ArMember = { readonly name: string; readonly data: Uint8Array };

const MAGIC = '!<arch>\n';
const HEADER = 60;

/**
 * Members of an ar archive, in order.
 * @throws Error when the magic, a member header or a size does not hold, or when a member reaches past the end.
 */
export function readAr(bytes: Uint8Array): ArMember[] {
  const text = (from: number, to: number) => String.fromCharCode(...bytes.subarray(from, to));
  if (text(0, MAGIC.length) !== MAGIC)
    throw new Error('Cannot read ar archive: no "!<arch>" at its start, is this a Debian package?');
  const members: ArMember[] = [];
  // Members start at even offsets; the padding byte of the last one may be missing.
  for (let at = MAGIC.length; at < bytes.length; ) {
    if (at + HEADER > bytes.length || text(at + 58, at + HEADER) !== '`\n') {
      throw new Error(`Cannot read ar archive: no member header at offset ${at} of ${bytes.length}`);
    }
    const name = text(at, at + 16)
      .trimEnd()
      .replace(/\/$/, '');
    const digits = text(at + 48, at + 58).trimEnd();
    const size = Number(digits);
    if (!/^[0-9]+$/.test(digits) || at + HEADER + size > bytes.length) {
      throw new Error(
        `Cannot read ar archive: member "${name}" has size "${digits}", ${bytes.length - at - HEADER} bytes are left`,
      );
    }
    members.push({ name, data: bytes.subarray(at + HEADER, at + HEADER + size) });
    at += HEADER + size + (size & 1);
  }
  return members;
}
