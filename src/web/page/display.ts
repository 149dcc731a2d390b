// The page of `nonroot run --display web`: the display of one guest, in the whole window.

import RFB from '@novnc/novnc';
import { channel } from './client.ts';
import { h, setText } from './dom.ts';

const screen = h('div', { class: 'display' });
const status = h('span', { role: 'status' }, 'Connecting…');
const bar = h(
  'div',
  { class: 'bar' },
  status,
  h('button', { type: 'button', click: () => rfb.sendCtrlAltDel() }, 'Ctrl-Alt-Del'),
  h('button', { type: 'button', click: () => void screen.requestFullscreen() }, 'Full screen'),
);
document.body.append(h('main', { class: 'screen alone' }, bar, screen));

const rfb = new RFB(screen, channel('display', ''), { shared: true });
rfb.scaleViewport = true;
rfb.background = 'transparent';
rfb.addEventListener('connect', () => {
  setText(status, 'Connected.');
  rfb.focus();
});
rfb.addEventListener('disconnect', () => setText(status, 'Not connected: the guest has ended.'));
