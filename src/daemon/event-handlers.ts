// Registration of clients for events. libvirt's remote protocol, version 1.
import { libvirtError } from '../rpc/libvirt/errors.ts';
import type { Daemon, RemoteHandlers } from './daemon.ts';
import { translateErrors } from './errors.ts';

export function eventHandlers({ events, guests, sessions }: Daemon): RemoteHandlers {
  return translateErrors('remote', {
    connectDomainEventCallbackRegisterAny({ eventId, dom }, call) {
      if (dom !== undefined) guests.find(dom);
      return events.register(call.connection, 'domain', eventId, dom?.uuid);
    },
    connectDomainEventCallbackDeregisterAny: ({ callbackId }, call) => events.deregister(call.connection, 'domain', callbackId),
    connectNetworkEventRegisterAny: ({ eventId, net }, call) => events.register(call.connection, 'network', eventId, net?.uuid),
    connectNetworkEventDeregisterAny: ({ callbackId }, call) => events.deregister(call.connection, 'network', callbackId),
    connectStoragePoolEventRegisterAny: ({ eventId, pool }, call) =>
      events.register(call.connection, 'pool', eventId, pool?.uuid),
    connectStoragePoolEventDeregisterAny: ({ callbackId }, call) => events.deregister(call.connection, 'pool', callbackId),
    connectNodeDeviceEventRegisterAny: ({ eventId, dev }, call) =>
      events.register(call.connection, 'nodeDevice', eventId, dev?.name),
    connectNodeDeviceEventDeregisterAny: ({ callbackId }, call) => events.deregister(call.connection, 'nodeDevice', callbackId),
    connectSecretEventRegisterAny: ({ eventId, secret }, call) =>
      events.register(call.connection, 'secret', eventId, secret?.uuid),
    connectSecretEventDeregisterAny: ({ callbackId }, call) => events.deregister(call.connection, 'secret', callbackId),
    connectRegisterCloseCallback(_, call) {
      const session = sessions.of(call);
      if (session.wantsCloseMessage) throw libvirtError('operationInvalid', 'rpc', 'A close callback is already registered');
      session.wantsCloseMessage = true;
    },
    connectUnregisterCloseCallback(_, call) {
      sessions.of(call).wantsCloseMessage = false;
    },
  } satisfies RemoteHandlers);
}
