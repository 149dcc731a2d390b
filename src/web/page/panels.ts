// The panels of a guest's page: overview, console, display, snapshots, document. Each is made when it is opened, and closed when left.

import RFB from '@novnc/novnc';
import { FitAddon } from '@xterm/addon-fit';
import { Terminal } from '@xterm/xterm';
import { type GuestSample, isActive } from '../api.ts';
import { call, channel } from './client.ts';
import { askPassword, confirmed, h, setText, toast } from './dom.ts';
import { type GuestHistory, series } from './history.ts';
import { Plot } from './plot.ts';

export interface Panel {
  readonly element: HTMLElement;
  update?(guest: GuestSample, history: GuestHistory): void;
  /** After it is in the document. */
  opened?(): void;
  close?(): void;
}
/** Makes a panel; `leave` gives the keyboard back to the page. */
export type MakePanel = (guest: GuestSample, leave: () => void) => Panel;

const fault = (error: unknown): string => (error instanceof Error ? error.message : String(error));

/** Connects when the guest runs, and whenever it runs again. */
function watchPower(status: HTMLElement, connect: () => void): (guest: GuestSample) => void {
  let was = false;
  return ({ state }) => {
    const is = isActive(state);
    if (is && !was) connect();
    if (!is) setText(status, 'The guest is off.');
    was = is;
  };
}

export const overview: MakePanel = (guest) => {
  const plots = series.map((one) => new Plot(one));
  const facts = h('dl', { class: 'facts' });
  const fact = (name: string): HTMLElement => {
    const value = h('dd', {}, '–');
    facts.append(h('div', {}, h('dt', {}, name), value));
    return value;
  };
  const cells = {
    id: fact('Id'),
    cpus: fact('CPUs'),
    memory: fact('Memory'),
    time: fact('CPU time'),
    persistent: fact('Persistent'),
    autostart: fact('Starts with the daemon'),
    saved: fact('Saved state'),
    uuid: fact('UUID'),
  };
  const yesNo = (value: boolean): string => (value ? 'yes' : 'no');
  call('guest', { uuid: guest.uuid }).then(
    (detail) => {
      setText(cells.persistent, yesNo(detail.persistent));
      setText(cells.autostart, yesNo(detail.autostart));
      setText(cells.saved, yesNo(detail.saved));
    },
    (error: unknown) => toast(fault(error), true),
  );
  return {
    element: h('div', { class: 'overview' }, h('div', { class: 'plots large' }, ...plots.map((plot) => plot.element)), facts),
    update(now, history) {
      for (const plot of plots) plot.update(history.values, now);
      setText(cells.id, now.id === null ? '–' : String(now.id));
      setText(cells.cpus, String(now.cpus));
      setText(cells.memory, `${Math.round(now.memory / 1024)} of ${Math.round(now.memoryMax / 1024)} MiB`);
      setText(cells.time, `${(now.cpuTime / 1e9).toFixed(1)} s`);
      setText(cells.uuid, now.uuid);
    },
  };
};

