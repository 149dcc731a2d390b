// Reads along what a guest says on its console: the last lines, and whether a Linux kernel has panicked
// (Linux 6.1, kernel/panic.c: "Kernel panic - not syncing: …", at the end "---[ end Kernel panic - not syncing: … ]---").

const KEPT = 16 << 10;
const STAMP = /^\[ *\d+\.\d+\]/;
const PANIC = /^(?:\[ *\d+\.\d+\] )?Kernel panic - not syncing: ?(.*)$/;

export class ConsoleWatch {
  /** One character for each byte. */
  #text = '';

  feed(bytes: Uint8Array): void {
    let text = this.#text;
    for (const byte of bytes.subarray(-KEPT)) text += String.fromCharCode(byte);
    this.#text = text.slice(-KEPT);
  }
  /** The guest has started again. */
  clear(): void {
    this.#text = '';
  }
  /** Lines without terminal control sequences, empty ones left out. */
  #lines(): string[] {
    return new TextDecoder()
      .decode(Uint8Array.from(this.#text, (c) => c.charCodeAt(0)))
      .replace(/\x1b\[[\d;?]*[ -/]*[@-~]/g, '')
      .split(/[\r\n]+/)
      .map((line) => line.trimEnd())
      .filter((line) => line !== '');
  }
  /** The last lines, at most `count`. */
  tail(count: number): string[] {
    return this.#lines().slice(-count);
  }
  /**
   * What the kernel panicked of. Only kernel messages may follow: an old log that somebody printed does not count.
   */
  get panic(): string | undefined {
    const lines = this.#lines();
    const at = lines.findLastIndex((line) => PANIC.test(line));
    if (at < 0 || !lines.slice(at + 1).every((line) => STAMP.test(line) || line.startsWith('---[ end '))) return undefined;
    return PANIC.exec(lines[at]!)![1] || 'no reason given';
  }
  /** The kernel has panicked and stays where it is, instead of starting again. */
  get stuck(): boolean {
    if (!this.#text.includes('---[ end Kernel panic')) return false;
    return this.panic !== undefined && /---\[ end Kernel panic - not syncing/.test(this.#lines().at(-1) ?? '');
  }
}
