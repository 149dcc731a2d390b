// The page's end of the API: commands by fetch, pushes and channels by WebSocket.

import type { Answers, CommandArgs, CommandName, Push } from '../api.ts';

/** Carries out a command on the server. @throws Error with what the server or the daemon says */
export async function call<N extends CommandName>(name: N, args: CommandArgs<N>): Promise<Answers[N]> {
  const response = await fetch(`/api/${name}`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify(args),
  }).catch(() => {
    throw new Error('The server does not answer.');
  });
  const body: unknown = await response.json();
  if (!response.ok) throw new Error((body as { readonly error?: string }).error ?? response.statusText);
  return body as Answers[N];
}

/** The address of a channel. */
export const channel = (name: string, uuid: string): string =>
  `ws://${location.host}/ws/${name}?uuid=${encodeURIComponent(uuid)}`;

/** Listens to the server, and connects again after a loss; `link` says whether it is there. */
export function follow(push: (message: Push) => void, link: (up: boolean) => void): void {
  const socket = new WebSocket(`ws://${location.host}/ws/events`);
  socket.addEventListener('open', () => link(true));
  socket.addEventListener('message', (event) => push(JSON.parse(String(event.data)) as Push));
  socket.addEventListener('close', () => {
    link(false);
    setTimeout(() => follow(push, link), 2000);
  });
}
