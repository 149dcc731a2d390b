// Registration for events and the messages that bring them. libvirt's remote protocol, version 1, as of 9.0.
// A client registers once for each event id (and object) and gets a callback id, which each message then carries; the forms
// without one are what clients older than 1.3 ask for.
import { array, hyper, int, nothing, optional, struct, unsigned, unsignedHyper } from '../xdr.ts';
import { message, proc } from './procedure.ts';
import { domain, limits, network, nodeDevice, optionalText, params, secret, storagePool, text } from './types.ts';

/** Domain event ids of `connectDomainEventCallbackRegisterAny`. */
export const domainEventIds = {
  lifecycle: 0,
  reboot: 1,
  rtcChange: 2,
  watchdog: 3,
  ioError: 4,
  graphics: 5,
  ioErrorReason: 6,
  controlError: 7,
  blockJob: 8,
  diskChange: 9,
  trayChange: 10,
  pmWakeup: 11,
  pmSuspend: 12,
  balloonChange: 13,
  pmSuspendDisk: 14,
  deviceRemoved: 15,
  blockJob2: 16,
  tunable: 17,
  agentLifecycle: 18,
  deviceAdded: 19,
  migrationIteration: 20,
  jobCompleted: 21,
  deviceRemovalFailed: 22,
  metadataChange: 23,
  blockThreshold: 24,
  memoryFailure: 25,
  memoryDeviceSizeChange: 26,
} as const;

const callback = struct({ callbackId: int });
const eventId = struct({ eventId: int });
const registered = struct({ registered: int });

export const eventProcedures = {
  connectDomainEventRegister: proc(105, nothing, registered),
  connectDomainEventDeregister: proc(106, nothing, registered),
  connectDomainEventRegisterAny: proc(167, eventId, nothing),
  connectDomainEventDeregisterAny: proc(168, eventId, nothing),
  connectDomainEventCallbackRegisterAny: proc(316, struct({ eventId: int, dom: optional(domain) }), callback),
  connectDomainEventCallbackDeregisterAny: proc(317, callback, nothing),
  connectNetworkEventRegisterAny: proc(313, struct({ eventId: int, net: optional(network) }), callback),
  connectNetworkEventDeregisterAny: proc(314, callback, nothing),
  connectStoragePoolEventRegisterAny: proc(368, struct({ eventId: int, pool: optional(storagePool) }), callback),
  connectStoragePoolEventDeregisterAny: proc(369, callback, nothing),
  connectNodeDeviceEventRegisterAny: proc(374, struct({ eventId: int, dev: optional(nodeDevice) }), callback),
  connectNodeDeviceEventDeregisterAny: proc(375, callback, nothing),
  connectSecretEventRegisterAny: proc(380, struct({ eventId: int, secret: optional(secret) }), callback),
  connectSecretEventDeregisterAny: proc(381, callback, nothing),
} as const;

const dom = struct({ dom: domain });
const lifecycle = struct({ dom: domain, event: int, detail: int });
const rtcChange = struct({ dom: domain, offset: hyper });
const watchdog = struct({ dom: domain, action: int });
const ioError = struct({ dom: domain, srcPath: text, devAlias: text, action: int });
const ioErrorReason = struct({ dom: domain, srcPath: text, devAlias: text, action: int, reason: text });
const address = struct({ family: int, node: text, service: text });
const graphics = struct({
  dom: domain,
  phase: int,
  local: address,
  remote: address,
  authScheme: text,
  subject: array(struct({ type: text, name: text }), 20),
});
const blockJob = struct({ dom: domain, path: text, type: int, status: int });
const diskChange = struct({
  dom: domain,
  oldSrcPath: optionalText,
  newSrcPath: optionalText,
  devAlias: text,
  reason: int,
});
const trayChange = struct({ dom: domain, devAlias: text, reason: int });
const balloonChange = struct({ dom: domain, actual: unsignedHyper });
const deviceRemoved = struct({ dom: domain, devAlias: text });
const withCallback = { callbackId: int };
const suspended = struct({ ...withCallback, reason: int, msg: dom });
const device = struct({ ...withCallback, dom: domain, devAlias: text });

