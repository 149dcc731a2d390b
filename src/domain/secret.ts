// `<secret>` (libvirt 9.0, formatsecret).
import { attribute, child, element, leaf, oneOf, string, type Value, withDefault, yesNo } from './codec.ts';
import { uuidField } from './domain.ts';
import { type DefineContext, randomUuid } from './emulator.ts';
import { internalError, unsupported, xmlError } from './errors.ts';
import { formatXml, parseRoot } from './xml.ts';

const usageTypes = ['volume', 'ceph', 'iscsi', 'tls', 'vtpm'] as const;
export type SecretUsage = (typeof usageTypes)[number];

const answer = (name: string) =>
  withDefault(attribute(name, yesNo, { invalid: () => xmlError(`invalid value of '${name}'`) }), 'no' as const);

const root = element('secret', {
  ephemeral: answer('ephemeral'),
  private: answer('private'),
  uuid: uuidField,
  description: leaf('description', string),
  usage: child(
    element('usage', {
      type: attribute('type', oneOf(...usageTypes, 'none'), {
        invalid: (text) => unsupported(`unknown secret usage type ${text}`),
      }),
      volume: leaf('volume', string),
      name: leaf('name', string),
      target: leaf('target', string),
    }),
  ),
});
export type Secret = Value<typeof root>;

/** What the secret is for: the text by which `secretLookupByUsage` finds it. */
export const secretUsageId = (secret: Secret): string | undefined =>
  secret.usage?.volume ?? secret.usage?.target ?? secret.usage?.name;

/** @throws DomainXmlError with libvirt's code and message. */
export function parseSecret(text: string): Secret {
  const value = root.parse(parseRoot(text, 'secret', 'secret_definition'));
  const { usage } = value;
  if (!usage) return value;
  if (usage.type === undefined) throw xmlError('unknown secret usage type');
  if (usage.type === 'none') delete value.usage;
  else if (usage.type === 'volume' && !usage.volume) throw internalError('volume usage specified, but volume path is missing');
  else if (usage.type === 'iscsi' && !usage.target) throw internalError('iSCSI usage specified, but target is missing');
  else if (usage.type === 'ceph' && !usage.name) throw internalError('Ceph usage specified, but name is missing');
  else if (usage.type === 'tls' && !usage.name) throw internalError('TLS usage specified, but name is missing');
  else if (usage.type === 'vtpm' && !usage.name) throw internalError('vTPM usage specified, but name is missing');
  return value;
}

/** Gives the secret a UUID when it has none, in place. */
export function completeSecret(secret: Secret, random: DefineContext['random']): Secret {
  secret.uuid ??= randomUuid(random);
  return secret;
}

/** The secret's XML text as libvirt prints it; its value is never in it. */
export const formatSecret = (secret: Secret): string => formatXml(root.format(secret));
