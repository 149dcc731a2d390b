// The page of `nonroot web` in a real Chromium, before a daemon of its own: list, wizard, console, display, snapshots, document.
import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { createQcow2 } from '../../src/disk/qcow2/create.ts';
import { connectDaemon } from '../../src/host/node/daemon-main.ts';
import { nodeDiskHost } from '../../src/host/node/file.ts';
import { startWeb, type WebServer } from '../../src/host/node/web-server.ts';
import { linuxFiles } from '../virsh/client.ts';
import { TestDaemon } from '../virsh/daemon-process.ts';
import { Chromium, noChromium } from './chromium.ts';

/** Pictures go here when it is set, for people to look at. */
const pictures = process.env['NONROOT_TEST_PICTURES'];
const skip = noChromium;
const limits = { skip, timeout: 60_000 };

const linux = await linuxFiles();
const daemon = new TestDaemon();
let web: WebServer;
let page: Chromium;

before(async () => {
  if (skip) return;
  await daemon.start();
  web = await startWeb({ host: '127.0.0.1', port: 0, connect: () => connectDaemon(daemon.uri), daemonHost: '127.0.0.1' });
  page = await Chromium.start();
  await page.size(1280, 860);
});
after(async () => {
  await page?.close();
  await web?.close();
  await daemon.close();
});

async function newDisk(): Promise<string> {
  const path = join(daemon.directory, 'disk.qcow2');
  const file = await nodeDiskHost().open(path, { readOnly: false, create: true });
  await createQcow2(file, { size: 16 << 20 });
  await file.close();
  return path;
}
async function picture(name: string): Promise<void> {
  if (pictures === undefined) return;
  mkdirSync(pictures, { recursive: true });
  writeFileSync(join(pictures, `${name}.png`), await page.picture());
}
const has = (text: string): string => `document.body.innerText.includes(${JSON.stringify(text)})`;
async function click(text: string): Promise<void> {
  const found = `[...document.querySelectorAll('button, a')].find((b) => b.textContent === ${JSON.stringify(text)} && b.offsetParent !== null)`;
  await page.until(found);
  await page.value(`${found}.click()`);
}
/** Says yes to a question. */
async function agree(): Promise<void> {
  await page.until("document.querySelector('dialog[open] .danger')");
  await page.value("document.querySelector('dialog[open] .danger').click()");
}

test('the wizard makes a guest by keyboard, and the list shows it', limits, async () => {
  await page.open(web.url);
  await page.until(has('There are no guests yet'));
  assert.equal(await page.value('location.search'), '', 'the token leaves the address');
  await picture('empty');
  await page.value("document.querySelector('#new').focus()");
  await page.key('Enter');
  await page.until("document.activeElement?.name === 'name'");
  await page.type('first');
  await page.value("document.querySelector('[name=disk]').focus()");
  await page.type(await newDisk());
  await page.value("document.querySelector('[name=start]').checked = false");
  await picture('wizard');
  await page.value("document.querySelector('[name=memory]').value = '64M'");
  await page.value("document.querySelector('[name=name]').focus()");
  await page.key('Enter');
  await page.until("document.querySelector('h1')?.textContent === 'first'");
  await page.until(has('defined'));
  await page.open(`http://127.0.0.1:${web.port}/#/`);
  await page.until("document.querySelector('.guest h2')?.textContent === 'first'");
});

test('a document with an error shows what the daemon says, a right one is kept', limits, async () => {
  const href = await page.value<string>("document.querySelector('.guest a').getAttribute('href')");
  await page.value(`location.hash = '${href}/xml'`);
  await page.until("document.querySelector('textarea')?.value.includes('<name>first</name>')");
  await page.value(
    "document.querySelector('textarea').value = document.querySelector('textarea').value.replace('<vcpu', '<wcpu')",
  );
  await click('Save');
  await page.until("document.querySelector('.failure:not([hidden])')?.textContent.length > 10");
  await picture('xml-error');
  await click('Configuration');
  await page.until("document.querySelector('textarea').value.includes('<vcpu')");
  await page.value(
    "document.querySelector('textarea').value = document.querySelector('textarea').value.replace(/<vcpu.*<.vcpu>/, '<vcpu>2</vcpu>')",
  );
  await click('Save');
  await page.until(has('Saved.'));
});

