// Errors of QMP and of the guest agent. QEMU "QMP Protocol Specification", section 2.4.2, and qapi/error.json (QEMU 7.2).

export const errorClasses = ['GenericError', 'CommandNotFound', 'DeviceNotActive', 'DeviceNotFound', 'KVMMissingCap'] as const;
export type QmpErrorClass = (typeof errorClasses)[number];

/** Thrown by a server's handler to be sent; a client's call rejects with it. The message is `desc`. */
export class QmpError extends Error {
  /** One of `errorClasses`, or what a newer peer sent. */
  readonly class: string;

  constructor(desc: string, errorClass: QmpErrorClass | (string & {}) = 'GenericError') {
    super(desc);
    this.class = errorClass;
  }
}
