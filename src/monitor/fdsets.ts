// Sets of file descriptors that `/dev/fdset/N` names: add-fd, `-add-fd`. QEMU 7.2 "QEMU QMP Reference Manual", qapi/misc.json.

import { QmpError } from '../rpc/qmp/error.ts';

interface Entry {
  readonly fd: number;
  readonly opaque?: string;
}

export class Fdsets {
  readonly #sets = new Map<number, Entry[]>();

  add(fd: number, id: number | undefined, opaque: string | undefined): { 'fdset-id': number; fd: number } {
    if (id !== undefined && id < 0) throw new QmpError("Parameter 'fdset-id' expects a non-negative value");
    let set = id ?? 0;
    if (id === undefined) while (this.#sets.has(set)) set++;
    const entries = this.#sets.get(set) ?? [];
    entries.push({ fd, ...(opaque === undefined ? {} : { opaque }) });
    this.#sets.set(set, entries);
    return { 'fdset-id': set, fd };
  }
  /** Takes descriptors out; the caller closes them. @throws QmpError */
  remove(id: number, fd: number | undefined): readonly number[] {
    const set = this.#sets.get(id);
    const gone = set?.filter((e) => fd === undefined || e.fd === fd) ?? [];
    if (!set || gone.length === 0)
      throw new QmpError(`File descriptor named '${fd === undefined ? `fdset-id:${id}` : `fdset-id:${id}, fd:${fd}`}' not found`);
    const left = set.filter((e) => !gone.includes(e));
    if (left.length > 0) this.#sets.set(id, left);
    else this.#sets.delete(id);
    return gone.map((e) => e.fd);
  }
  list(): { 'fdset-id': number; fds: Entry[] }[] {
    return [...this.#sets].map(([id, fds]) => ({ 'fdset-id': id, fds }));
  }
  /** A descriptor of a set, for `/dev/fdset/N`. */
  first(id: number): number | undefined {
    return this.#sets.get(id)?.[0]?.fd;
  }
}
