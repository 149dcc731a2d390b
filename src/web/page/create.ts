// The wizard that makes a guest: one form, with what most guests need.

import { call } from './client.ts';
import { h, openDialog, setText } from './dom.ts';

type Control = HTMLInputElement | HTMLSelectElement;
const field = (label: string, control: Control, hint = ''): HTMLElement =>
  h('label', {}, h('span', {}, label), control, hint === '' ? undefined : h('small', {}, hint));
const text = (name: string, value: string, more: Readonly<Record<string, string | boolean>> = {}): HTMLInputElement =>
  h('input', { type: 'text', name, value, autocomplete: 'off', autocapitalize: 'off', spellcheck: 'false', ...more });
const select = (options: readonly (readonly [string, string])[]): HTMLSelectElement =>
  h('select', {}, ...options.map(([value, label]) => h('option', { value }, label)));

/** Shows it; the new guest's uuid, or undefined. */
export async function createGuest(networks: readonly string[]): Promise<string | undefined> {
  const name = text('name', '', { required: true, autofocus: true, pattern: '[^\\/]+', maxlength: '100' });
  const memory = text('memory', '512M', { required: true, pattern: '\\d+[KMGkmg]?' });
  const cpus = h('input', { type: 'number', name: 'cpus', value: '1', min: '1', max: '255', required: true });
  const source = select([
    ['disk', 'a disk image'],
    ['cdrom', 'a CD-ROM image (ISO), with or without a disk'],
    ['kernel', 'a Linux kernel'],
  ]);
  const disk = text('disk', '', { placeholder: '/path/disk.qcow2' });
  const cdrom = text('cdrom', '', { placeholder: '/path/install.iso' });
  const kernel = text('kernel', '', { placeholder: '/path/vmlinuz' });
  const initrd = text('initrd', '', { placeholder: '/path/initrd' });
  const append = text('append', 'console=ttyS0');
  const network = select([
    ['user', 'user mode: out, without privileges'],
    ...networks.map((one) => [one, `network ${one}`] as const),
    ['none', 'none'],
  ]);
  const machine = select([
    ['q35', 'q35'],
    ['pc', 'pc (older guests)'],
  ]);
  const display = h('input', { type: 'checkbox', name: 'display', checked: true });
  const start = h('input', { type: 'checkbox', name: 'start', checked: true });
  const failure = h('p', { class: 'failure', role: 'alert', hidden: true });
  const parts: Readonly<Record<string, HTMLElement>> = {
    cdrom: field('CD-ROM image', cdrom),
    kernel: field('Kernel', kernel),
    initrd: field('Initial RAM disk', initrd),
    append: field('Kernel command line', append),
  };
  const diskPart = field('Disk image', disk, 'A file on the daemon’s machine; raw, or qcow2 by its name.');
  const choose = (): void => {
    const kind = source.value;
    parts['cdrom']!.hidden = kind !== 'cdrom';
    for (const part of ['kernel', 'initrd', 'append']) parts[part]!.hidden = kind !== 'kernel';
    disk.required = kind === 'disk';
    cdrom.required = kind === 'cdrom';
    kernel.required = kind === 'kernel';
  };
  source.addEventListener('change', choose);
  choose();
  const submit = h('button', { type: 'submit', class: 'main' }, 'Create');
  let made: string | undefined;
  const create = async (): Promise<void> => {
    const kind = source.value;
    failure.hidden = true;
    submit.disabled = true;
    try {
      const { uuid } = await call('create', {
        name: name.value,
        memory: memory.value.toUpperCase(),
        cpus: cpus.valueAsNumber,
        disk: disk.value,
        ...(kind === 'cdrom' ? { cdrom: cdrom.value } : {}),
        ...(kind === 'kernel' ? { kernel: kernel.value, initrd: initrd.value, append: append.value } : {}),
        network: network.value,
        machine: machine.value,
        display: display.checked,
        start: start.checked,
      });
      made = uuid;
      dialog.close('made');
    } catch (error) {
      setText(failure, (error as Error).message);
      failure.hidden = false;
    } finally {
      submit.disabled = false;
    }
  };
  const dialog: HTMLDialogElement = h(
    'dialog',
    { class: 'wizard', 'aria-label': 'New guest' },
    h(
      'form',
      {
        submit: (event) => {
          event.preventDefault();
          void create();
        },
      },
      h('h2', {}, 'New guest'),
      h(
        'div',
        { class: 'fields' },
        field('Name', name),
        h('div', { class: 'pair' }, field('Memory', memory, 'As 512M or 2G.'), field('CPUs', cpus)),
        field('Starts from', source),
        ...Object.values(parts),
        diskPart,
        field('Network', network),
        field('Machine', machine),
        h('label', { class: 'check' }, display, h('span', {}, 'Display (VNC)')),
        h('label', { class: 'check' }, start, h('span', {}, 'Start it now')),
      ),
      failure,
      h('div', { class: 'buttons end' }, h('button', { type: 'button', click: () => dialog.close('') }, 'Cancel'), submit),
    ),
  );
  await openDialog(dialog);
  return made;
}
