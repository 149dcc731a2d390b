// A guest's own page: state, all actions, and its panels, each with an address of its own.

import type { GuestSample } from '../api.ts';
import { ActionButtons } from './acting.ts';
import { h, setText } from './dom.ts';
import type { GuestHistory } from './history.ts';
import { stateBadge, updateBadge } from './list.ts';
import { consolePanel, displayPanel, documentPanel, type MakePanel, overview, type Panel, snapshotsPanel } from './panels.ts';

const panels: Readonly<Record<string, { readonly title: string; readonly make: MakePanel }>> = {
  overview: { title: 'Overview', make: overview },
  console: { title: 'Console', make: consolePanel },
  display: { title: 'Display', make: displayPanel },
  snapshots: { title: 'Snapshots', make: snapshotsPanel },
  xml: { title: 'XML', make: documentPanel },
};

export class GuestPage {
  readonly element: HTMLElement;
  readonly uuid: string;
  readonly #guest: GuestSample;
  readonly #title: HTMLElement;
  readonly #badge: HTMLElement;
  readonly #actions: ActionButtons;
  readonly #room = h('div', { class: 'panel' });
  readonly #tabs: ReadonlyMap<string, HTMLAnchorElement>;
  #panel: Panel | undefined;
  #name = '';

  constructor(guest: GuestSample) {
    this.uuid = guest.uuid;
    this.#guest = guest;
    this.#title = h('h1', {}, guest.name);
    this.#badge = stateBadge(guest.state);
    this.#actions = new ActionButtons(guest);
    this.#tabs = new Map(
      Object.entries(panels).map(([name, { title }]) => [name, h('a', { href: `#/${guest.uuid}/${name}` }, title)]),
    );
    this.element = h(
      'section',
      { class: 'guest-page' },
      h(
        'div',
        { class: 'head' },
        h('a', { href: '#/', class: 'back' }, '← Guests'),
        this.#title,
        this.#badge,
        this.#actions.element,
      ),
      h('nav', { class: 'tabs', 'aria-label': `Panels of ${guest.name}` }, ...this.#tabs.values()),
      this.#room,
    );
  }
  /** Opens a panel by its name in the address. */
  open(wanted: string): void {
    const name = Object.hasOwn(panels, wanted) ? wanted : 'overview';
    if (name === this.#name) return;
    this.close();
    this.#name = name;
    for (const [other, tab] of this.#tabs) {
      if (other === name) tab.setAttribute('aria-current', 'page');
      else tab.removeAttribute('aria-current');
    }
    this.#panel = panels[name]!.make(this.#guest, () => this.#tabs.get(name)?.focus());
    this.#room.replaceChildren(this.#panel.element);
    this.#panel.opened?.();
  }
  update(guest: GuestSample, history: GuestHistory): void {
    setText(this.#title, guest.name);
    updateBadge(this.#badge, guest.state);
    this.#actions.update(guest);
    this.#panel?.update?.(guest, history);
  }
  close(): void {
    this.#panel?.close?.();
    this.#panel = undefined;
    this.#name = '';
  }
}
