// A small plot of one value over time, as SVG with the last value in words.

import type { GuestSample } from '../api.ts';
import { h, setText } from './dom.ts';
import { moments, type Series, type Values } from './history.ts';

const space = 'http://www.w3.org/2000/svg';
const height = 40;

function svg(name: string, attributes: Readonly<Record<string, string>>): SVGElement {
  const element = document.createElementNS(space, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

export class Plot {
  readonly element: HTMLElement;
  readonly #series: Series;
  readonly #value = h('span', { class: 'value' });
  readonly #top = h('span', { class: 'top' });
  readonly #line = svg('path', { class: 'line', 'vector-effect': 'non-scaling-stroke' });
  readonly #area = svg('path', { class: 'area' });

  constructor(series: Series) {
    this.#series = series;
    const picture = svg('svg', { viewBox: `0 0 ${moments - 1} ${height}`, preserveAspectRatio: 'none', 'aria-hidden': 'true' });
    picture.append(this.#area, this.#line);
    this.element = h(
      'div',
      { class: `plot ${series.key}` },
      h('div', { class: 'caption' }, h('span', { class: 'title' }, series.title), this.#value),
      picture as Node,
      this.#top,
    );
  }

  update(values: Values, guest: GuestSample): void {
    const list = values[this.#series.key];
    const last = list.at(-1);
    setText(this.#value, last === null || last === undefined ? '–' : this.#series.text(last, guest));
    const largest = Math.max(0, ...list.map((value) => value ?? 0));
    const top = this.#series.top(guest) ?? Math.max(1024, largest);
    setText(this.#top, largest > 0 ? `of ${this.#series.text(top, guest)}` : '');
    let line = '';
    let area = '';
    let begin = -1;
    for (let i = 0; i <= list.length; i++) {
      const value = list[i];
      const x = moments - list.length + i;
      if (value === null || value === undefined) {
        if (begin >= 0) area += `L${x - 1} ${height}Z`;
        begin = -1;
        continue;
      }
      const y = (height - 1 - Math.min(1, value / top) * (height - 2)).toFixed(1);
      line += `${begin < 0 ? 'M' : 'L'}${x} ${y}`;
      area += begin < 0 ? `M${x} ${height}L${x} ${y}` : `L${x} ${y}`;
      if (begin < 0) begin = x;
    }
    this.#line.setAttribute('d', line);
    this.#area.setAttribute('d', area);
  }
}
