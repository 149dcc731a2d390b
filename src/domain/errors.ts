// The errors of XML documents, with libvirt's error numbers and message prefixes (libvirt 9.0, virterror.h and the daemon's answers).

/** libvirt's error numbers (`virErrorNumber`) that a document can cause. */
export const errorCode = {
  internal: 1,
  invalidArgument: 8,
  noSource: 19,
  noTarget: 20,
  noName: 21,
  xml: 27,
  malformed: 35,
  system: 38,
  invalidOperation: 55,
  unsupported: 67,
} as const;

export type ErrorCode = (typeof errorCode)[keyof typeof errorCode];

/** What libvirt puts before the message, by error number. */
const prefixes: Readonly<Record<ErrorCode, string>> = {
  1: 'internal error: ',
  8: 'invalid argument: ',
  19: 'missing source information for device ',
  20: 'missing target information for device',
  21: 'missing name information',
  27: 'XML error: ',
  35: '',
  38: '',
  55: 'Requested operation is not valid: ',
  67: 'unsupported configuration: ',
};

/** A document that cannot be accepted; `code` is libvirt's error number, `message` its full text with the prefix. */
export class DomainXmlError extends Error {
  readonly code: ErrorCode;

  constructor(code: ErrorCode, detail: string) {
    super(prefixes[code] + detail);
    this.name = 'DomainXmlError';
    this.code = code;
  }
}

/** `XML error: …`: the document says something that its grammar does not allow. */
export const xmlError = (detail: string): DomainXmlError => new DomainXmlError(errorCode.xml, detail);

/** `unsupported configuration: …`: well-formed and understood, and not possible. */
export const unsupported = (detail: string): DomainXmlError => new DomainXmlError(errorCode.unsupported, detail);

/** `internal error: …`, which libvirt also uses for a few mistakes in documents. */
export const internalError = (detail: string): DomainXmlError => new DomainXmlError(errorCode.internal, detail);
