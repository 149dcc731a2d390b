# python3-libvirt against a daemon: client.py URI DIRECTORY. Prints "all done" when everything is as it should be.
import os
import sys
import libvirt

uri, directory = sys.argv[1:3]
libvirt.registerErrorHandler(lambda ctx, err: None, None)
libvirt.virEventRegisterDefaultImpl()
events = []
conn = libvirt.open(uri)
assert conn.getType() == 'QEMU' and conn.isAlive() and conn.isSecure()
conn.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, lambda c, d, event, detail, o: events.append(event), None)
assert len(conn.getInfo()) == 8 and '<capabilities>' in conn.getCapabilities()

xml = """<domain type='qemu'><name>py</name><memory unit='MiB'>64</memory><os><type arch='x86_64' machine='pc'>hvm</type></os>
<devices><graphics type='vnc' port='-1'/><serial type='pty'/></devices></domain>"""
dom = conn.defineXML(xml)
assert [d.name() for d in conn.listAllDomains()] == ['py'] and not dom.isActive() and dom.isPersistent()
try:
    conn.lookupByName('nosuch')
    raise AssertionError('found what is not there')
except libvirt.libvirtError as e:
    assert e.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN and e.get_error_domain() == libvirt.VIR_FROM_QEMU
dom.create()
assert dom.state()[0] == libvirt.VIR_DOMAIN_RUNNING and dom.info()[1] == 65536 and dom.OSType() == 'hvm'
dom.suspend()
dom.resume()
assert dom.vcpus()[0][0][1] == 1
shot = conn.newStream()
assert dom.screenshot(shot, 0).startswith('image/')
data = b''
while chunk := shot.recv(65536):
    data += chunk
shot.finish()
assert data[1:4] == b'PNG' or data[:2] == b'P6'
display = dom.openGraphicsFD(0)
assert os.read(display, 3) == b'RFB'
os.close(display)
console = conn.newStream()
dom.openConsole(None, console, libvirt.VIR_DOMAIN_CONSOLE_FORCE)
console.send(b'x')
console.abort()
dom.destroy()
dom.undefine()

path = os.path.join(directory, 'pypool')
pool = conn.storagePoolCreateXML("<pool type='dir'><name>pypool</name><target><path>%s</path></target></pool>" % path,
                                 libvirt.VIR_STORAGE_POOL_CREATE_WITH_BUILD)
volume = pool.createXML('<volume><name>v.img</name><capacity>1048576</capacity></volume>', 0)
content = os.urandom(500000)
up = conn.newStream()
volume.upload(up, 0, len(content), 0)
position = 0
def read(stream, count, opaque):
    global position
    part = content[position:position + count]
    position += len(part)
    return part
up.sendAll(read, None)
up.finish()
down = conn.newStream()
volume.download(down, 0, len(content), 0)
parts = []
down.recvAll(lambda stream, part, opaque: parts.append(part), None)
down.finish()
assert b''.join(parts) == content
volume.delete()
pool.destroy()

for _ in range(100):
    libvirt.virEventAddTimeout(50, lambda *a: None, None)
    libvirt.virEventRunDefaultImpl()
    if events and events[-1] == libvirt.VIR_DOMAIN_EVENT_UNDEFINED:
        break
names = ['defined', 'undefined', 'started', 'suspended', 'resumed', 'stopped', 'shutdown']
told = [names[e] for e in events]
assert told == ['defined', 'resumed', 'started', 'suspended', 'resumed', 'shutdown', 'stopped', 'undefined'], told
conn.close()
print('all done')
