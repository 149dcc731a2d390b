// Elements of the page: made by one function, with dialogs for questions and messages.

type Child = Node | string | undefined;
type Props = Readonly<Record<string, string | boolean | number | ((event: Event) => void) | undefined>>;

/** An element: functions are listeners, booleans attributes that are there or not. */
export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  props: Props = {},
  ...children: readonly Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (typeof value === 'function') element.addEventListener(name, value);
    else if (typeof value === 'boolean') element.toggleAttribute(name, value);
    else if (value !== undefined) element.setAttribute(name, String(value));
  }
  element.append(...children.filter((child) => child !== undefined));
  return element;
}

/** Sets text only where it is another: the reader's selection stays. */
export function setText(element: Element, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}

/** Shows a dialog until it closes; its return value. */
function show(dialog: HTMLDialogElement): Promise<string> {
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) =>
    dialog.addEventListener('close', () => {
      dialog.remove();
      resolve(dialog.returnValue);
    }),
  );
}

/** Asks before something that cannot be undone. */
export async function confirmed(title: string, text: string, label: string): Promise<boolean> {
  const dialog: HTMLDialogElement = h(
    'dialog',
    { 'aria-label': title },
    h('h2', {}, title),
    h('p', {}, text),
    h(
      'div',
      { class: 'buttons end' },
      h('button', { type: 'button', autofocus: true, click: () => dialog.close('') }, 'Cancel'),
      h('button', { type: 'button', class: 'danger', click: () => dialog.close('yes') }, label),
    ),
  );
  return (await show(dialog)) === 'yes';
}

/** Asks for a password; undefined when the user gives none. */
export async function askPassword(title: string): Promise<string | undefined> {
  const input = h('input', { type: 'password', autocomplete: 'off', autofocus: true, 'aria-label': 'Password' });
  const dialog: HTMLDialogElement = h(
    'dialog',
    { 'aria-label': title },
    h(
      'form',
      {
        submit: (event) => {
          event.preventDefault();
          dialog.close('yes');
        },
      },
      h('h2', {}, title),
      input,
      h(
        'div',
        { class: 'buttons end' },
        h('button', { type: 'button', click: () => dialog.close('') }, 'Cancel'),
        h('button', { type: 'submit', class: 'main' }, 'Continue'),
      ),
    ),
  );
  return (await show(dialog)) === 'yes' ? input.value : undefined;
}

/** A dialog with content that closes itself. */
export const openDialog = (dialog: HTMLDialogElement): Promise<string> => show(dialog);

/** Tells of something at the edge of the page for some seconds, errors until they are closed. */
export function toast(text: string, error = false): void {
  const box = document.querySelector('#toasts');
  if (box === null) return;
  const note: HTMLDivElement = h(
    'div',
    { class: error ? 'toast error' : 'toast', role: error ? 'alert' : 'status' },
    h('span', {}, text),
    h('button', { type: 'button', 'aria-label': 'Close this message', click: () => note.remove() }, '×'),
  );
  box.append(note);
  if (!error) setTimeout(() => note.remove(), 5000);
}
