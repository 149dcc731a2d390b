// A real Chromium for tests, driven by its debugging pipe. Chrome DevTools Protocol, 1.3.
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable, Writable } from 'node:stream';

const program = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find((path) => existsSync(path));
/** Why there is none; false when there is. */
export const noChromium: string | false = program === undefined ? 'chromium is not installed' : false;

type Message = Readonly<Record<string, unknown>>;

export class Chromium {
  readonly #process: ChildProcess;
  readonly #home: string;
  readonly #input: Writable;
  readonly #waiting = new Map<number, { readonly resolve: (result: Message) => void; readonly reject: (error: Error) => void }>();
  /** What the pages' consoles and exceptions have said. */
  readonly complaints: string[] = [];
  #id = 0;
  #session: string | undefined;
  #said = '';

  private constructor() {
    this.#home = mkdtempSync(join(tmpdir(), 'chromium-'));
    const args = [
      '--headless',
      '--no-sandbox',
      '--disable-gpu',
      '--disable-dev-shm-usage',
      '--no-first-run',
      '--disable-extensions',
    ];
    const also = ['--disable-background-networking', '--disable-component-update', '--force-color-profile=srgb'];
    this.#process = spawn(
      program!,
      [...args, ...also, `--user-data-dir=${this.#home}`, '--remote-debugging-pipe', 'about:blank'],
      {
        stdio: ['ignore', 'ignore', 'pipe', 'pipe', 'pipe'],
      },
    );
    this.#process.stderr!.on('data', (bytes: Buffer) => (this.#said += bytes.toString()));
    this.#input = this.#process.stdio[3] as Writable;
    this.#input.on('error', () => {});
    let left = '';
    (this.#process.stdio[4] as Readable).setEncoding('utf8').on('data', (text: string) => {
      const messages = (left + text).split('\0');
      left = messages.pop()!;
      for (const message of messages) this.#take(JSON.parse(message) as Message);
    });
    this.#process.once('exit', () => {
      for (const { reject } of this.#waiting.values()) reject(new Error(`Chromium has ended: ${this.#said.slice(-500)}`));
    });
  }
  /** Starts it with one empty page. */
  static async start(): Promise<Chromium> {
    const chromium = new Chromium();
    const { targetInfos } = await chromium.send('Target.getTargets');
    const page = (targetInfos as { readonly type: string; readonly targetId: string }[]).find((one) => one.type === 'page');
    const targetId = page?.targetId ?? (await chromium.send('Target.createTarget', { url: 'about:blank' }))['targetId'];
    chromium.#session = (await chromium.send('Target.attachToTarget', { targetId, flatten: true }))['sessionId'] as string;
    for (const domain of ['Page', 'Runtime', 'Log', 'Network']) await chromium.send(`${domain}.enable`);
    return chromium;
  }
  send(method: string, params: Message = {}): Promise<Message> {
    const id = ++this.#id;
    this.#input.write(`${JSON.stringify({ id, method, params, ...(this.#session && { sessionId: this.#session }) })}\0`);
    return new Promise((resolve, reject) => this.#waiting.set(id, { resolve, reject }));
  }
  #take(message: Message): void {
    const { id, result, error, method, params } = message;
    if (
      method === 'Runtime.exceptionThrown' ||
      (method === 'Log.entryAdded' && JSON.stringify(params).includes('"level":"error"'))
    )
      this.complaints.push(JSON.stringify(params).slice(0, 600));
    const call = this.#waiting.get(Number(id));
    if (call === undefined) return;
    this.#waiting.delete(Number(id));
    if (error) call.reject(new Error(JSON.stringify(error)));
    else call.resolve(result as Message);
  }
  async open(url: string): Promise<void> {
    await this.send('Page.navigate', { url });
  }
  async size(width: number, height: number, mobile = false): Promise<void> {
    await this.send('Emulation.setDeviceMetricsOverride', { width, height, deviceScaleFactor: 1, mobile });
  }
  async dark(on: boolean): Promise<void> {
    const features = [{ name: 'prefers-color-scheme', value: on ? 'dark' : 'light' }];
    await this.send('Emulation.setEmulatedMedia', { features });
  }
  /** The value of an expression in the page. @throws what it throws */
  async value<T>(expression: string): Promise<T> {
    const answer = await this.send('Runtime.evaluate', { expression, awaitPromise: true, returnByValue: true });
    if (answer['exceptionDetails']) throw new Error(`${expression}: ${JSON.stringify(answer['exceptionDetails']).slice(0, 500)}`);
    return (answer['result'] as { readonly value: T }).value;
  }
  /** Waits until an expression is true. @throws Error (rejects) with what the page shows when it never is */
  async until(expression: string, seconds = 30): Promise<void> {
    const end = Date.now() + seconds * 1000;
    while (!(await this.value<boolean>(`Boolean(${expression})`).catch(() => false))) {
      if (Date.now() > end) {
        const shown = await this.value<string>('document.body.innerText').catch(() => '');
        throw new Error(`Never true: ${expression}\nThe page: ${shown}\nIts complaints: ${this.complaints.join('\n')}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
  /** A key as the keyboard sends it; `text` is what it writes. */
  async key(key: string, text = key.length === 1 ? key : key === 'Enter' ? '\r' : '', modifiers = 0): Promise<void> {
    const codes: Readonly<Record<string, number>> = { Enter: 13, Tab: 9, Escape: 27, ']': 221 };
    const common = {
      key,
      code: key.length > 1 ? key : '',
      windowsVirtualKeyCode: codes[key] ?? (/^[a-z0-9]$/i.test(key) ? key.toUpperCase().charCodeAt(0) : 0),
      modifiers,
    };
    await this.send('Input.dispatchKeyEvent', {
      type: text === '' ? 'rawKeyDown' : 'keyDown',
      ...common,
      ...(text !== '' && { text }),
    });
    await this.send('Input.dispatchKeyEvent', { type: 'keyUp', ...common });
  }
  /** Text as if it was put in. */
  async type(text: string): Promise<void> {
    await this.send('Input.insertText', { text });
  }
  /** A PNG of the window. */
  async picture(): Promise<Uint8Array> {
    return Buffer.from((await this.send('Page.captureScreenshot', { format: 'png' }))['data'] as string, 'base64');
  }
  async close(): Promise<void> {
    const gone = new Promise((resolve) => this.#process.once('exit', resolve));
    this.#session = undefined;
    if (this.#process.exitCode === null) {
      this.send('Browser.close').catch(() => {});
      const timer = setTimeout(() => this.#process.kill('SIGKILL'), 5000);
      await gone;
      clearTimeout(timer);
    }
    rmSync(this.#home, { recursive: true, force: true, maxRetries: 5 });
  }
}
