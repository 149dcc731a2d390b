// The page's beginning: frame, addresses (`#/`, `#/UUID/PANEL`), and what the server pushes.

import type { GuestSample, Push } from '../api.ts';
import { call, follow } from './client.ts';
import { createGuest } from './create.ts';
import { h, setText, toast } from './dom.ts';
import { GuestPage } from './guest.ts';
import { GuestHistory } from './history.ts';
import { GuestList } from './list.ts';

/** Events that are shown. */
const eventsMax = 200;

class Page {
  readonly #list = new GuestList();
  readonly #main = h('main', { id: 'main', tabindex: '-1' });
  readonly #link = h('span', { class: 'link', role: 'status' }, 'connecting…');
  readonly #events = h('ol', { class: 'events', 'aria-live': 'polite', 'aria-label': 'Events' });
  readonly #host = h('span', { class: 'host' });
  readonly #histories = new Map<string, GuestHistory>();
  #guests: readonly GuestSample[] | undefined;
  #page: GuestPage | undefined;

  start(): void {
    document.body.replaceChildren(
      h('a', { class: 'skip', href: '#main', click: (event) => this.#skip(event) }, 'Skip to the content'),
      h(
        'header',
        {},
        h('a', { href: '#/', class: 'brand' }, 'Nonroot'),
        this.#host,
        this.#link,
        h('button', { type: 'button', class: 'main', id: 'new', click: () => void this.#create() }, 'New guest'),
      ),
      this.#main,
      h('details', { class: 'log', open: true }, h('summary', {}, 'Events'), this.#events),
      h('div', { id: 'toasts' }),
    );
    addEventListener('hashchange', () => this.#route());
    this.#route();
    follow(
      (push) => this.#push(push),
      (up) => this.#connected(up),
    );
  }

  #skip(event: Event): void {
    event.preventDefault();
    this.#main.focus();
  }
  #connected(up: boolean): void {
    setText(this.#link, up ? 'live' : 'connection lost; trying again');
    this.#link.classList.toggle('down', !up);
    if (!up) return;
    call('host', {}).then(
      ({ hostname, version }) => setText(this.#host, `${hostname} · libvirt ${version}`),
      () => {},
    );
  }
  async #create(): Promise<void> {
    const { networks } = await call('host', {}).catch(() => ({ networks: [] }));
    const uuid = await createGuest(networks);
    if (uuid !== undefined) location.hash = `#/${uuid}`;
  }

  #push(push: Push): void {
    if (push.kind === 'lost') {
      setText(this.#link, `daemon: ${push.text}`);
      this.#link.classList.add('down');
      return;
    }
    if (push.kind === 'event') {
      const at = new Date(push.at);
      const item = h(
        'li',
        {},
        h('time', { datetime: at.toISOString() }, at.toLocaleTimeString()),
        ` ${push.name} `,
        h('strong', {}, push.text),
      );
      this.#events.prepend(item);
      while (this.#events.children.length > eventsMax) this.#events.lastElementChild?.remove();
      return;
    }
    setText(this.#link, 'live');
    this.#link.classList.remove('down');
    this.#guests = push.guests;
    const present = new Set(push.guests.map((guest) => guest.uuid));
    for (const uuid of this.#histories.keys()) if (!present.has(uuid)) this.#histories.delete(uuid);
    for (const guest of push.guests) {
      const history = this.#histories.get(guest.uuid) ?? new GuestHistory();
      this.#histories.set(guest.uuid, history);
      history.add(push.at, guest);
    }
    this.#route();
    if (this.#page === undefined) this.#list.update(push.guests, this.#histories);
  }

  /** Shows what the address names. */
  #route(): void {
    const [, uuid = '', panel = ''] = location.hash.split('/');
    const guest = uuid === '' ? undefined : this.#guests?.find((one) => one.uuid === uuid);
    if (uuid !== '' && this.#guests !== undefined && guest === undefined) {
      // A guest that was just made comes with the next sample; one that is gone does not.
      if (this.#page?.uuid === uuid) {
        toast('The guest is gone.');
        location.hash = '#/';
      }
      return;
    }
    if (guest === undefined) {
      if (uuid !== '' || this.#main.firstChild === this.#list.element) return;
      this.#page?.close();
      this.#page = undefined;
      document.title = 'Nonroot';
      this.#main.replaceChildren(this.#list.element);
      if (this.#guests !== undefined) this.#list.update(this.#guests, this.#histories);
      return;
    }
    if (this.#page?.uuid !== uuid) {
      this.#page?.close();
      this.#page = new GuestPage(guest);
      this.#main.replaceChildren(this.#page.element);
      this.#main.focus();
    }
    document.title = `${guest.name} – Nonroot`;
    this.#page.open(panel);
    this.#page.update(guest, this.#histories.get(guest.uuid)!);
  }
}

new Page().start();
