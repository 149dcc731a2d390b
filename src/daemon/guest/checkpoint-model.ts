// `<domaincheckpoint>` (libvirt 9.0, formatcheckpoint).
import { attribute, child, children, element, leaf, oneOf, required, string, unsigned, type Value } from '../../domain/codec.ts';
import { type Domain, domainElement, readDomain } from '../../domain/domain.ts';
import { errorCode } from '../../domain/errors.ts';
import { checkName } from '../../domain/model/sizes.ts';
import { formatXml, parseRoot } from '../../domain/xml.ts';

const disk = element('disk', {
  name: required('name', string),
  checkpoint: attribute('checkpoint', oneOf('no', 'bitmap')),
  bitmap: attribute('bitmap', string),
  size: attribute('size', unsigned),
});

const root = element('domaincheckpoint', {
  name: leaf('name', string),
  description: leaf('description', string),
  parent: child(element('parent', { name: leaf('name', string) })),
  creationTime: leaf('creationTime', unsigned),
  disks: child(element('disks', { disks: children(disk) })),
  domain: child({
    name: 'domain',
    parse: readDomain,
    format: (value: Domain) => domainElement(value),
  }),
});
export type Checkpoint = Value<typeof root>;

/** @throws DomainXmlError with libvirt's code and message. */
export function parseCheckpoint(text: string): Checkpoint {
  const value = root.parse(parseRoot(text, 'domaincheckpoint', 'domain_checkpoint'));
  if (value.name !== undefined) checkName(value.name, errorCode.xml, 'checkpoint name cannot be empty');
  return value;
}
export const formatCheckpoint = (checkpoint: Checkpoint): string => formatXml(root.format(checkpoint));
