// A map from integers of 32 bits for the few places where Map's own look-up is what takes the time: open addressing over typed arrays.

const FIRST_SLOTS = 256;

/** Values by integers of 32 bits. Nothing is taken out again. */
export class IntMap<T extends object> {
  #keys = new Int32Array(FIRST_SLOTS);
  #values: (T | undefined)[] = new Array<T | undefined>(FIRST_SLOTS).fill(undefined);
  /** By how much a hash is shifted for a slot's number. */
  #shift = 24;
  #size = 0;

  get(key: number): T | undefined {
    const keys = this.#keys;
    const values = this.#values;
    const last = keys.length - 1;
    for (let slot = Math.imul(key, 0x9e3779b1) >>> this.#shift; ; slot = (slot + 1) & last) {
      const value = values[slot];
      if (value === undefined || keys[slot] === key) return value;
    }
  }
  set(key: number, value: T): void {
    const known = this.#put(key, value);
    if (!known && ++this.#size * 2 > this.#keys.length) this.#grow();
  }
  /** Whether there was a value already. */
  #put(key: number, value: T): boolean {
    const last = this.#keys.length - 1;
    let slot = Math.imul(key, 0x9e3779b1) >>> this.#shift;
    while (this.#values[slot] !== undefined && this.#keys[slot] !== key) slot = (slot + 1) & last;
    const known = this.#values[slot] !== undefined;
    this.#keys[slot] = key;
    this.#values[slot] = value;
    return known;
  }
  #grow(): void {
    const keys = this.#keys;
    const values = this.#values;
    this.#keys = new Int32Array(2 * keys.length);
    this.#values = new Array<T | undefined>(2 * keys.length).fill(undefined);
    this.#shift--;
    values.forEach((value, n) => {
      if (value !== undefined) this.#put(keys[n]!, value);
    });
  }
}
