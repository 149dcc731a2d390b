// The displays of a machine, in the order of their devices: the first one is what VNC and screenshots show.
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

  /** The display of a device, by its id or driver's name; the first one without. */
  find(name?: string): Screen | undefined {
    return name === undefined ? this.#screens[0] : this.#screens.find((s) => s.device.name === name);
  }
}
