// The device by which a guest's kernel says that it has crashed: one byte of events. QEMU docs/specs/pvpanic.rst.

import type { Handler } from '../bus/space.ts';

/** Where it usually is. */
export const PVPANIC_PORT = 0x505;
export const pvpanicEvent = { panicked: 1, crashLoaded: 2 } as const;

/** The register: reads as the events that the device takes, `events`; `happened` hears what the guest says. */
export const pvpanic = (events: number, happened: (what: 'panicked' | 'crashLoaded') => void): Handler => ({
  max: 1,
  read: () => events,
  write(_, __, value) {
    if (value & events & pvpanicEvent.panicked) happened('panicked');
    else if (value & events & pvpanicEvent.crashLoaded) happened('crashLoaded');
  },
});
