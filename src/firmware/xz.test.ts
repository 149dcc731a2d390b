import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decompressLzma } from './lzma.ts';
import { decompressXz } from './xz.ts';

const decode = (base64: string): Uint8Array => Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));

/** 900 bytes with many call opcodes, near and overlapping, and matches 40 bytes back; the vectors were made of them by xz 5.4.1. */
const sample = (): Uint8Array => {
  let seed = 12345;
  const next = (): number => (seed = (Math.imul(seed, 1103515245) + 12345) >>> 0) >>> 16;
  const bytes = new Uint8Array(900);
  for (let i = 0; i < bytes.length; i++) {
    const r = next() % 16;
    bytes[i] = r < 4 ? 0xe8 : r < 6 ? 0xe9 : r < 9 ? 0 : r < 11 ? 0xff : r < 13 && i > 40 ? bytes[i - 40]! : next() & 3;
  }
  return bytes;
};

/** `xz --check=crc32 --x86 --lzma2=preset=9e,pb=0,lc=3`: filters and checksum as Linux kernels have them. */
const xzX86 = decode(
  '/Td6WFoAAAFpIt42AgEEACEBHACHbtrl4AODAj8DAAA8QSjEVan6U7Yduv7WdlYaJfnxuk+tF83bJjXf+TPAcke51Q9iPdnEPdUStbI3+xzcqPtNitBXPmFctrbtvYMzDddPrDCaTFzUJ3OR8uZVQ9X0JO346VvRXY9EJN26z/M70GdNG3dfvl3Cj+9IBYJX0IMN84ZwFsejySq8IBraCv24edUqdkfNSO0chvjZm+jHPlxZm6cCuwxUzpnEUsTDkfBct/zqVCTvNFAv3rf/8vZhvaQMdScNNl4Qq6ZebW76xowPqbzU2IbPh1Qi2xB7PCeoUJvgbXPZ7faIb3RJr61qyELMELw6mGOYTZI+HWKox+fOE99ZSI9kHU2alawfkJfzBiBJQsUeWdml2OyhTS2hI51NZETPVMAEAyuykAcvSUcKJXPcEFTiDZ7RXsLEj+ztLmdTZGE/kV9j0scunoU71VkJErJlDxN9RLDG5yrORf4PC9ty8JEwL9onfwVuf3XkFimO3mr5J57bJaCr0rBIvg6yBNYi4SpWlieyNgyEMf18H2PzPx53RSOSOQ1ou9A4ssLu8iljS23UfDVG6TOcv+jCZH0hvi4oAwt2A0HzIJ9h00lDeyTG0d5K9EWhzVsAVhFi4SvuYDALXQStZACy43FuxP2Ihge8FK8LMdE63akbNoho8b9w2c/pGdU99aXpWCBGCfAXBIcgd1amHuXHGifEHyaExPJWVJwlRPqbhbt0tU0h5K4LueU5yPeaPWlSNTN0K+c9wVk7ZMiQTJObxr3tK4aT6JLQj7AAAAA1mOc6AAHXBIQHAABjaZpePjANiwIAAAAAAVla',
);
/** `xz --format=lzma -9e` */
const lzma = decode(
  'XQAAAAT//////////wAAOovzj5rZkfhSZxS00MSUJ6qSnhh1kmVo6GaHbNAPhBcJ7iDWQBi3KL7WROpfRrhT8GreA47bcQeXRw1zDOxmY7XViDG9pSyyZP1EAzH6y9uBl6KTx5z6JueBdsRCW6gVUhyZ6OgVbtPYNFgARzb+taAcTtsI3Na9otDfdWeW+16ufGvl0j6Wgkl3f2W9F0F69Y9z8G9pZ8kajg9JiXd2VbFyrfOcDSfHOBA0IbZXAwBR9fiojWt8vHfBGbqW3ftT4Bp6lcELrN5fjF7KZdaxrQZ0xUGorOxBsye9y4rISTPIFB3jIZ6FK+qt6Szt7Fm4iobnaW/6TgtmyaPhNxWlkpFUkunnZdibDNAhgolmR+4IspBhfu8HjfP8Joxw7XA+hz6wVaHx+U2sBEB+bozxTjZotrVx3wgFgT4EafZ3JmOY4WRw7rX3kzZah30h7lDkggEx3kez5mFNrEHLGr7uHTz1NVf/f8W1Ir6SJD4w22dRpvJIt+3qOK9rwbQtL+yxtxsHbfn6z+eJA85WycPyh0PHwuKx6blHsoDtczBM85vRNL8rvqQuRu3oPLJuL9mh6hixIUG/vdJV1qyEBbTQxQwlJRqXfcOW9DDu3IMH4KGdMcQcTPYH/5s7qmI=',
);
/** 40 random bytes, which xz stores as they are. */
const stored = decode(
  '/Td6WFoAAAFpIt42AgAhARYAAAB0L+WjAQAng9RV++2ikFGbXl4APOlCH0cuJ+1RXQ87HAKPuuPfTU1un23k9fUUbgDEua0EAAE8KC5kwGaQQpkNAQAAAAABWVo=',
);
const storedBytes = decode('g9RV++2ikFGbXl4APOlCH0cuJ+1RXQ87HAKPuuPfTU1un23k9fUUbg==');

test('xz data with the x86 filter and CRC32 gives back what was compressed', () => {
  assert.deepEqual(decompressXz(xzX86, 900), sample());
});

test('LZMA data gives back what was compressed', () => {
  assert.deepEqual(decompressLzma(lzma, 900), sample());
});

test('stored LZMA2 chunks are copied', () => {
  assert.deepEqual(decompressXz(stored, 40), storedBytes);
});

test('every flipped byte of an xz stream up to its index ends in an error or is noticed by the checksum', () => {
  for (let i = 0; i < xzX86.length - 40; i++) {
    const damaged = xzX86.slice();
    damaged[i]! ^= 0x55;
    assert.throws(() => decompressXz(damaged, 900), /^Error: Cannot decompress (xz|LZMA) data: /, `byte ${i}`);
  }
});

test('a truncated xz stream and a wrong size end in an error', () => {
  for (const length of [0, 5, 11, 13, 30, 100, xzX86.length - 40]) {
    assert.throws(() => decompressXz(xzX86.subarray(0, length), 900), /Cannot decompress/);
  }
  assert.throws(() => decompressXz(xzX86, 899), /Cannot decompress/);
  assert.throws(() => decompressXz(xzX86, 901), /900 bytes came out, 901 were announced/);
});

test('truncated LZMA data ends in an error', () => {
  for (let length = 0; length < lzma.length - 20; length += 7) {
    assert.throws(() => decompressLzma(lzma.subarray(0, length), 900), /Cannot decompress LZMA data/);
  }
});