export const eventMessages = {
  domainEventLifecycle: message(107, lifecycle),
  domainEventReboot: message(169, dom),
  domainEventRtcChange: message(170, rtcChange),
  domainEventWatchdog: message(171, watchdog),
  domainEventIoError: message(172, ioError),
  domainEventGraphics: message(173, graphics),
  domainEventIoErrorReason: message(195, ioErrorReason),
  domainEventControlError: message(224, dom),
  domainEventBlockJob: message(241, blockJob),
  domainEventDiskChange: message(248, diskChange),
  domainEventTrayChange: message(268, trayChange),
  domainEventPmwakeup: message(269, dom),
  domainEventPmsuspend: message(270, dom),
  domainEventBalloonChange: message(276, balloonChange),
  domainEventPmsuspendDisk: message(292, dom),
  domainEventDeviceRemoved: message(311, deviceRemoved),

  domainEventCallbackLifecycle: message(318, struct({ ...withCallback, msg: lifecycle })),
  domainEventCallbackReboot: message(319, struct({ ...withCallback, msg: dom })),
  domainEventCallbackRtcChange: message(320, struct({ ...withCallback, msg: rtcChange })),
  domainEventCallbackWatchdog: message(321, struct({ ...withCallback, msg: watchdog })),
  domainEventCallbackIoError: message(322, struct({ ...withCallback, msg: ioError })),
  domainEventCallbackGraphics: message(323, struct({ ...withCallback, msg: graphics })),
  domainEventCallbackIoErrorReason: message(324, struct({ ...withCallback, msg: ioErrorReason })),
  domainEventCallbackControlError: message(325, struct({ ...withCallback, msg: dom })),
  domainEventCallbackBlockJob: message(326, struct({ ...withCallback, msg: blockJob })),
  domainEventCallbackDiskChange: message(327, struct({ ...withCallback, msg: diskChange })),
  domainEventCallbackTrayChange: message(328, struct({ ...withCallback, msg: trayChange })),
  domainEventCallbackPmwakeup: message(329, suspended),
  domainEventCallbackPmsuspend: message(330, suspended),
  domainEventCallbackBalloonChange: message(331, struct({ ...withCallback, msg: balloonChange })),
  domainEventCallbackPmsuspendDisk: message(332, suspended),
  domainEventCallbackDeviceRemoved: message(333, struct({ ...withCallback, msg: deviceRemoved })),
  domainEventBlockJob2: message(339, struct({ ...withCallback, dom: domain, dst: text, type: int, status: int })),
  domainEventCallbackTunable: message(346, struct({ ...withCallback, dom: domain, params: params(2048) })),
  domainEventCallbackAgentLifecycle: message(348, struct({ ...withCallback, dom: domain, state: int, reason: int })),
  domainEventCallbackDeviceAdded: message(354, device),
  domainEventCallbackMigrationIteration: message(359, struct({ ...withCallback, dom: domain, iteration: int })),
  domainEventCallbackJobCompleted: message(363, struct({ ...withCallback, dom: domain, params: params(limits.more) })),
  domainEventCallbackDeviceRemovalFailed: message(367, device),
  domainEventCallbackMetadataChange: message(379, struct({ ...withCallback, dom: domain, type: int, nsuri: optionalText })),
  domainEventBlockThreshold: message(
    385,
    struct({
      ...withCallback,
      dom: domain,
      dev: text,
      path: optionalText,
      threshold: unsignedHyper,
      excess: unsignedHyper,
    }),
  ),
  domainEventMemoryFailure: message(423, struct({ ...withCallback, dom: domain, recipient: int, action: int, flags: unsigned })),
  domainEventMemoryDeviceSizeChange: message(438, struct({ ...withCallback, dom: domain, alias: text, size: unsignedHyper })),

  connectEventConnectionClosed: message(362, struct({ reason: int })),
  networkEventLifecycle: message(315, struct({ ...withCallback, net: network, event: int, detail: int })),
  storagePoolEventLifecycle: message(370, struct({ ...withCallback, pool: storagePool, event: int, detail: int })),
  storagePoolEventRefresh: message(373, struct({ ...withCallback, pool: storagePool })),
  nodeDeviceEventLifecycle: message(376, struct({ ...withCallback, dev: nodeDevice, event: int, detail: int })),
  nodeDeviceEventUpdate: message(377, struct({ ...withCallback, dev: nodeDevice })),
  secretEventLifecycle: message(382, struct({ ...withCallback, secret, event: int, detail: int })),
  secretEventValueChanged: message(383, struct({ ...withCallback, secret })),
} as const;
