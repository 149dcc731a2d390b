// XML text to a tree and back, in the shape that libvirt 9.0 prints: two spaces of indent, single quotes (XML 1.0, Namespaces in XML 1.0).
import { SaxesParser } from 'saxes';
import { DomainXmlError, errorCode, xmlError } from './errors.ts';

export type XmlNode = XmlElement | string;

/** An element with its qualified name as written; text between elements is kept only in mixed content. */
export interface XmlElement {
  name: string;
  attributes: Record<string, string>;
  nodes: XmlNode[];
}

/** The namespace of libvirt's QEMU extension; its elements are always named with the prefix `qemu`. */
export const qemuNamespace = 'http://libvirt.org/schemas/domain/qemu/1.0';

/** As libxml2's default; deeper documents are refused. */
const maxDepth = 256;

/**
 * The root element of `text`. `what` names the document in the message of a malformed one (`(domain_definition):1: …`).
 * @throws DomainXmlError code 35 when the text is not well-formed.
 */
export function parseXml(text: string, what = 'domain_definition'): XmlElement {
  const parser = new SaxesParser({ xmlns: true, position: true });
  const stack: XmlElement[] = [];
  let root: XmlElement | undefined;
  const fail = (detail: string): DomainXmlError => new DomainXmlError(errorCode.malformed, `(${what}):${parser.line}: ${detail}`);
  parser.on('error', (error) => {
    throw fail(error.message.replace(/^\d+:\d+: /, ''));
  });
  parser.on('opentag', (tag) => {
    if (stack.length >= maxDepth) throw fail(`Excessive depth in document: ${maxDepth}`);
    const attributes: Record<string, string> = {};
    for (const { name, value } of Object.values(tag.attributes)) {
      if (name.startsWith('xmlns:') && value === qemuNamespace) continue;
      attributes[name] = value;
    }
    const element: XmlElement = { name: tag.uri === qemuNamespace ? `qemu:${tag.local}` : tag.name, attributes, nodes: [] };
    stack.at(-1)?.nodes.push(element);
    root ??= element;
    stack.push(element);
  });
  parser.on('closetag', () => {
    const element = stack.pop()!;
    const mixed = element.nodes.some((node) => typeof node === 'string' && node.trim() !== '');
    if (!mixed && element.nodes.some((node) => typeof node !== 'string')) {
      element.nodes = element.nodes.filter((node) => typeof node !== 'string');
    }
  });
  const addText = (value: string): void => {
    const nodes = stack.at(-1)?.nodes;
    if (!nodes) return;
    if (typeof nodes.at(-1) === 'string') nodes[nodes.length - 1] += value;
    else nodes.push(value);
  };
  parser.on('text', addText);
  parser.on('cdata', addText);
  parser.write(text).close();
  if (!root) throw fail('Document is empty');
  return root;
}

/**
 * The root of `text`, which must be named `name`.
 * @throws DomainXmlError code 35 when malformed, 27 when it is another element.
 */
export function parseRoot(text: string, name: string, what: string): XmlElement {
  const root = parseXml(text, what);
  if (root.name !== name) throw xmlError(`expecting root element of '${name}', not '${root.name}'`);
  return root;
}

export const newElement = (name: string, attributes: Record<string, string> = {}, nodes: XmlNode[] = []): XmlElement => ({
  name,
  attributes,
  nodes,
});

/** The element children, in order. */
export const elementsOf = (element: XmlElement): XmlElement[] =>
  element.nodes.filter((node): node is XmlElement => typeof node !== 'string');

export const childNamed = (element: XmlElement, name: string): XmlElement | undefined =>
  elementsOf(element).find((child) => child.name === name);

/** The text directly in the element, not that of its children. */
export const textOf = (element: XmlElement): string => element.nodes.filter((node) => typeof node === 'string').join('');

const entities: Readonly<Record<string, string>> = { '<': '&lt;', '>': '&gt;', '&': '&amp;', "'": '&apos;', '"': '&quot;' };
const escapeText = (value: string): string => value.replace(/[<>&'"]/g, (c) => entities[c]!).replaceAll('\r', '&#13;');
const escapeAttribute = (value: string): string => escapeText(value).replace(/[\n\t]/g, (c) => (c === '\n' ? '&#10;' : '&#9;'));
/** libxml2's own printer, which libvirt uses below `<metadata>`: double quotes, and quotes in text stay as they are. */
const escapeForeignText = (value: string): string => value.replace(/[<>&]/g, (c) => entities[c]!).replaceAll('\r', '&#13;');
const escapeForeignAttribute = (value: string): string =>
  value.replace(/[<>&"]/g, (c) => entities[c]!).replace(/[\n\t\r]/g, (c) => `&#${c.charCodeAt(0)};`);

/** The element as libvirt prints it, with a newline at the end; children of `metadata` as libxml2 prints them. */
export function formatXml(element: XmlElement, indent = ''): string {
  return formatNode(element, indent, false);
}

/** The element as libxml2 prints it, as below `<metadata>`. */
export const formatForeign = (element: XmlElement): string => formatNode(element, '', true);

function formatNode(element: XmlElement, indent: string, foreign: boolean): string {
  const { name, nodes } = element;
  let start = `${indent}<${name}`;
  for (const [key, value] of Object.entries(element.attributes)) {
    start += foreign ? ` ${key}="${escapeForeignAttribute(value)}"` : ` ${key}='${escapeAttribute(value)}'`;
  }
  if (nodes.length === 0) return `${start}/>\n`;
  if (nodes.some((node) => typeof node === 'string')) {
    const inner = nodes.map((node) => {
      if (typeof node === 'string') return foreign ? escapeForeignText(node) : escapeText(node);
      return formatNode(node, '', foreign).trimEnd();
    });
    return `${start}>${inner.join('')}</${name}>\n`;
  }
  const below = foreign || name === 'metadata';
  const inner = nodes.map((node) => formatNode(node as XmlElement, `${indent}  `, below));
  return `${start}>\n${inner.join('')}${indent}</${name}>\n`;
}
