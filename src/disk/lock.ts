// A fair lock for asynchronous code: many share it, or one has it alone, in the order in which they asked.

interface Waiter {
  readonly alone: boolean;
  readonly go: () => void;
}

export class SharedLock {
  #sharing = 0;
  #alone = false;
  readonly #queue: Waiter[] = [];

  /** Runs `action` at the same time as other shared ones. */
  shared<T>(action: () => Promise<T>): Promise<T> {
    return this.#run(false, action);
  }

  /** Runs `action` while no other runs. An action that asks for the same lock waits for ever. */
  alone<T>(action: () => Promise<T>): Promise<T> {
    return this.#run(true, action);
  }

  async #run<T>(alone: boolean, action: () => Promise<T>): Promise<T> {
    if (this.#queue.length > 0 || this.#alone || (alone && this.#sharing > 0))
      await new Promise<void>((go) => this.#queue.push({ alone, go }));
    else this.#take(alone);
    try {
      return await action();
    } finally {
      if (alone) this.#alone = false;
      else this.#sharing--;
      this.#wake();
    }
  }

  #take(alone: boolean): void {
    if (alone) this.#alone = true;
    else this.#sharing++;
  }

  #wake(): void {
    for (let next = this.#queue[0]; next; next = this.#queue[0]) {
      if (this.#alone || (next.alone && this.#sharing > 0)) return;
      this.#queue.shift();
      this.#take(next.alone);
      next.go();
    }
  }
}