export const consolePanel: MakePanel = (guest, leave) => {
  const screen = h('div', { class: 'terminal' });
  const status = h('span', { role: 'status' }, 'Connecting…');
  const terminal = new Terminal({
    fontSize: 14,
    scrollback: 5000,
    screenReaderMode: false,
    theme: { background: '#000000', scrollbarSliderBackground: '#ffffff30', overviewRulerBorder: '#000000' },
  });
  const fit = new FitAddon();
  terminal.loadAddon(fit);
  let socket: WebSocket | undefined;
  let closed = false;
  const encoder = new TextEncoder();
  terminal.onData((text) => {
    if (socket?.readyState === WebSocket.OPEN) socket.send(encoder.encode(text));
  });
  // What terminals report in bytes that are no text, as of old mice.
  terminal.onBinary((text) => {
    if (socket?.readyState === WebSocket.OPEN) socket.send(Uint8Array.from(text, (c) => c.charCodeAt(0)));
  });
  terminal.attachCustomKeyEventHandler((event) => {
    if (!event.ctrlKey || event.key !== ']') return true;
    if (event.type === 'keydown') leave();
    return false;
  });
  const connect = (): void => {
    socket?.close();
    const mine = new WebSocket(channel('console', guest.uuid));
    socket = mine;
    mine.binaryType = 'arraybuffer';
    let why = '';
    mine.addEventListener('open', () => setText(status, 'Connected. Ctrl-] leaves the console.'));
    mine.addEventListener('message', ({ data }: MessageEvent<string | ArrayBuffer>) => {
      if (typeof data === 'string') why = data;
      else terminal.write(new Uint8Array(data));
    });
    mine.addEventListener('close', () => {
      if (!closed && socket === mine) setText(status, `Not connected${why === '' ? '' : `: ${why}`}.`);
    });
  };
  const sizes = new ResizeObserver(() => fit.fit());
  const watch = watchPower(status, connect);
  return {
    element: h(
      'div',
      { class: 'screen' },
      h('div', { class: 'bar' }, status, h('button', { type: 'button', click: () => connect() }, 'Reconnect')),
      screen,
    ),
    opened() {
      terminal.open(screen);
      fit.fit();
      // Before the first picture the size of a character may not be known.
      const first = terminal.onRender(() => {
        first.dispose();
        fit.fit();
      });
      sizes.observe(screen);
      terminal.focus();
    },
    update(now) {
      watch(now);
      // A page that was busy when it opened may not have known the size of a character then.
      fit.fit();
    },
    close() {
      closed = true;
      sizes.disconnect();
      socket?.close();
      terminal.dispose();
    },
  };
};

export const displayPanel: MakePanel = (guest, leave) => {
  const screen = h('div', { class: 'display', tabindex: '-1' });
  const status = h('span', { role: 'status' }, 'Connecting…');
  let rfb: RFB | undefined;
  const end = (): void => {
    const old = rfb;
    rfb = undefined;
    old?.disconnect();
    screen.replaceChildren();
  };
  const connect = (): void => {
    end();
    setText(status, 'Connecting…');
    const mine = new RFB(screen, channel('display', guest.uuid), { shared: true });
    rfb = mine;
    mine.scaleViewport = true;
    mine.background = 'transparent';
    mine.addEventListener('connect', () => setText(status, 'Connected. Shift-Escape leaves the display.'));
    mine.addEventListener('disconnect', () => {
      if (rfb === mine) setText(status, 'Not connected: the guest is off, or has no VNC display.');
    });
    mine.addEventListener('securityfailure', () => toast('The display refuses the password.', true));
    mine.addEventListener('credentialsrequired', async () => {
      const password = await askPassword(`Password of the display of ${guest.name}`);
      if (password === undefined) end();
      else mine.sendCredentials({ password });
    });
  };
  screen.addEventListener(
    'keydown',
    (event) => {
      if (!event.shiftKey || event.key !== 'Escape') return;
      event.stopPropagation();
      event.preventDefault();
      leave();
    },
    { capture: true },
  );
  return {
    element: h(
      'div',
      { class: 'screen' },
      h(
        'div',
        { class: 'bar' },
        status,
        h('button', { type: 'button', click: () => rfb?.sendCtrlAltDel() }, 'Ctrl-Alt-Del'),
        h('button', { type: 'button', click: () => void screen.requestFullscreen() }, 'Full screen'),
        h('button', { type: 'button', click: () => connect() }, 'Reconnect'),
      ),
      screen,
    ),
    update: watchPower(status, connect),
    close: end,
  };
};

