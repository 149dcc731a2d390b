// The virsh operations that are compared between daemons and emulators: one scenario, run in order on an empty daemon.

/** How much of the output must be the same: all of it, all but numbers, or only whether it worked. */
export type Comparison = 'text' | 'shape' | 'code';

export interface Operation {
  readonly name: string;
  /** Words of the command; `{dir}` is a directory for this run, quotes keep spaces. */
  readonly command: string;
  readonly as: Comparison;
}

const op = (name: string, command: string, as: Comparison = 'text'): Operation => ({ name, command, as });

/** Documents that the scenario uses, written to `{dir}` before it begins. `{emulator}` is the emulator's path. */
export const documents: Readonly<Record<string, string>> = {
  'alpha.xml': `<domain type='qemu'>
  <name>alpha</name>
  <uuid>11111111-2222-3333-4444-555555555501</uuid>
  <memory unit='MiB'>128</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type><boot dev='hd'/></os>
  <features><acpi/><apic/></features>
  <devices>
    <emulator>{emulator}</emulator>
    <disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{dir}/a.qcow2'/><target dev='vda' bus='virtio'/></disk>
    <disk type='file' device='cdrom'><target dev='hdc' bus='ide'/><readonly/></disk>
    <interface type='user'><mac address='52:54:00:11:22:01'/><model type='virtio'/></interface>
    <serial type='pty'/>
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
    <graphics type='vnc' port='-1' autoport='yes' listen='127.0.0.1'/>
    <video><model type='vga'/></video>
    <memballoon model='virtio'/>
  </devices>
</domain>
`,
  'beta.xml': `<domain type='qemu'>
  <name>beta</name>
  <uuid>11111111-2222-3333-4444-555555555502</uuid>
  <memory unit='MiB'>64</memory>
  <os><type arch='x86_64' machine='q35'>hvm</type></os>
  <devices><emulator>{emulator}</emulator><serial type='pty'/></devices>
</domain>
`,
  'bad-element.xml':
    "<domain type='qemu'><name>bad</name><memory>65536</memory><os><type>hvm</type></os><devices><emulator>{emulator}</emulator><disk type='file'><source file='/x'/></disk></devices></domain>\n",
  'bad-type.xml': "<domain type='nosuch'><name>bad</name><memory>65536</memory><os><type>hvm</type></os></domain>\n",
  'no-name.xml': "<domain type='qemu'><memory>65536</memory><os><type>hvm</type></os></domain>\n",
  'not.xml': '<domain type=\n',
  'disk.xml':
    "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{dir}/b.qcow2'/><target dev='vdb' bus='virtio'/></disk>\n",
  'net1.xml': `<network>
  <name>lab</name>
  <uuid>22222222-2222-3333-4444-555555555501</uuid>
  <bridge name='virbrlab'/>
  <mac address='52:54:00:aa:bb:01'/>
  <ip address='10.9.8.1' netmask='255.255.255.0'><dhcp><range start='10.9.8.10' end='10.9.8.20'/></dhcp></ip>
</network>
`,
  'secret.xml':
    "<secret ephemeral='no' private='no'><uuid>33333333-2222-3333-4444-555555555501</uuid><description>demo</description><usage type='volume'><volume>/var/x</volume></usage></secret>\n",
  'private.xml':
    "<secret ephemeral='no' private='yes'><uuid>33333333-2222-3333-4444-555555555502</uuid><usage type='ceph'><name>client.x</name></usage></secret>\n",
  'filter.xml': `<filter name='demo-filter' chain='root'>
  <uuid>44444444-2222-3333-4444-555555555501</uuid>
  <rule action='drop' direction='in' priority='500'><tcp dstportstart='22'/></rule>
</filter>
`,
  'volume.xml':
    "<volume><name>fromxml.qcow2</name><capacity unit='MiB'>16</capacity><target><format type='qcow2'/></target></volume>\n",
  'upload.bin': 'nonroot '.repeat(1024),
};

/** Disk images that are made before the scenario: name and size. */
export const images = [
  ['a.qcow2', '64M'],
  ['b.qcow2', '32M'],
  ['cd.iso', 'raw'],
] as const;

