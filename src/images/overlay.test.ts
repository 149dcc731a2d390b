import assert from 'node:assert/strict';
import { test } from 'node:test';
import { catalog, defaultImage, findImage } from './catalog.ts';
import { execOverlay, sessionOverlay } from './overlay.ts';

/** Archives are ASCII headers around contents, so contents can be looked for as text. */
const text = (bytes: Uint8Array) => Buffer.from(bytes).toString('latin1');

test('a session tells size, terminal and channels as shell variables', () => {
  const archive = text(
    sessionOverlay({
      rows: 24,
      cols: 80,
      term: 'xterm-256color',
      shares: [{ tag: 'work', path: '/mnt/work', readonly: true }],
      address: { address: '10.0.2.15/24' },
    }),
  );
  assert.ok(
    archive.includes(
      "rows='24'\ncols='80'\nterm='xterm-256color'\nshares='work:/mnt/work:ro'\naddress='10.0.2.15/24'\ncontrol='/dev/ttyS3'\n",
    ),
  );
  assert.ok(!archive.includes('.nonroot/exec'));
  assert.ok(!text(sessionOverlay({ control: false })).includes('control='));
});

test('a command is carried byte for byte, whatever quotes it has', () => {
  const command = Uint8Array.from({ length: 255 }, (_, index) => index + 1);
  const archive = execOverlay({ command, stdin: true });
  assert.equal(archive.length % 512, 0);
  assert.ok(text(archive).includes(text(command)));
  assert.ok(text(archive).includes("out='/dev/ttyS1'\nerr='/dev/ttyS2'\ncontrol='/dev/ttyS3'\nstdin='1'\n"));
  assert.throws(() => execOverlay({ command: 'a\0b' }), /NUL/);
});

test('what would break the shell variables is left out or refused', () => {
  const archive = text(sessionOverlay({ rows: 0, cols: 1e9, term: "x'; reboot" }));
  for (const name of ['rows=', 'cols=', 'term=']) assert.ok(!archive.includes(name));
  assert.throws(() => sessionOverlay({ shares: [{ tag: 'a b', path: '/mnt' }] }), /"a b" holds characters/);
  assert.throws(() => sessionOverlay({ address: { address: "1'2" } }), /Cannot configure guest/);
});

test('images are found by name, the default among them', () => {
  assert.equal(findImage('debian-cloud'), defaultImage);
  assert.equal(new Set(catalog.map((row) => row.name)).size, catalog.length);
  assert.throws(() => findImage('cp/m'), /accepted are debian-cloud, debian-amd64, debian-i386/);
});
