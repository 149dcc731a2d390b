// Procedures of networks, their ports, host interfaces, network filters and filter bindings.
// libvirt's remote protocol, version 1, as of 9.0.
import { array, flag, hyper, int, nothing, struct, unsigned } from '../xdr.ts';
import { proc } from './procedure.ts';
import {
  byName,
  byUuid,
  flags,
  ifaceArg,
  ifaceFlags,
  list,
  maxNames,
  net,
  num,
  paramsAndCount,
  xmlFlags,
  xmlText,
} from './shapes.ts';
import {
  iface,
  limits,
  names,
  network,
  networkPort,
  nwfilter,
  nwfilterBinding,
  optionalText,
  params,
  text,
  uuid,
} from './types.ts';

const filter = struct({ nwfilter });
const binding = struct({ binding: nwfilterBinding });
const namesOut = struct({ names: names() });
const portFlags = struct({ port: networkPort, flags: unsigned });
const port = struct({ port: networkPort });

/** `type`: 0 IPv4, 1 IPv6. `expiryTime` in seconds since 1970. */
const lease = struct({
  iface: text,
  expiryTime: hyper,
  type: int,
  mac: optionalText,
  iaid: optionalText,
  ipAddr: text,
  prefix: unsigned,
  hostname: optionalText,
  clientId: optionalText,
});

export const networkProcedures = {
  connectNumOfNetworks: proc(52, nothing, num),
  connectListNetworks: proc(38, maxNames, namesOut),
  connectNumOfDefinedNetworks: proc(50, nothing, num),
  connectListDefinedNetworks: proc(36, maxNames, namesOut),
  connectListAllNetworks: proc(283, list, struct({ nets: array(network, limits.objects), ret: unsigned })),
  networkCreate: proc(39, net, nothing),
  networkCreateXml: proc(40, xmlText, net),
  networkCreateXmlFlags: proc(437, xmlFlags, net),
  networkDefineXml: proc(41, xmlText, net),
  networkDefineXmlFlags: proc(432, xmlFlags, net),
  networkDestroy: proc(42, net, nothing),
  networkUndefine: proc(49, net, nothing),
  networkGetXmlDesc: proc(43, struct({ net: network, flags: unsigned }), xmlText),
  networkGetAutostart: proc(44, net, struct({ autostart: flag })),
  networkSetAutostart: proc(48, struct({ net: network, autostart: flag }), nothing),
  networkGetBridgeName: proc(45, net, struct({ name: text })),
  networkLookupByName: proc(46, byName, net),
  networkLookupByUuid: proc(47, byUuid, net),
  networkIsActive: proc(152, net, struct({ active: flag })),
  networkIsPersistent: proc(153, net, struct({ persistent: flag })),
  networkUpdate: proc(
    291,
    struct({ net: network, command: unsigned, section: unsigned, parentIndex: int, xml: text, flags: unsigned }),
    nothing,
  ),
  networkGetDhcpLeases: proc(
    341,
    struct({ net: network, mac: optionalText, needResults: flag, flags: unsigned }),
    struct({ leases: array(lease, 65_536), ret: unsigned }),
  ),

  networkListAllPorts: proc(
    404,
    struct({ net: network, needResults: flag, flags: unsigned }),
    struct({ ports: array(networkPort, limits.objects), ret: unsigned }),
  ),
  networkPortLookupByUuid: proc(405, struct({ net: network, uuid }), port),
  networkPortCreateXml: proc(406, struct({ net: network, xml: text, flags: unsigned }), port),
  networkPortGetParameters: proc(407, struct({ port: networkPort, nparams: int, flags: unsigned }), paramsAndCount(limits.few)),
  networkPortSetParameters: proc(408, struct({ port: networkPort, params: params(limits.few), flags: unsigned }), nothing),
  networkPortGetXmlDesc: proc(409, portFlags, xmlText),
  networkPortDelete: proc(410, portFlags, nothing),

  connectNumOfInterfaces: proc(126, nothing, num),
  connectListInterfaces: proc(127, maxNames, namesOut),
  connectNumOfDefinedInterfaces: proc(137, nothing, num),
  connectListDefinedInterfaces: proc(138, maxNames, namesOut),
  connectListAllInterfaces: proc(284, list, struct({ ifaces: array(iface, limits.objects), ret: unsigned })),
  interfaceLookupByName: proc(128, byName, ifaceArg),
  interfaceLookupByMacString: proc(129, struct({ mac: text }), ifaceArg),
  interfaceGetXmlDesc: proc(130, ifaceFlags, xmlText),
  interfaceDefineXml: proc(131, xmlFlags, ifaceArg),
  interfaceUndefine: proc(132, ifaceArg, nothing),
  interfaceCreate: proc(133, ifaceFlags, nothing),
  interfaceDestroy: proc(134, ifaceFlags, nothing),
  interfaceIsActive: proc(156, ifaceArg, struct({ active: flag })),
  interfaceChangeBegin: proc(220, flags, nothing),
  interfaceChangeCommit: proc(221, flags, nothing),
  interfaceChangeRollback: proc(222, flags, nothing),

  connectNumOfNwfilters: proc(178, nothing, num),
  connectListNwfilters: proc(179, maxNames, namesOut),
  connectListAllNwfilters: proc(286, list, struct({ filters: array(nwfilter, limits.objects), ret: unsigned })),
  nwfilterLookupByName: proc(175, byName, filter),
  nwfilterLookupByUuid: proc(176, byUuid, filter),
  nwfilterGetXmlDesc: proc(177, struct({ nwfilter, flags: unsigned }), xmlText),
  nwfilterDefineXml: proc(180, xmlText, filter),
  nwfilterDefineXmlFlags: proc(431, xmlFlags, filter),
  nwfilterUndefine: proc(181, filter, nothing),
  connectListAllNwfilterBindings: proc(401, list, struct({ bindings: array(nwfilterBinding, limits.objects), ret: unsigned })),
  nwfilterBindingLookupByPortDev: proc(397, byName, binding),
  nwfilterBindingGetXmlDesc: proc(398, struct({ binding: nwfilterBinding, flags: unsigned }), xmlText),
  nwfilterBindingCreateXml: proc(399, xmlFlags, binding),
  nwfilterBindingDelete: proc(400, binding, nothing),
} as const;