export const operations: readonly Operation[] = [
  // The connection and the host.
  op('uri', 'uri', 'code'),
  op('version', 'version', 'shape'),
  op('hostname', 'hostname', 'code'),
  op('nodeinfo', 'nodeinfo', 'shape'),
  op('nodecpumap', 'nodecpumap', 'code'),
  op('nodecpustats', 'nodecpustats', 'shape'),
  op('nodememstats', 'nodememstats', 'shape'),
  op('freecell', 'freecell', 'shape'),
  op('freepages', 'freepages --all', 'code'),
  op('maxvcpus', 'maxvcpus --type qemu', 'code'),
  op('cpu-models', 'cpu-models x86_64', 'code'),
  op('capabilities', 'capabilities', 'code'),
  op('domcapabilities', 'domcapabilities --virttype qemu', 'code'),
  op('sysinfo', 'sysinfo'),
  op('iface-list', 'iface-list', 'code'),
  op('nodedev-list', 'nodedev-list --cap system'),
  op('nodedev-info', 'nodedev-info computer'),
  op('nodedev-dumpxml of nothing', 'nodedev-dumpxml nosuch'),
  op('pool-capabilities', 'pool-capabilities', 'code'),
  op('node-memory-tune', 'node-memory-tune', 'code'),

  // Definitions.
  op('list of none', 'list --all'),
  op('define', 'define {dir}/alpha.xml'),
  op('define again', 'define {dir}/alpha.xml'),
  op('define a second', 'define {dir}/beta.xml'),
  op('define: disk without target', 'define {dir}/bad-element.xml'),
  op('define: unknown type', 'define {dir}/bad-type.xml'),
  op('define: no name', 'define {dir}/no-name.xml'),
  op('define: not XML', 'define {dir}/not.xml', 'code'),
  op('define: no file', 'define {dir}/nosuch.xml'),
  op('list --all', 'list --all'),
  op('list --name', 'list --all --name'),
  op('list --inactive --uuid', 'list --inactive --uuid'),
  op('list --state-running', 'list --state-running'),
  op('dumpxml', 'dumpxml alpha'),
  op('dumpxml of q35', 'dumpxml beta'),
  op('dumpxml --inactive', 'dumpxml alpha --inactive --security-info'),
  op('dominfo', 'dominfo alpha'),
  op('dominfo of nothing', 'dominfo nosuch'),
  op('domstate', 'domstate alpha --reason'),
  op('domuuid', 'domuuid alpha'),
  op('domname', 'domname 11111111-2222-3333-4444-555555555501'),
  op('domid of a domain that is off', 'domid alpha'),
  op('domblklist', 'domblklist alpha --details'),
  op('domiflist', 'domiflist alpha'),
  op('domblkinfo', 'domblkinfo alpha vda', 'shape'),
  op('vcpucount', 'vcpucount alpha'),
  op('vcpucount --maximum', 'vcpucount alpha --maximum --config'),
  op('setvcpus --maximum', 'setvcpus alpha 4 --maximum --config'),
  op('setvcpus --config', 'setvcpus alpha 2 --config'),
  op('vcpucount --current', 'vcpucount alpha --current --config'),
  op('setvcpus beyond the maximum', 'setvcpus alpha 9 --config'),
  op('setvcpus back', 'setvcpus alpha 1 --config'),
  op('setvcpus --maximum back', 'setvcpus alpha 1 --maximum --config'),
  op('setmaxmem', 'setmaxmem alpha 256M --config'),
  op('setmem --config', 'setmem alpha 128M --config'),
  op('setmem beyond the maximum', 'setmem alpha 1G --config'),
  op('setmaxmem back', 'setmaxmem alpha 128M --config'),
  op('autostart', 'autostart alpha'),
  op('list --autostart', 'list --all --autostart'),
  op('autostart --disable', 'autostart alpha --disable'),
  op('desc', 'desc alpha --config --new-desc "a description"'),
  op('desc --title', 'desc alpha --config --title --new-desc "A title"'),
  op('desc shown', 'desc alpha --title'),
  op('metadata set', 'metadata alpha http://example.org/x --config --key x --set "<m a=\'1\'/>"'),
  op('metadata', 'metadata alpha http://example.org/x'),
  op('metadata --remove', 'metadata alpha http://example.org/x --config --remove'),
  op('metadata of nothing', 'metadata alpha http://example.org/x'),
  op('schedinfo', 'schedinfo alpha --config'),
  op('memtune', 'memtune alpha --config'),
  op('blkiotune', 'blkiotune alpha --config'),
  op('numatune', 'numatune alpha --config', 'code'),
  op('vcpupin', 'vcpupin alpha --config', 'code'),
  op('emulatorpin', 'emulatorpin alpha --config', 'code'),
  op('iothreadadd --config', 'iothreadadd alpha 1 --config'),
  op('iothreadinfo --config', 'iothreadinfo alpha --config', 'code'),
  op('iothreaddel --config', 'iothreaddel alpha 1 --config'),
  op('attach-disk --config', 'attach-disk alpha {dir}/b.qcow2 vdb --subdriver qcow2 --config'),
  op('attach-disk twice', 'attach-disk alpha {dir}/b.qcow2 vdb --subdriver qcow2 --config'),
  op('detach-disk --config', 'detach-disk alpha vdb --config'),
  op('detach-disk of nothing', 'detach-disk alpha vdz --config'),
  op('attach-interface --config', 'attach-interface alpha user --mac 52:54:00:11:22:09 --model virtio --config', 'code'),
  op('blkdeviotune --config', 'blkdeviotune alpha vda --total-iops-sec 500 --config'),
  op('blkdeviotune', 'blkdeviotune alpha vda --config'),
  op('domrename', 'domrename beta gamma'),
  op('domrename to a name in use', 'domrename gamma alpha'),
  op('domrename back', 'domrename gamma beta'),
  op('domxml-to-native', 'domxml-to-native qemu-argv --xml {dir}/beta.xml', 'code'),
  op('suspend of a domain that is off', 'suspend alpha'),
  op('shutdown of a domain that is off', 'shutdown alpha'),
  op('destroy of a domain that is off', 'destroy alpha'),
  op('save of a domain that is off', 'save alpha {dir}/never.save'),
  op('console of a domain that is off', 'domblkstat alpha vda'),

  // Life.
  op('start', 'start alpha'),
  op('start twice', 'start alpha'),
  op('list', 'list'),
  op('domstate running', 'domstate alpha --reason'),
  op('domid', 'domid alpha', 'code'),
  op('dumpxml of a running domain', 'dumpxml alpha'),
  op('dominfo of a running domain', 'dominfo alpha', 'shape'),
  op('domcontrol', 'domcontrol alpha'),
  op('domjobinfo', 'domjobinfo alpha'),
  op('domdisplay', 'domdisplay alpha', 'shape'),
  op('vncdisplay', 'vncdisplay alpha', 'shape'),
  op('ttyconsole', 'ttyconsole alpha', 'shape'),
  op('domblkstat', 'domblkstat alpha vda', 'shape'),
  op('domblkinfo of a running domain', 'domblkinfo alpha vda', 'shape'),
  op('domblkerror', 'domblkerror alpha'),
  op('domifstat of nothing', 'domifstat alpha vnet77'),
  op('domif-getlink', 'domif-getlink alpha 52:54:00:11:22:01'),
  op('domif-setlink', 'domif-setlink alpha 52:54:00:11:22:01 down'),
  op('domif-getlink down', 'domif-getlink alpha 52:54:00:11:22:01'),
  op('dommemstat', 'dommemstat alpha', 'shape'),
  op('dommemstat --period', 'dommemstat alpha --period 5 --live'),
  op('vcpuinfo', 'vcpuinfo alpha', 'code'),
  op('vcpucount of a running domain', 'vcpucount alpha'),
  op('cpu-stats --total', 'cpu-stats alpha --total', 'code'),
  op('domstats', 'domstats alpha --state --balloon --vcpu --block', 'shape'),
  op('suspend', 'suspend alpha'),
  op('domstate paused', 'domstate alpha --reason'),
  op('list paused', 'list'),
  op('resume', 'resume alpha'),
  op('resume twice', 'resume alpha'),
  op('reset', 'reset alpha'),
  op('send-key', 'send-key alpha KEY_A KEY_B'),
  op('inject-nmi', 'inject-nmi alpha'),
  op('screenshot', 'screenshot alpha {dir}/shot.png', 'shape'),
  op('setmem', 'setmem alpha 100M'),
  op('qemu-monitor-command', 'qemu-monitor-command alpha {"execute":"query-status"}', 'code'),
  op('qemu-monitor-command --hmp', 'qemu-monitor-command alpha --hmp "info status"'),
  op('qemu-agent-command without agent', 'qemu-agent-command alpha {"execute":"guest-ping"}'),
  op('domhostname without agent', 'domhostname alpha --source agent'),
  op('domtime without agent', 'domtime alpha'),
  op('domifaddr', 'domifaddr alpha'),
  op('change-media --insert', 'change-media alpha hdc {dir}/cd.iso --insert'),
  op('domblklist with a medium', 'domblklist alpha'),
  op('change-media --eject', 'change-media alpha hdc --eject'),
  op('attach-device', 'attach-device alpha {dir}/disk.xml --live'),
  op('domblklist after attach', 'domblklist alpha'),
  op('blockresize', 'blockresize alpha vdb 40M'),
  op('blkdeviotune live', 'blkdeviotune alpha vdb --read-bytes-sec 1000000 --live'),
  op('blockpull without backing', 'blockpull alpha vdb --wait'),
  op('blockjob without job', 'blockjob alpha vdb'),
  op('blockcopy of a persistent domain', 'blockcopy alpha vdb {dir}/copy.qcow2 --wait --pivot'),
  op('blockcopy --pivot', 'blockcopy alpha vdb {dir}/copy.qcow2 --transient-job --format qcow2 --wait --pivot', 'code'),
  op('domblklist after copy', 'domblklist alpha'),
  op('snapshot-create-as with a disk left out', 'snapshot-create-as alpha s1 --diskspec vdb,snapshot=no'),
  op('snapshot-create-as', 'snapshot-create-as alpha s1 --description first'),
  op('snapshot-list', 'snapshot-list alpha', 'shape'),
  op('snapshot-current', 'snapshot-current alpha --name'),
  op('snapshot-info', 'snapshot-info alpha s1'),
  op('snapshot-dumpxml', 'snapshot-dumpxml alpha s1', 'code'),
  op('snapshot-create-as twice', 'snapshot-create-as alpha s1'),
  op('snapshot-create-as a child', 'snapshot-create-as alpha s1b'),
  op('snapshot-list --tree', 'snapshot-list alpha --tree'),
  op('snapshot-parent', 'snapshot-parent alpha s1b'),
  op('snapshot-revert', 'snapshot-revert alpha s1'),
  op('domstate reverted', 'domstate alpha --reason'),
  op('snapshot-delete --children', 'snapshot-delete alpha s1 --children-only'),
  op('snapshot-delete', 'snapshot-delete alpha s1'),
  op(
    'snapshot-create-as --disk-only',
    'snapshot-create-as alpha s2 --disk-only --diskspec vda,file={dir}/a.s2 --diskspec vdb,snapshot=no',
  ),
  op('snapshot-list --disk-only', 'snapshot-list alpha --disk-only --name'),
  op('domblklist after snapshot', 'domblklist alpha'),
  op('blockcommit without --active', 'blockcommit alpha vda'),
  op('blockcommit --active --pivot', 'blockcommit alpha vda --active --pivot', 'code'),
  op('snapshot-delete --metadata', 'snapshot-delete alpha s2 --metadata'),
  op('snapshot-info of nothing', 'snapshot-info alpha s2'),
  op('checkpoint-create-as', 'checkpoint-create-as alpha c1 --diskspec vda --diskspec vdb,checkpoint=no'),
  op('checkpoint-list', 'checkpoint-list alpha --name'),
  op('checkpoint-delete', 'checkpoint-delete alpha c1'),
  op('dump --memory-only', 'dump alpha {dir}/core --memory-only', 'shape'),
  op('managedsave', 'managedsave alpha', 'shape'),
  op('domstate saved', 'domstate alpha --reason'),
  op('list --with-managed-save', 'list --all --with-managed-save'),
  op('managedsave-dumpxml', 'managedsave-dumpxml alpha', 'code'),
  op('start from a managed save', 'start alpha'),
  op('domstate restored', 'domstate alpha --reason'),
  op('save', 'save alpha {dir}/alpha.save', 'shape'),
  op('save-image-dumpxml', 'save-image-dumpxml {dir}/alpha.save', 'code'),
  op('restore', 'restore {dir}/alpha.save'),
  op('restore of nothing', 'restore {dir}/nosuch.save'),
  op('undefine of a running domain', 'undefine alpha'),
  op('list of a transient domain', 'list --transient'),
  op('managedsave of a transient domain', 'managedsave alpha'),
  op('destroy', 'destroy alpha'),
  op('list --all at the end', 'list --all'),
  op('create', 'create {dir}/beta.xml --paused'),
  op('dominfo of a paused domain', 'domstate beta --reason'),
  op('destroy --graceful', 'destroy beta --graceful'),
  op('undefine', 'undefine beta'),
  op('undefine of nothing', 'undefine beta'),

  // Storage.
  op('pool-define-as', 'pool-define-as p1 dir --target {dir}/pool'),
  op('pool-build', 'pool-build p1'),
  op('pool-start', 'pool-start p1'),
  op('pool-start twice', 'pool-start p1'),
  op('pool-list', 'pool-list --all'),
  op('pool-info', 'pool-info p1', 'shape'),
  op('pool-dumpxml', 'pool-dumpxml p1', 'shape'),
  op('pool-autostart', 'pool-autostart p1'),
  op('vol-create-as', 'vol-create-as p1 v1.qcow2 32M --format qcow2'),
  op('vol-create-as raw', 'vol-create-as p1 v2.img 1M'),
  op('vol-create-as twice', 'vol-create-as p1 v2.img 1M'),
  op(
    'vol-create-as with backing',
    'vol-create-as p1 v3.qcow2 32M --format qcow2 --backing-vol v1.qcow2 --backing-vol-format qcow2',
  ),
  op('vol-create', 'vol-create p1 {dir}/volume.xml'),
  op('vol-list', 'vol-list p1'),
  op('vol-info', 'vol-info v2.img p1'),
  op('vol-dumpxml', 'vol-dumpxml v2.img p1', 'shape'),
  op('vol-path', 'vol-path v1.qcow2 p1'),
  op('vol-key', 'vol-key v1.qcow2 p1'),
  op('vol-name', 'vol-name {dir}/pool/v1.qcow2'),
  op('vol-pool', 'vol-pool {dir}/pool/v1.qcow2'),
  op('vol-resize', 'vol-resize v1.qcow2 64M p1'),
  op('vol-resize to less', 'vol-resize v1.qcow2 1M p1', 'code'),
  op('vol-clone', 'vol-clone v1.qcow2 v4.qcow2 p1'),
  op('vol-upload', 'vol-upload v2.img {dir}/upload.bin p1'),
  op('vol-download', 'vol-download v2.img {dir}/download.bin p1 --length 8192'),
  op('vol-wipe', 'vol-wipe v2.img p1'),
  op('vol-delete', 'vol-delete v2.img p1'),
  op('vol-delete of nothing', 'vol-delete v2.img p1'),
  op('pool-refresh', 'pool-refresh p1'),
  op('pool-destroy', 'pool-destroy p1'),
  op('vol-list of a stopped pool', 'vol-list p1'),
  op('pool-undefine', 'pool-undefine p1'),
  op('pool-info of nothing', 'pool-info p1'),

  // Networks.
  op('net-define', 'net-define {dir}/net1.xml'),
  op('net-list', 'net-list --all --name'),
  op('net-info', 'net-info lab'),
  op('net-dumpxml', 'net-dumpxml lab'),
  op('net-uuid', 'net-uuid lab'),
  op('net-name', 'net-name 22222222-2222-3333-4444-555555555501'),
  op('net-autostart', 'net-autostart lab'),
  op('net-update', "net-update lab add ip-dhcp-host \"<host mac='52:54:00:11:22:01' name='alpha' ip='10.9.8.11'/>\" --config"),
  op(
    'net-update twice',
    "net-update lab add ip-dhcp-host \"<host mac='52:54:00:11:22:01' name='alpha' ip='10.9.8.11'/>\" --config",
    'code',
  ),
  op('net-dumpxml --inactive', 'net-dumpxml lab --inactive'),
  op('net-dhcp-leases of a stopped network', 'net-dhcp-leases lab', 'code'),
  op('net-destroy of a stopped network', 'net-destroy lab'),
  op('net-undefine', 'net-undefine lab'),
  op('net-info of nothing', 'net-info lab'),

  // Secrets and filters.
  op('secret-define', 'secret-define {dir}/secret.xml'),
  op('secret-list', 'secret-list'),
  op('secret-dumpxml', 'secret-dumpxml 33333333-2222-3333-4444-555555555501'),
  op('secret-get-value of none', 'secret-get-value 33333333-2222-3333-4444-555555555501'),
  op('secret-set-value', 'secret-set-value 33333333-2222-3333-4444-555555555501 --base64 c2VjcmV0', 'code'),
  op('secret-get-value', 'secret-get-value 33333333-2222-3333-4444-555555555501'),
  op('secret-define private', 'secret-define {dir}/private.xml'),
  op('secret-get-value private', 'secret-get-value 33333333-2222-3333-4444-555555555502'),
  op('secret-undefine', 'secret-undefine 33333333-2222-3333-4444-555555555501'),
  op('secret-undefine private', 'secret-undefine 33333333-2222-3333-4444-555555555502'),
  op('secret-undefine of nothing', 'secret-undefine 33333333-2222-3333-4444-555555555501'),
  op('nwfilter-define', 'nwfilter-define {dir}/filter.xml'),
  op('nwfilter-dumpxml', 'nwfilter-dumpxml demo-filter'),
  op('nwfilter-undefine', 'nwfilter-undefine demo-filter'),
  op('nwfilter-dumpxml of nothing', 'nwfilter-dumpxml demo-filter'),
];