export const snapshotsPanel: MakePanel = (guest) => {
  const { uuid } = guest;
  const list = h('ul', { class: 'snapshots' });
  const empty = h('p', { class: 'empty' }, 'Loading…');
  const name = h('input', {
    type: 'text',
    'aria-label': 'Name of the new snapshot',
    placeholder: 'name (may be left out)',
    maxlength: '200',
  });
  const failure = h('p', { class: 'failure', role: 'alert', hidden: true });
  const run = async (work: () => Promise<unknown>): Promise<void> => {
    failure.hidden = true;
    element.toggleAttribute('data-busy', true);
    try {
      await work();
      await load();
    } catch (error) {
      setText(failure, fault(error));
      failure.hidden = false;
    } finally {
      element.toggleAttribute('data-busy', false);
    }
  };
  const sure = async (title: string, text: string, label: string, work: () => Promise<unknown>): Promise<void> => {
    if (await confirmed(title, text, label)) await run(work);
  };
  const load = async (): Promise<void> => {
    const found = await call('snapshots', { uuid });
    setText(empty, 'There are no snapshots.');
    empty.hidden = found.length > 0;
    list.replaceChildren(
      ...found.map((snap) =>
        h(
          'li',
          {},
          h(
            'div',
            {},
            h('strong', {}, snap.name),
            snap.current ? h('span', { class: 'state s1' }, 'current') : undefined,
            h('div', { class: 'facts' }, snap.created === null ? '' : new Date(snap.created * 1000).toLocaleString()),
          ),
          h(
            'div',
            { class: 'buttons' },
            h(
              'button',
              {
                type: 'button',
                click: () =>
                  void sure(`Revert to ${snap.name}`, 'What the guest has done since is lost.', 'Revert', () =>
                    call('snapshotRevert', { uuid, name: snap.name }),
                  ),
              },
              'Revert',
            ),
            h(
              'button',
              {
                type: 'button',
                class: 'danger',
                click: () =>
                  void sure(`Delete ${snap.name}`, 'The snapshot cannot be brought back.', 'Delete', () =>
                    call('snapshotDelete', { uuid, name: snap.name }),
                  ),
              },
              'Delete',
            ),
          ),
        ),
      ),
    );
  };
  const create = h(
    'form',
    {
      class: 'line',
      submit: (event) => {
        event.preventDefault();
        void run(async () => {
          await call('snapshotCreate', { uuid, name: name.value });
          name.value = '';
        });
      },
    },
    name,
    h('button', { type: 'submit', class: 'main' }, 'Take snapshot'),
  );
  const element = h('div', {}, create, failure, empty, list);
  return { element, opened: () => void run(async () => {}) };
};

export const documentPanel: MakePanel = (guest) => {
  const text = h('textarea', {
    class: 'document',
    spellcheck: 'false',
    autocapitalize: 'off',
    'aria-label': `Document of ${guest.name}`,
    wrap: 'off',
  });
  const failure = h('p', { class: 'failure', role: 'alert', hidden: true });
  const note = h('span', { role: 'status' }, '');
  const fail = (error: unknown): void => {
    setText(failure, fault(error));
    failure.hidden = false;
  };
  const load = async (kind: 'config' | 'live'): Promise<void> => {
    failure.hidden = true;
    try {
      text.value = (await call('guest', { uuid: guest.uuid }))[kind];
      text.readOnly = kind === 'live';
      save.disabled = text.readOnly;
      setText(note, kind === 'live' ? 'As the guest runs now; to read.' : 'As the guest will start next. Ctrl-S saves.');
    } catch (error) {
      fail(error);
    }
  };
  const define = async (): Promise<void> => {
    if (text.readOnly) return;
    failure.hidden = true;
    try {
      await call('define', { xml: text.value });
      await load('config');
      setText(note, 'Saved.');
    } catch (error) {
      fail(error);
    }
  };
  const save = h('button', { type: 'button', class: 'main', click: () => void define() }, 'Save');
  text.addEventListener('keydown', (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key === 's') {
      event.preventDefault();
      void define();
    }
  });
  return {
    element: h(
      'div',
      { class: 'screen' },
      h(
        'div',
        { class: 'bar' },
        note,
        h('button', { type: 'button', click: () => void load('config') }, 'Configuration'),
        h('button', { type: 'button', click: () => void load('live') }, 'Running'),
        save,
      ),
      failure,
      text,
    ),
    opened: () => void load('config'),
  };
};
