// Procedures of a connection and of its host: opening, authentication, capabilities, CPU models, the node's memory and devices.
// libvirt's remote protocol, version 1, as of 9.0.
import { array, enumeration, flag, int, nothing, struct, unsigned, unsignedHyper } from '../xdr.ts';
import { proc } from './procedure.ts';
import { byName, capabilities, flags, list, nodeStats, num, paramsAndCount, result, room, xmlFlags, xmlText } from './shapes.ts';
import {
  chars,
  charText,
  charTextFixed,
  cpumap,
  domain,
  limits,
  names,
  nodeDevice,
  optionalText,
  params,
  text,
} from './types.ts';

const stat = struct({ field: text, value: unsignedHyper });
const saslData = chars(limits.sasl);
const saslAnswer = struct({ complete: flag, nil: flag, data: saslData });
const cpuModels = 8192;
const cells = 1024;
const nodeMemory = 64;
const hypervisor = { emulator: optionalText, arch: optionalText, machine: optionalText, virtType: optionalText };
const baseline = 256;
const stats = 262_144;

export const connectProcedures = {
  /** `name` is a URI without transport and query. `flags` 1: read-only. */
  connectOpen: proc(1, struct({ name: optionalText, flags: unsigned }), nothing),
  connectClose: proc(2, nothing, nothing),
  connectGetType: proc(3, nothing, struct({ type: text })),
  /** major × 1,000,000 + minor × 1,000 + release. */
  connectGetVersion: proc(4, nothing, struct({ version: unsignedHyper })),
  connectGetMaxVcpus: proc(5, struct({ type: optionalText }), struct({ maxVcpus: int })),
  connectGetCapabilities: proc(7, nothing, capabilities),
  connectGetHostname: proc(59, nothing, struct({ hostname: text })),
  connectSupportsFeature: proc(60, struct({ feature: int }), struct({ supported: flag })),
  connectGetUri: proc(110, nothing, struct({ uri: text })),
  connectIsSecure: proc(149, nothing, struct({ secure: flag })),
  connectGetLibVersion: proc(157, nothing, struct({ version: unsignedHyper })),
  connectCompareCpu: proc(158, xmlFlags, result),
  connectBaselineCpu: proc(162, struct({ cpus: names(baseline), flags: unsigned }), struct({ cpu: text })),
  connectGetSysinfo: proc(203, flags, struct({ sysinfo: text })),
  connectGetCpuModelNames: proc(
    312,
    struct({ arch: text, needResults: flag, flags: unsigned }),
    struct({ models: names(cpuModels), ret: int }),
  ),
  connectGetDomainCapabilities: proc(342, struct({ ...hypervisor, flags: unsigned }), capabilities),
  /** An empty list of domains asks for all. `stats`: bits of groups, 0 for all. */
  connectGetAllDomainStats: proc(
    344,
    struct({ doms: array(domain, limits.objects), stats: unsigned, flags: unsigned }),
    struct({ records: array(struct({ dom: domain, params: params(stats) }), limits.objects) }),
  ),
  connectRegisterCloseCallback: proc(360, nothing, nothing),
  connectUnregisterCloseCallback: proc(361, nothing, nothing),
  connectCompareHypervisorCpu: proc(393, struct({ ...hypervisor, cpu: text, flags: unsigned }), result),
  connectBaselineHypervisorCpu: proc(
    394,
    struct({ ...hypervisor, cpus: names(baseline), flags: unsigned }),
    struct({ cpu: text }),
  ),
  connectGetStoragePoolCapabilities: proc(403, flags, capabilities),
  connectSetIdentity: proc(419, struct({ params: params(20), flags: unsigned }), nothing),
  connectDomainXmlFromNative: proc(135, struct({ format: text, config: text, flags: unsigned }), xmlText),
  connectDomainXmlToNative: proc(136, struct({ format: text, xml: text, flags: unsigned }), struct({ config: text })),

  authList: proc(66, nothing, struct({ types: array(enumeration({ none: 0, sasl: 1, polkit: 2 }), 20) })),
  authSaslInit: proc(67, nothing, struct({ mechanisms: text })),
  authSaslStart: proc(68, struct({ mechanism: text, nil: flag, data: saslData }), saslAnswer),
  authSaslStep: proc(69, struct({ nil: flag, data: saslData }), saslAnswer),
  authPolkit: proc(70, nothing, struct({ complete: flag })),

  /** `memory` in KiB, `mhz` of one CPU. */
  nodeGetInfo: proc(
    6,
    nothing,
    struct({
      model: charTextFixed(32),
      memory: unsignedHyper,
      cpus: int,
      mhz: int,
      nodes: int,
      sockets: int,
      cores: int,
      threads: int,
    }),
  ),
  nodeGetCellsFreeMemory: proc(101, struct({ startCell: int, maxCells: int }), struct({ cells: array(unsignedHyper, cells) })),
  nodeGetFreeMemory: proc(102, nothing, struct({ freeMem: unsignedHyper })),
  nodeGetSecurityModel: proc(122, nothing, struct({ model: charText(257), doi: charText(257) })),
  nodeGetCpuStats: proc(227, struct({ cpuNum: int, nparams: int, flags: unsigned }), nodeStats(stat, limits.few)),
  nodeGetMemoryStats: proc(228, struct({ nparams: int, cellNum: int, flags: unsigned }), nodeStats(stat, limits.few)),
  nodeSuspendForDuration: proc(250, struct({ target: unsigned, duration: unsignedHyper, flags: unsigned }), nothing),
  nodeSetMemoryParameters: proc(288, struct({ params: params(nodeMemory), flags: unsigned }), nothing),
  nodeGetMemoryParameters: proc(289, room, paramsAndCount(nodeMemory)),
  nodeGetCpuMap: proc(
    293,
    struct({ needMap: flag, needOnline: flag, flags: unsigned }),
    struct({ cpumap, online: unsigned, ret: int }),
  ),
  nodeGetFreePages: proc(
    340,
    struct({ pages: array(unsigned, cells), startCell: int, cellCount: unsigned, flags: unsigned }),
    struct({ counts: array(unsignedHyper, cells) }),
  ),
  nodeAllocPages: proc(
    347,
    struct({
      pageSizes: array(unsigned, cells),
      pageCounts: array(unsignedHyper, cells),
      startCell: int,
      cellCount: unsigned,
      flags: unsigned,
    }),
    struct({ ret: int }),
  ),
  nodeGetSevInfo: proc(395, room, paramsAndCount(limits.more)),

  nodeNumOfDevices: proc(111, struct({ cap: optionalText, flags: unsigned }), num),
  nodeListDevices: proc(
    112,
    struct({ cap: optionalText, maxNames: int, flags: unsigned }),
    struct({ names: names(limits.nodeDevices) }),
  ),
  connectListAllNodeDevices: proc(285, list, struct({ devices: array(nodeDevice, limits.nodeDevices), ret: unsigned })),
  nodeDeviceLookupByName: proc(113, byName, struct({ dev: nodeDevice })),
  nodeDeviceGetXmlDesc: proc(114, struct({ name: text, flags: unsigned }), xmlText),
  nodeDeviceGetParent: proc(115, byName, struct({ parent: optionalText })),
  nodeDeviceNumOfCaps: proc(116, byName, num),
  nodeDeviceListCaps: proc(117, struct({ name: text, maxNames: int }), struct({ names: names(limits.nodeDevices) })),
  nodeDeviceDettach: proc(118, byName, nothing),
  nodeDeviceReAttach: proc(119, byName, nothing),
  nodeDeviceReset: proc(120, byName, nothing),
  nodeDeviceCreateXml: proc(123, xmlFlags, struct({ dev: nodeDevice })),
  nodeDeviceDestroy: proc(124, byName, nothing),
  nodeDeviceLookupScsiHostByWwn: proc(297, struct({ wwnn: text, wwpn: text, flags: unsigned }), struct({ dev: nodeDevice })),
  nodeDeviceDetachFlags: proc(301, struct({ name: text, driver: optionalText, flags: unsigned }), nothing),
  nodeDeviceDefineXml: proc(428, xmlFlags, struct({ dev: nodeDevice })),
  nodeDeviceUndefine: proc(429, struct({ name: text, flags: unsigned }), nothing),
  nodeDeviceCreate: proc(430, struct({ name: text, flags: unsigned }), nothing),
  nodeDeviceGetAutostart: proc(433, byName, struct({ autostart: flag })),
  nodeDeviceSetAutostart: proc(434, struct({ name: text, autostart: flag }), nothing),
  nodeDeviceIsPersistent: proc(435, byName, struct({ persistent: flag })),
  nodeDeviceIsActive: proc(436, byName, struct({ active: flag })),
} as const;