test('a guest runs: plots, console, display, snapshots, pause, power off', limits, async () => {
  await click('Start');
  await page.until("document.querySelector('.head .state').textContent === 'running'");
  await click('Console');
  await page.until(has('Connected. Ctrl-]'));
  await picture('console');
  await page.key(']', '', 2);
  await page.until("document.activeElement?.getAttribute('aria-current') === 'page'");
  await click('Display');
  await page.until(has('Connected. Shift-Escape'));
  // SeaBIOS says on the screen what it finds.
  await page.until(
    "document.querySelector('.display canvas').getContext('2d').getImageData(0, 0, 640, 200).data.some((v, i) => i % 4 === 0 && v > 100)",
  );
  assert.ok(
    await page.value("document.querySelector('.display canvas').getBoundingClientRect().width > 300"),
    'it is large enough to see',
  );
  await picture('display');
  await click('Snapshots');
  await page.until(has('There are no snapshots'));
  await page.value("document.querySelector('.line input').focus()");
  await page.type('before');
  await page.key('Enter');
  await page.until("document.querySelector('.snapshots strong')?.textContent === 'before'");
  await picture('snapshots');
  await click('Revert');
  await agree();
  await page.until("document.querySelector('[data-busy]') === null && document.querySelector('.failure').hidden");
  await page.until("document.querySelector('.head .state').textContent === 'running'");
  await click('Delete');
  await agree();
  await page.until(has('There are no snapshots'));
  await click('Overview');
  await click('Pause');
  await page.until("document.querySelector('.head .state').textContent === 'paused'");
  await click('Resume');
  await page.until("document.querySelector('.head .state').textContent === 'running'");
  await page.until("document.querySelector('.plot.cpu .line').getAttribute('d').includes('L')");
  await page.until("document.querySelector('.plot.memory .value').textContent.includes('MiB')");
  await picture('overview');
  await page.dark(true);
  await picture('overview-dark');
  await page.dark(false);
});

test('a Linux guest answers on the console', { ...limits, skip: skip || (typeof linux === 'string' && linux) }, async () => {
  assert.ok(typeof linux === 'object');
  const { kernel, initrd, append } = linux;
  const args = { name: 'linux', memory: '256M', cpus: 1, kernel, initrd, append, network: 'none', machine: 'q35', start: true };
  const made = await page.value<string>(
    `fetch('/api/create', { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: ${JSON.stringify(JSON.stringify(args))} }).then((r) => r.text())`,
  );
  const { uuid } = JSON.parse(made) as { uuid?: string };
  assert.ok(uuid, made);
  await page.value(`location.hash = '#/${uuid}/console'`);
  const shows = (text: string): string => `document.querySelector('.xterm-rows')?.textContent.includes('${text}')`;
  await page.until(shows('root#'), 50);
  for (const key of 'echo $((6*7))-is-it') await page.key(key);
  await page.key('Enter');
  await page.until(shows('42-is-it'));
  await picture('console-linux');
  await page.value(
    `fetch('/api/act', { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: '{"uuid":"${uuid}","action":"destroy"}' })`,
  );
  await page.until("document.querySelector('.head .state').textContent === 'shut off'");
  await click('Delete guest');
  await agree();
  await page.until("document.querySelectorAll('.guest').length === 1");
  await page.value("location.hash = document.querySelector('.guest a').getAttribute('href')");
  await page.until("document.querySelector('h1')");
});

test('at the width of a phone nothing is wider than the window', limits, async () => {
  await page.size(390, 844, true);
  const fits = 'document.documentElement.scrollWidth <= 390';
  for (const tab of ['Overview', 'Console', 'Display', 'Snapshots', 'XML']) {
    await click(tab);
    await page.until(`document.querySelector('[aria-current]').textContent === '${tab}'`);
    assert.ok(await page.value(fits), `${tab} is too wide`);
    await picture(`phone-${tab}`);
  }
  await page.value("location.hash = '#/'");
  await page.until("document.querySelector('.guest h2')");
  assert.ok(await page.value(fits), 'the list is too wide');
  await picture('phone-list');
  await click('New guest');
  await page.until("document.querySelector('dialog[open]')");
  assert.ok(await page.value(fits), 'the wizard is too wide');
  await picture('phone-wizard');
  await click('Cancel');
  await page.size(1280, 860);
  await picture('list');
});

test('power off and delete ask first, and the events tell of both', limits, async () => {
  const href = await page.value<string>("document.querySelector('.guest a').getAttribute('href')");
  await page.value(`location.hash = '${href}'`);
  await page.until("document.querySelector('h1')");
  if (await page.value("document.querySelector('.head .state').textContent === 'running'")) {
    await click('Power off');
    await page.until("document.querySelector('dialog[open]')");
    await picture('confirm');
    await page.value("document.querySelector('dialog[open] .danger').click()");
  }
  await page.until("document.querySelector('.head .state').textContent === 'shut off'");
  await click('Delete guest');
  await agree();
  await page.until(has('There are no guests yet'));
  await page.until("document.querySelector('.events').textContent.includes('first deleted')");
  assert.deepEqual(
    page.complaints.filter((one) => !one.includes('400')),
    [],
  );
});
