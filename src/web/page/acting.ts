// Buttons of a guest's actions: those of the table that its state allows.

import { type Action, type ActionName, actions, type GuestSample } from '../api.ts';
import { call } from './client.ts';
import { confirmed, h, toast } from './dom.ts';

const rows = Object.entries(actions) as [ActionName, Action][];

export class ActionButtons {
  readonly element: HTMLElement;
  readonly #buttons: readonly (readonly [Action, HTMLButtonElement])[];
  #guest: GuestSample;

  /** Only those of `names`, where it is given. */
  constructor(guest: GuestSample, names?: readonly ActionName[]) {
    this.#guest = guest;
    this.#buttons = rows
      .filter(([name]) => names === undefined || names.includes(name))
      .map(([name, action]) => [
        action,
        h(
          'button',
          { type: 'button', class: action.confirm === undefined ? '' : 'danger', click: () => void this.#run(name, action) },
          action.label,
        ),
      ]);
    this.element = h('div', { class: 'buttons', role: 'group' }, ...this.#buttons.map(([, button]) => button));
    this.update(guest);
  }

  update(guest: GuestSample): void {
    this.#guest = guest;
    this.element.setAttribute('aria-label', `Actions of ${guest.name}`);
    for (const [action, button] of this.#buttons) button.hidden = !action.when.includes(guest.state);
  }

  async #run(name: ActionName, action: Action): Promise<void> {
    const { uuid, name: guest } = this.#guest;
    if (action.confirm !== undefined && !(await confirmed(`${action.label} ${guest}`, action.confirm, action.label))) return;
    this.element.toggleAttribute('data-busy', true);
    try {
      await call('act', { uuid, action: name });
    } catch (error) {
      toast(`${action.label} ${guest}: ${(error as Error).message}`, true);
    } finally {
      this.element.toggleAttribute('data-busy', false);
    }
  }
}
