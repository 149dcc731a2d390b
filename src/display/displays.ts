// The displays of a machine, in the order of their devices: the first one is what VNC and screenshots show unless they name another.
import type { Screen } from './screen.ts';

export class Displays {
  readonly #screens: Screen[] = [];

  /** Adds a display; the result takes it away. */
  add(screen: Screen): () => void {
    this.#screens.push(screen);
    return () => {
      const i = this.#screens.indexOf(screen);
      if (i >= 0) this.#screens.splice(i, 1);
    };
  }

  get list(): readonly Screen[] {
    return this.#screens;
  }

  /** A display of a device, by its id or driver's name; the first one of all without. */
  find(name?: string, head = 0): Screen | undefined {
    return name === undefined
      ? this.#screens[0]
      : this.#screens.find(({ device }) => device.name === name && (device.head ?? 0) === head);
  }
}
