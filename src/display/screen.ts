// A display of the machine: its surface, drawn by the device's painter at a bounded rate and only while somebody looks.
import { type PointerShape, Surface } from './surface.ts';

/** A display device as the I/O thread sees it. */
export interface DisplayDevice {
  /** The device's id, or its driver's name. */
  readonly name: string;
  /** Which of the device's displays it is, from 0. */
  readonly head?: number;
  /** Brings the surface up to date: `now` in ms, for what blinks. */
  draw(surface: Surface, now: number): void;
  /** What the pointer looks like, where the guest leaves drawing it to the display. Another object means that it changed. */
  pointer?(): PointerShape | undefined;
  /** Tells the guest which size somebody wishes; false where it cannot be told. */
  wish?(width: number, height: number): boolean;
  /** Somebody begins to look; called again while somebody does. */
  looked?(): void;
}

/** ms between two pictures: while things change, and after it was quiet for a while. */
const pace = { busy: 33, calm: 100, quiet: 250 } as const;
const CALM_AFTER = 1000;
const QUIET_AFTER = 10_000;

/** Timers of whoever runs the display. */
export interface DisplayTimers {
  now(): number;
  after(ms: number, f: () => void): () => void;
}

export class Screen {
  readonly surface = new Surface();
  readonly device: DisplayDevice;
  readonly #timers: DisplayTimers;
  readonly #lookers = new Set<() => void>();
  #cancel: (() => void) | undefined;
  #due = 0;
  #changedAt = 0;

  constructor(device: DisplayDevice, timers: DisplayTimers) {
    this.device = device;
    this.#timers = timers;
    const touched = (): void => {
      this.#changedAt = timers.now();
    };
    this.surface.watch({ changed: touched, resized: touched });
  }

  /** Draws now, whether somebody looks or not; for screenshots. */
  refresh(): void {
    if (this.#lookers.size > 0) this.device.looked?.();
    this.device.draw(this.surface, this.#timers.now());
  }

  /** Draws again and again, and calls `f` after each time, until the result is called. */
  look(f: () => void): () => void {
    this.#lookers.add(f);
    this.hurry();
    return () => {
      this.#lookers.delete(f);
      if (this.#lookers.size === 0) this.#stop();
    };
  }

  /** Something is about to happen (a key was pressed): the next picture comes soon. */
  hurry(): void {
    const now = this.#timers.now();
    this.#changedAt = now;
    if (this.#lookers.size === 0 || (this.#cancel !== undefined && this.#due <= now + pace.busy)) return;
    this.#stop();
    this.#schedule(pace.busy);
  }

  #schedule(ms: number): void {
    this.#due = this.#timers.now() + ms;
    this.#cancel = this.#timers.after(ms, () => this.#tick());
  }

  #stop(): void {
    this.#cancel?.();
    this.#cancel = undefined;
  }

  #tick(): void {
    this.#cancel = undefined;
    const begin = this.#timers.now();
    this.refresh();
    for (const f of [...this.#lookers]) f();
    if (this.#lookers.size === 0 || this.#cancel !== undefined) return;
    const end = this.#timers.now();
    const idle = end - this.#changedAt;
    const wish = idle > QUIET_AFTER ? pace.quiet : idle > CALM_AFTER ? pace.calm : pace.busy;
    // Drawing takes at most a third of the thread's time.
    this.#schedule(Math.max(wish - (end - begin), 2 * (end - begin), 5));
  }
}
