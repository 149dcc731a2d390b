// `virtio-balloon-pci`: memory that the guest gives back, and its statistics.

import { BalloonIo, balloonLayout, balloonModel, statisticNames } from '../../devices/virtio/balloon.ts';
import { bool, named } from '../properties.ts';
import { virtioTypes } from './virtio.ts';

const PAGE = 4096;
/** What has not been told. */
const UNKNOWN = 2n ** 64n - 1n;

export const virtioBalloon = virtioTypes({
  name: 'virtio-balloon',
  category: 'Misc',
  description: 'memory that the guest gives back',
  classCode: 0x00_ff00,
  vectors: () => 0,
  legacy: true,
  properties: {
    'deflate-on-oom': bool(false),
    'free-page-reporting': bool(false),
    iothread: named('iothread', 'accepted; nothing is done on the vCPUs'),
  },
  parts(ctx, p) {
    const s = ctx.arena.alloc(balloonLayout, ctx.name);
    const options = { deflateOnOom: p['deflate-on-oom'], reporting: p['free-page-reporting'] };
    const total = ctx.ram;
    return {
      model: balloonModel(s, options, () => ctx.notify('BALLOON_CHANGE', { actual: total - s.actual * PAGE })),
      reset() {
        s.wanted = 0;
      },
      io(core, services) {
        const io = new BalloonIo(core, s, options, {
          release: (gpa, length) => services.release(gpa, length),
          seconds: () => ctx.wall.epochSeconds(),
        });
        let interval = 0;
        let timer: { cancel(): void } | undefined;
        const poll = (): void => {
          timer?.cancel();
          if (interval === 0) return;
          io.ask();
          timer = services.after(1000 * interval, poll);
        };
        return {
          balloon: {
            set: (bytes) => io.want(Math.max(0, Math.floor((total - bytes) / PAGE))),
            actual: () => total - io.actual * PAGE,
          },
          properties: {
            'guest-stats': {
              type: 'guest statistics',
              get: () => ({
                stats: Object.fromEntries(statisticNames.map((name, tag) => [name, io.statistics[tag] ?? UNKNOWN])),
                'last-update': io.updated,
              }),
            },
            'guest-stats-polling-interval': {
              type: 'int',
              get: () => interval,
              set: (value) => {
                if (typeof value !== 'number' || !(value >= 0 && value <= 0xffff_ffff))
                  throw new Error('timer value must be between 0 and 4294967295');
                interval = Math.floor(value);
                poll();
              },
            },
          },
          reset: () => io.reset(),
          close: () => timer?.cancel(),
        };
      },
    };
  },
});
