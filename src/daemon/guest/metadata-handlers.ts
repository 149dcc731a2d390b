// Title, description and foreign metadata of a domain, in the run and in the definition.
import type { Domain } from '../../domain/domain.ts';
import { elementsOf, formatForeign, newElement, parseXml, type XmlElement } from '../../domain/xml.ts';
import { libvirtError } from '../../rpc/libvirt/errors.ts';
import type { Daemon, RemoteHandlers } from '../daemon.ts';
import { translateErrors } from '../errors.ts';
import { affects, queried } from './affect.ts';
import { saveStatus } from './status.ts';

const kind = { description: 0, title: 1, element: 2 } as const;

const uriOf = (element: XmlElement): string | undefined => {
  const prefix = element.name.includes(':') ? element.name.split(':')[0] : undefined;
  return element.attributes[prefix === undefined ? 'xmlns' : `xmlns:${prefix}`];
};

function metadataOf(domain: Domain, type: number, uri: string | undefined): string | undefined {
  if (type === kind.description) return domain.description;
  if (type === kind.title) return domain.title;
  const found = domain.metadata && elementsOf(domain.metadata).find((one) => uriOf(one) === uri);
  if (!found) return undefined;
  // libvirt hands it out under its own name, without the prefix of the document.
  const prefix = `${found.name.split(':')[0]}:`;
  if (!found.name.includes(':')) return formatForeign(found).trimEnd();
  const plain = (one: XmlElement): XmlElement => ({
    name: one.name.startsWith(prefix) ? one.name.slice(prefix.length) : one.name,
    attributes: Object.fromEntries(Object.entries(one.attributes).filter(([name]) => name !== `xmlns:${prefix.slice(0, -1)}`)),
    nodes: one.nodes.map((node) => (typeof node === 'string' ? node : plain(node))),
  });
  return formatForeign(plain(found)).trimEnd();
}

function setMetadata(
  domain: Domain,
  type: number,
  text: string | undefined,
  key: string | undefined,
  uri: string | undefined,
): void {
  if (type === kind.description) {
    if (text) domain.description = text;
    else delete domain.description;
    return;
  }
  if (type === kind.title) {
    if (text?.includes('\n')) throw libvirtError('xmlError', 'domain', "Domain title can't contain newlines");
    if (text) domain.title = text;
    else delete domain.title;
    return;
  }
  const others = domain.metadata ? elementsOf(domain.metadata).filter((one) => uriOf(one) !== uri) : [];
  if (text !== undefined) {
    const root = parseXml(text, 'metadata_xml');
    const prefixed = (one: XmlElement): XmlElement => ({
      name: one.name.includes(':') ? one.name : `${key}:${one.name}`,
      attributes: one.attributes,
      nodes: one.nodes.map((node) => (typeof node === 'string' ? node : prefixed(node))),
    });
    const named = prefixed(root);
    const { xmlns: _, ...attributes } = named.attributes;
    others.push({ ...named, attributes: { [`xmlns:${key}`]: uri ?? '', ...attributes } });
  }
  // As libvirt leaves it: an element that had something in it stays, empty.
  if (others.length > 0 || domain.metadata) domain.metadata = newElement('metadata', {}, others);
}

export function metadataHandlers(daemon: Daemon): RemoteHandlers {
  const { guests, events } = daemon;
  return translateErrors('domain', {
    domainGetMetadata({ dom, type, uri, flags }) {
      const domain = queried(guests.find(dom), flags);
      if (type > kind.element) throw libvirtError('invalidArg', 'domain', `unknown metadata type`);
      const metadata = metadataOf(domain, type, uri);
      if (metadata === undefined) throw libvirtError('noDomainMetadata', 'domain', 'Requested metadata element is not present');
      return { metadata };
    },
    async domainSetMetadata({ dom, type, metadata, key, uri, flags }) {
      const guest = guests.find(dom);
      const where = affects(guest, flags);
      await guest.lock.run('DomainSetMetadata', async () => {
        if (where.live) {
          setMetadata(guest.run!.domain, type, metadata, key, uri);
          await saveStatus(daemon.host, daemon.paths.run, guest);
        }
        if (where.config) await guests.change(guest, (domain) => setMetadata(domain, type, metadata, key, uri));
      });
      events.domain(23, guest.ref, { type, nsuri: uri });
    },
  } satisfies RemoteHandlers);
}
