// The list of guests, with plots and the usual actions. Rows stay as long as their guests: focus and selection stay with them.

import { type GuestSample, isActive, states } from '../api.ts';
import { ActionButtons } from './acting.ts';
import { h, setText } from './dom.ts';
import { type GuestHistory, series } from './history.ts';
import { Plot } from './plot.ts';

/** A guest's state, in colour and in words. */
export function stateBadge(state: number): HTMLElement {
  return h('span', { class: `state s${state}` }, states[state] ?? String(state));
}
export function updateBadge(badge: HTMLElement, state: number): void {
  badge.className = `state s${state}`;
  setText(badge, states[state] ?? String(state));
}

class Row {
  readonly element: HTMLElement;
  readonly #badge: HTMLElement;
  readonly #facts = h('span', { class: 'facts' });
  readonly #name: HTMLAnchorElement;
  readonly #plots = series.map((one) => new Plot(one));
  readonly #actions: ActionButtons;

  constructor(guest: GuestSample) {
    this.#badge = stateBadge(guest.state);
    this.#name = h('a', { href: `#/${guest.uuid}` }, guest.name);
    this.#actions = new ActionButtons(guest, ['start', 'resume', 'pause', 'shutdown', 'destroy']);
    this.element = h(
      'li',
      { class: 'guest' },
      h('div', { class: 'who' }, h('h2', {}, this.#name), h('div', { class: 'about' }, this.#badge, this.#facts)),
      h('div', { class: 'plots' }, ...this.#plots.map((plot) => plot.element)),
      this.#actions.element,
    );
  }
  update(guest: GuestSample, history: GuestHistory): void {
    updateBadge(this.#badge, guest.state);
    setText(this.#name, guest.name);
    setText(this.#facts, `${guest.cpus} CPU${guest.cpus === 1 ? '' : 's'} · ${Math.round(guest.memoryMax / 1024)} MiB`);
    this.element.classList.toggle('off', !isActive(guest.state));
    for (const plot of this.#plots) plot.update(history.values, guest);
    this.#actions.update(guest);
  }
}

export class GuestList {
  readonly element: HTMLElement;
  readonly #list = h('ul', { class: 'guests' });
  readonly #empty = h('p', { class: 'empty' }, 'Asking the daemon…');
  readonly #rows = new Map<string, Row>();

  constructor() {
    this.element = h('section', { 'aria-label': 'Guests' }, this.#empty, this.#list);
  }
  update(guests: readonly GuestSample[], histories: ReadonlyMap<string, GuestHistory>): void {
    this.#empty.hidden = guests.length > 0;
    setText(this.#empty, 'There are no guests yet. “New guest” makes one.');
    const present = new Set(guests.map((guest) => guest.uuid));
    for (const [uuid, row] of this.#rows) {
      if (present.has(uuid)) continue;
      row.element.remove();
      this.#rows.delete(uuid);
    }
    guests.forEach((guest, index) => {
      const row = this.#rows.get(guest.uuid) ?? new Row(guest);
      this.#rows.set(guest.uuid, row);
      row.update(guest, histories.get(guest.uuid)!);
      if (this.#list.children[index] !== row.element) this.#list.insertBefore(row.element, this.#list.children[index] ?? null);
    });
  }
}
