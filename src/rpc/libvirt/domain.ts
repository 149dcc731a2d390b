// Procedures of domains: look-up, life cycle, definition, devices, CPUs, memory, statistics, guest agent.
// libvirt's remote protocol, version 1, as of 9.0.
import { array, flag, hyper, int, nothing, struct, unsigned, unsignedChar, unsignedHyper, unsignedShort } from '../xdr.ts';
import { proc } from './procedure.ts';
import {
  byName,
  byUuid,
  dom,
  domFlags,
  domParams,
  domPath,
  domPathFlags,
  domRoom,
  domXmlFlags,
  list,
  maxNames,
  num,
  paramsAndCount,
  paramsOnly,
  result,
  xmlFlags,
  xmlText,
} from './shapes.ts';
import { charText, cpumap, cpumaps, domain, limits, names, optionalText, params, peekBuffer, text } from './types.ts';

const securityLabel = struct({ label: charText(4097), enforcing: flag });
const vcpuInfo = struct({ number: unsigned, state: int, cpuTime: unsignedHyper, cpu: int });
const memory = struct({ dom: domain, memory: unsignedHyper });
const threadId = struct({ dom: domain, iothreadId: unsigned, flags: unsigned });
const duration = struct({ dom: domain, target: unsigned, duration: unsignedHyper, flags: unsigned });
const mountpoints = struct({ dom: domain, mountpoints: names(256), flags: unsigned });
const filesystems = struct({ filesystems: int });
const blockTune = 32;
const perCpuStats = 2048;

const address = struct({ type: int, addr: text, prefix: unsigned });
const guestInterface = struct({ name: text, hwaddr: optionalText, addrs: array(address, 2048) });
const filesystem = struct({ mountpoint: text, name: text, fstype: text, devAliases: names(256) });

