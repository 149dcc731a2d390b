import assert from 'node:assert/strict';
import { createHash, createHmac, pbkdf2Sync } from 'node:crypto';
import { test } from 'node:test';
import { base64 } from './base64.ts';
import { parseUsers, type ScramDerivation, scramFirst, scramLast, scramLine } from './scram.ts';
import { ScramClient } from './scram-testing.ts';

const crypto: ScramDerivation = {
  random: (n) => new Uint8Array(n).fill(7),
  sha256: (bytes) => new Uint8Array(createHash('sha256').update(bytes).digest()),
  hmac: (key, bytes) => new Uint8Array(createHmac('sha256', key).update(bytes).digest()),
  derive: async (password, salt, iterations) => new Uint8Array(pbkdf2Sync(password, salt, iterations, 32, 'sha256')),
};
const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

test("SCRAM's server takes the exchange of RFC 7677, section 3", async () => {
  const salt = new Uint8Array(Buffer.from('W22ZaJ0SNY7soEsUEjb6gQ==', 'base64'));
  const users = parseUsers(await scramLine({ ...crypto, random: () => salt }, 'user', 'pencil'));
  const begun = scramFirst(crypto, users, bytes('n,,n=user,r=rOprNGfwEbeRWgbNEkqO'))!;
  assert.equal(begun.serverFirst, `r=rOprNGfwEbeRWgbNEkqO${base64(crypto.random(18))},s=${base64(salt)},i=4096`);
  const nonce = 'rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0';
  const exchange = { ...begun, nonce, serverFirst: `r=${nonce},s=${base64(salt)},i=4096` };
  const final = `c=biws,r=${nonce},p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=`;
  assert.deepEqual(scramLast(crypto, exchange, bytes(final)), {
    name: 'user',
    signature: 'v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=',
  });
  // Another proof, another nonce, a header that was not the first message's, nothing at all.
  for (const other of [final.replace('p=dH', 'p=eH'), final.replace('k0,', 'k1,'), final.replace('biws', 'eSws'), ''])
    assert.equal(scramLast(crypto, exchange, bytes(other)), undefined, other);
});

test('a user who is not there is asked like one who is, and not let in', async () => {
  const users = parseUsers(await scramLine(crypto, 'fred', 'secret'));
  for (const [name, password, right] of [
    ['fred', 'secret', true],
    ['fred', 'wrong', false],
    ['george', 'secret', false],
  ] as const) {
    const client = new ScramClient(crypto, name, password, 'abc');
    const exchange = scramFirst(crypto, users, bytes(client.first))!;
    assert.match(exchange.serverFirst, /^r=abc[\w+/]+=*,s=[\w+/]{22}==,i=4096$/);
    const { message, expected } = await client.final(exchange.serverFirst);
    assert.deepEqual(scramLast(crypto, exchange, bytes(message)), right ? { name, signature: expected } : undefined);
  }
  assert.equal(scramFirst(crypto, users, bytes('p=tls-unique,,n=fred,r=abc')), undefined, 'channel binding');
});

test('the salt of a user who is not there is always the same, and not to be foreseen', () => {
  const asked = (crypto: ScramDerivation): string => scramFirst(crypto, new Map(), bytes('n,,n=george,r=abc'))!.serverFirst;
  const saltOf = (first: string): string => /,s=([^,]*)/.exec(first)![1]!;
  const other = { ...crypto, random: (n: number) => new Uint8Array(n).fill(8) };
  assert.equal(saltOf(asked(crypto)), saltOf(asked(crypto)));
  assert.notEqual(saltOf(asked(crypto)), saltOf(asked(other)));
});
