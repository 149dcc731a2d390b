// CRC-32 as Ethernet, gzip, xz and PNG have it (IEEE 802.3, section 3.2.9).

const crcTable = Uint32Array.from({ length: 256 }, (_, i) => {
  let crc = i;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0xedb8_8320 : crc >>> 1;
  return crc;
});

/** CRC-32 (IEEE 802.3) of bytes[from, to). */
export const crc32 = (bytes: Uint8Array, from = 0, to = bytes.length): number => {
  let crc = -1;
  for (let i = from; i < to; i++) crc = (crc >>> 8) ^ crcTable[(crc ^ bytes[i]!) & 0xff]!;
  return ~crc >>> 0;
};