export const domainProcedures = {
  connectNumOfDomains: proc(51, nothing, num),
  connectListDomains: proc(37, struct({ maxIds: int }), struct({ ids: array(int, limits.objects) })),
  connectNumOfDefinedDomains: proc(25, nothing, num),
  connectListDefinedDomains: proc(21, maxNames, struct({ names: names() })),
  connectListAllDomains: proc(273, list, struct({ domains: array(domain, limits.objects), ret: unsigned })),
  domainLookupById: proc(22, struct({ id: int }), dom),
  domainLookupByName: proc(23, byName, dom),
  domainLookupByUuid: proc(24, byUuid, dom),

  domainCreate: proc(9, dom, nothing),
  domainCreateWithFlags: proc(196, domFlags, dom),
  domainCreateWithFiles: proc(310, domFlags, dom, { fds: 'call' }),
  domainCreateXml: proc(10, xmlFlags, dom),
  domainCreateXmlWithFiles: proc(309, xmlFlags, dom, { fds: 'call' }),
  domainDefineXml: proc(11, xmlText, dom),
  domainDefineXmlFlags: proc(350, xmlFlags, dom),
  domainUndefine: proc(35, dom, nothing),
  domainUndefineFlags: proc(231, domFlags, nothing),
  domainDestroy: proc(12, dom, nothing),
  domainDestroyFlags: proc(234, domFlags, nothing),
  domainShutdown: proc(33, dom, nothing),
  domainShutdownFlags: proc(258, domFlags, nothing),
  domainReboot: proc(27, domFlags, nothing),
  domainReset: proc(245, domFlags, nothing),
  domainSuspend: proc(34, dom, nothing),
  domainResume: proc(28, dom, nothing),
  domainPmSuspendForDuration: proc(261, duration, nothing),
  domainPmWakeup: proc(267, domFlags, nothing),
  domainRename: proc(358, struct({ dom: domain, name: optionalText, flags: unsigned }), struct({ ret: int })),
  domainGetAutostart: proc(15, dom, struct({ autostart: flag })),
  domainSetAutostart: proc(29, struct({ dom: domain, autostart: flag }), nothing),
  domainSetLifecycleAction: proc(390, struct({ dom: domain, type: unsigned, action: unsigned, flags: unsigned }), nothing),
  domainFdAssociate: proc(443, struct({ dom: domain, name: text, flags: unsigned }), nothing, { fds: 'call' }),

  domainGetXmlDesc: proc(14, domFlags, xmlText),
  /** `memory` and `maxMem` in KiB, `cpuTime` in ns. */
  domainGetInfo: proc(
    16,
    dom,
    struct({
      state: unsignedChar,
      maxMem: unsignedHyper,
      memory: unsignedHyper,
      vcpus: unsignedShort,
      cpuTime: unsignedHyper,
    }),
  ),
  domainGetState: proc(212, domFlags, struct({ state: int, reason: int })),
  domainGetControlInfo: proc(229, domFlags, struct({ state: unsigned, details: unsigned, stateTime: unsignedHyper })),
  domainGetOsType: proc(19, dom, struct({ type: text })),
  domainGetHostname: proc(277, domFlags, struct({ hostname: text })),
  domainIsActive: proc(150, dom, struct({ active: flag })),
  domainIsPersistent: proc(151, dom, struct({ persistent: flag })),
  domainIsUpdated: proc(202, dom, struct({ updated: flag })),
  domainGetMessages: proc(426, domFlags, struct({ msgs: names(2048) })),
  domainSetMetadata: proc(
    264,
    struct({ dom: domain, type: int, metadata: optionalText, key: optionalText, uri: optionalText, flags: unsigned }),
    nothing,
  ),
  domainGetMetadata: proc(
    265,
    struct({ dom: domain, type: int, uri: optionalText, flags: unsigned }),
    struct({ metadata: text }),
  ),
  domainGetSecurityLabel: proc(121, dom, securityLabel),
  domainGetSecurityLabelList: proc(278, dom, struct({ labels: array(securityLabel, 64), ret: int })),
  domainGetLaunchSecurityInfo: proc(396, domFlags, paramsOnly(limits.more)),
  domainSetLaunchSecurityState: proc(439, domParams(limits.more), nothing),

  domainAttachDevice: proc(8, struct({ dom: domain, xml: text }), nothing),
  domainAttachDeviceFlags: proc(160, domXmlFlags, nothing),
  domainDetachDevice: proc(13, struct({ dom: domain, xml: text }), nothing),
  domainDetachDeviceFlags: proc(161, domXmlFlags, nothing),
  domainDetachDeviceAlias: proc(392, struct({ dom: domain, alias: text, flags: unsigned }), nothing),
  domainUpdateDeviceFlags: proc(174, domXmlFlags, nothing),
  domainOpenConsole: proc(201, struct({ dom: domain, device: optionalText, flags: unsigned }), nothing, { stream: 'from' }),
  domainOpenChannel: proc(296, struct({ dom: domain, name: optionalText, flags: unsigned }), nothing, { stream: 'from' }),
  domainOpenGraphics: proc(249, struct({ dom: domain, index: unsigned, flags: unsigned }), nothing, { fds: 'call' }),
  domainOpenGraphicsFd: proc(343, struct({ dom: domain, index: unsigned, flags: unsigned }), nothing, { fds: 'reply' }),
  domainScreenshot: proc(211, struct({ dom: domain, screen: unsigned, flags: unsigned }), struct({ mime: optionalText }), {
    stream: 'from',
  }),
  domainInjectNmi: proc(210, domFlags, nothing),
  domainSendKey: proc(
    226,
    struct({ dom: domain, codeset: unsigned, holdTime: unsigned, keycodes: array(unsigned, 16), flags: unsigned }),
    nothing,
  ),
  domainSendProcessSignal: proc(295, struct({ dom: domain, pid: hyper, signal: unsigned, flags: unsigned }), nothing),

  domainGetMaxVcpus: proc(18, dom, num),
  domainGetVcpus: proc(
    20,
    struct({ dom: domain, maxInfo: int, mapLength: int }),
    struct({ info: array(vcpuInfo, limits.objects), cpumaps }),
  ),
  domainSetVcpus: proc(32, struct({ dom: domain, vcpus: unsigned }), nothing),
  domainSetVcpusFlags: proc(199, struct({ dom: domain, vcpus: unsigned, flags: unsigned }), nothing),
  domainGetVcpusFlags: proc(200, domFlags, num),
  domainSetVcpu: proc(384, struct({ dom: domain, cpumap: text, state: int, flags: unsigned }), nothing),
  domainPinVcpu: proc(26, struct({ dom: domain, vcpu: unsigned, cpumap }), nothing),
  domainPinVcpuFlags: proc(225, struct({ dom: domain, vcpu: unsigned, cpumap, flags: unsigned }), nothing),
  domainGetVcpuPinInfo: proc(
    230,
    struct({ dom: domain, maps: int, mapLength: int, flags: unsigned }),
    struct({ cpumaps, num: int }),
  ),
  domainPinEmulator: proc(279, struct({ dom: domain, cpumap, flags: unsigned }), nothing),
  domainGetEmulatorPinInfo: proc(280, struct({ dom: domain, mapLength: int, flags: unsigned }), struct({ cpumaps, ret: int })),
  domainGetIothreadInfo: proc(
    351,
    domFlags,
    struct({ info: array(struct({ iothreadId: unsigned, cpumap }), limits.objects), ret: unsigned }),
  ),
  domainPinIothread: proc(352, struct({ dom: domain, iothreadId: unsigned, cpumap, flags: unsigned }), nothing),
  domainAddIothread: proc(355, threadId, nothing),
  domainDelIothread: proc(356, threadId, nothing),
  domainSetIothreadParams: proc(
    402,
    struct({ dom: domain, iothreadId: unsigned, params: params(limits.more), flags: unsigned }),
    nothing,
  ),
  domainGetGuestVcpus: proc(371, domFlags, paramsOnly(limits.more)),
  domainSetGuestVcpus: proc(372, struct({ dom: domain, cpumap: text, state: int, flags: unsigned }), nothing),

  /** KiB, like all memory of this table. */
  domainGetMaxMemory: proc(17, dom, struct({ memory: unsignedHyper })),
  domainSetMaxMemory: proc(30, memory, nothing),
  domainSetMemory: proc(31, memory, nothing),
  domainSetMemoryFlags: proc(204, struct({ dom: domain, memory: unsignedHyper, flags: unsigned }), nothing),
  domainSetMemoryStatsPeriod: proc(308, struct({ dom: domain, period: int, flags: unsigned }), nothing),
  domainMemoryStats: proc(
    159,
    struct({ dom: domain, maxStats: unsigned, flags: unsigned }),
    struct({ stats: array(struct({ tag: int, value: unsignedHyper }), 1024) }),
  ),
  domainMemoryPeek: proc(
    104,
    struct({ dom: domain, offset: unsignedHyper, size: unsigned, flags: unsigned }),
    struct({ buffer: peekBuffer }),
  ),
  domainStartDirtyRateCalc: proc(427, struct({ dom: domain, seconds: int, flags: unsigned }), nothing),

  domainGetSchedulerType: proc(56, dom, struct({ type: text, nparams: int })),
  domainGetSchedulerParameters: proc(57, struct({ dom: domain, nparams: int }), paramsOnly(limits.few)),
  domainGetSchedulerParametersFlags: proc(223, domRoom, paramsOnly(limits.few)),
  domainSetSchedulerParameters: proc(58, struct({ dom: domain, params: params(limits.few) }), nothing),
  domainSetSchedulerParametersFlags: proc(219, domParams(limits.few), nothing),
  domainSetMemoryParameters: proc(197, domParams(limits.few), nothing),
  domainGetMemoryParameters: proc(198, domRoom, paramsAndCount(limits.few)),
  domainSetBlkioParameters: proc(205, domParams(limits.few), nothing),
  domainGetBlkioParameters: proc(206, domRoom, paramsAndCount(limits.few)),
  domainSetNumaParameters: proc(254, domParams(limits.few), nothing),
  domainGetNumaParameters: proc(255, domRoom, paramsAndCount(limits.few)),
  domainSetInterfaceParameters: proc(
    256,
    struct({ dom: domain, device: text, params: params(limits.few), flags: unsigned }),
    nothing,
  ),
  domainGetInterfaceParameters: proc(
    257,
    struct({ dom: domain, device: text, nparams: int, flags: unsigned }),
    paramsAndCount(limits.few),
  ),
  domainSetBlockIoTune: proc(252, struct({ dom: domain, disk: text, params: params(blockTune), flags: unsigned }), nothing),
  domainGetBlockIoTune: proc(
    253,
    struct({ dom: domain, disk: optionalText, nparams: int, flags: unsigned }),
    paramsAndCount(blockTune),
  ),
  domainGetPerfEvents: proc(365, domFlags, paramsOnly(limits.more)),
  domainSetPerfEvents: proc(366, domParams(limits.more), nothing),

  domainGetCpuStats: proc(
    262,
    struct({ dom: domain, nparams: unsigned, startCpu: int, ncpus: unsigned, flags: unsigned }),
    paramsAndCount(perCpuStats),
  ),
  domainBlockStats: proc(
    64,
    domPath,
    struct({ readRequests: hyper, readBytes: hyper, writeRequests: hyper, writeBytes: hyper, errors: hyper }),
  ),
  domainBlockStatsFlags: proc(
    243,
    struct({ dom: domain, path: text, nparams: int, flags: unsigned }),
    paramsAndCount(limits.few),
  ),
  domainGetBlockInfo: proc(
    194,
    domPathFlags,
    struct({ allocation: unsignedHyper, capacity: unsignedHyper, physical: unsignedHyper }),
  ),
  domainGetDiskErrors: proc(
    263,
    struct({ dom: domain, maxErrors: unsigned, flags: unsigned }),
    struct({ errors: array(struct({ disk: text, error: int }), 256), nerrors: int }),
  ),
  domainInterfaceStats: proc(
    65,
    struct({ dom: domain, device: text }),
    struct({
      rxBytes: hyper,
      rxPackets: hyper,
      rxErrors: hyper,
      rxDropped: hyper,
      txBytes: hyper,
      txPackets: hyper,
      txErrors: hyper,
      txDropped: hyper,
    }),
  ),
  domainInterfaceAddresses: proc(
    353,
    struct({ dom: domain, source: unsigned, flags: unsigned }),
    struct({ ifaces: array(guestInterface, 2048) }),
  ),

  domainGetTime: proc(337, domFlags, struct({ seconds: hyper, nseconds: unsigned })),
  domainSetTime: proc(338, struct({ dom: domain, seconds: hyper, nseconds: unsigned, flags: unsigned }), nothing),
  domainGetFsinfo: proc(349, domFlags, struct({ info: array(filesystem, 256), ret: unsigned })),
  domainFsfreeze: proc(335, mountpoints, filesystems),
  domainFsthaw: proc(336, mountpoints, filesystems),
  domainFstrim: proc(294, struct({ dom: domain, mountpoint: optionalText, minimum: unsignedHyper, flags: unsigned }), nothing),
  domainSetUserPassword: proc(357, struct({ dom: domain, user: optionalText, password: optionalText, flags: unsigned }), nothing),
  domainGetGuestInfo: proc(418, struct({ dom: domain, types: unsigned, flags: unsigned }), paramsOnly(2048)),
  domainAgentSetResponseTimeout: proc(420, struct({ dom: domain, timeout: int, flags: unsigned }), result),
  domainAuthorizedSshKeysGet: proc(424, struct({ dom: domain, user: text, flags: unsigned }), struct({ keys: names(2048) })),
  domainAuthorizedSshKeysSet: proc(425, struct({ dom: domain, user: text, keys: names(2048), flags: unsigned }), nothing),
} as const;
