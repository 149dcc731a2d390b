// The default guest's programs and settings as text: `/init` (PID 1, run by busybox's ash) and what it reads.
// Every fork and exec costs about a millisecond in an emulator, so the script uses shell built-ins where it can.

/**
 * `/init`: mounts, drivers, network, then one command (`/.nonroot/exec` exists) or a shell on the console, then power-off.
 * What the host wants to say is in `/.nonroot/config` (see overlay.ts); without that file the guest is interactive.
 * Lines on the control channel, guest to host: `ready`, `exit N`, `stdin` (asks for input). Host to guest:
 * `winsize ROWS COLS`, and `stdin N`, which says that N bytes follow on the output channel's input side (0: end of file).
 * An interactive guest with output channels also takes `run ID BASE64`, a script whose output goes there and whose end it tells by
 * `done ID CODE`, and `stop`, which ends that script. One runs at a time.
 */
export const init = `#!/bin/busybox sh
# /proc comes first: busybox finds itself by /proc/self/exe.
/bin/busybox mount -a
mkdir /dev/pts /dev/shm
mount /dev/pts
echo nonroot >/proc/sys/kernel/hostname
ip link set lo up

console= rows= cols= term= control= out= err= stdin= screen= shares= address= gateway= dns=
[ -e /.nonroot/config ] && . /.nonroot/config
export HOME=/root USER=root SHELL=/bin/sh TERM="\${term:-vt100}" PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin ENV=/etc/shrc

# Programs that end the machine signal PID 1.
trap 'poweroff -f' USR1 USR2
trap 'reboot -f' TERM

# Loads the drivers of devices that have none yet.
drivers() {
  set --
  for file in $buses; do
    [ -e "$file" ] && [ ! -e "\${file%/*}/driver" ] && read -r alias <"$file" && set -- "$@" "$alias"
  done
  [ $# -eq 0 ] || modprobe -qa "$@" 2>/dev/null
}
buses='/sys/bus/pci/devices/*/modalias /sys/bus/platform/devices/LNRO*/modalias /sys/bus/platform/devices/*.virtio_mmio/modalias'
drivers
buses='/sys/bus/virtio/devices/*/modalias'
drivers
for host in /sys/class/scsi_host/*; do
  [ -e "$host" ] && modprobe -qa sd_mod sr_mod 2>/dev/null
  break
done

network() {
  for device in /sys/class/net/*; do
    [ -e "$device/device" ] || continue
    device=\${device##*/}
    if [ -n "$address" ]; then
      ip addr add "$address" dev "$device"
      ip link set "$device" up
      [ -n "$gateway" ] && ip route add default via "$gateway"
      [ -n "$dns" ] && echo "nameserver $dns" >/etc/resolv.conf
    else
      ip link set "$device" up
      udhcpc -i "$device" -q -n -t 5 -T 1 -s /etc/udhcpc >/dev/null 2>&1 </dev/null
    fi
    return
  done
}

# shares: words TAG:PATH or TAG:PATH:ro.
for share in $shares; do
  tag=\${share%%:*} mode=rw where=\${share#*:}
  case $where in *:ro) mode=ro where=\${where%:ro} ;; esac
  mkdir -p "$where"
  mount -t 9p -o "trans=virtio,version=9p2000.L,msize=131072,$mode" "$tag" "$where" 2>/dev/null ||
    mount -t virtiofs -o "$mode" "$tag" "$where" || echo "nonroot: Cannot mount share $tag: this kernel has neither 9p nor virtiofs for it" >&2
done

# Other programs, and paths such as /bin/ls, need the links that this shell does not.
busybox --install -s 2>/dev/null

if [ -n "$control" ]; then
  exec 3<>"$control"
  stty 115200 raw -echo <&3
else
  exec 3>/dev/null
fi
cd /root

# Brings input in pieces, each asked for, so that no buffer on the way overflows.
feed() {
  while echo stdin >&3 && read -r word size <&3 && [ "$word" = stdin ] && [ "$size" -gt 0 ]; do
    head -c "$size" <&4
  done
}

if [ -e /.nonroot/exec ]; then
  # The command's end is the machine's: its code is still to be told.
  trap : USR1 USR2
  network
  exec 4<>"$out" 5<>"$err"
  stty 115200 raw -echo <&4
  stty 115200 raw -echo <&5
  echo ready >&3
  input=/dev/null
  if [ "$stdin" = 1 ]; then
    input=/run/stdin
    mkfifo $input
    feed >$input 2>/dev/null &
  fi
  sh /.nonroot/exec <$input >&4 2>&5 3>&- 4>&- 5>&-
  code=$?
  # Closing a serial port waits until all is sent, unless a process that the command left behind still holds it.
  left=?
  read -r left </proc/1/task/1/children
  if [ -n "$left" ]; then
    kill -9 -1
    stty 115200 <&4
    stty 115200 <&5
  fi 2>/dev/null
  exec 4>&- 5>&-
  echo "exit $code" >&3
  exec 3>&-
  poweroff -f
fi

read -r active </sys/class/tty/console/active
tty=/dev/\${active##* }
[ "$tty" = /dev/tty0 ] && tty=/dev/tty1
[ -n "$rows" ] && stty rows "$rows" cols "$cols" <"$tty"
network &
# The script $2, in base64, as number $1.
run_script() {
  echo "$2" | base64 -d >/run/command
  exec 4<>"$out" 5<>"$err"
  stty 115200 raw -echo <&4
  stty 115200 raw -echo <&5
  setsid sh -c 'echo $$ >/run/command.pid; exec sh /run/command' </dev/null >&4 2>&5 3>&- 4>&- 5>&-
  code=$?
  # Both wait until all is sent.
  stty 115200 raw -echo <&4
  stty 115200 raw -echo <&5
  echo "done $1 $code" >&3
}
if [ -n "$control" ]; then
  while read -r word a b; do
    case $word in
      winsize) stty rows "$a" cols "$b" <"$tty" ;;
      run)
        rm -f /run/command.pid
        run_script "$a" "$b" &
        ;;
      stop)
        # The script may just be starting.
        until read -r pid </run/command.pid; do sleep 0.1; done
        kill -9 "-$pid"
        ;;
    esac
  done <&3 2>/dev/null &
fi
if [ -n "$screen" ] && [ "$screen" != "$tty" ]; then
  while :; do setsid -c sh -l <>"$screen" >&0 2>&1 3>&-; done &
fi
read -r release </proc/sys/kernel/osrelease
echo "Linux $release with busybox. \\\`exit\\\` powers the machine off." >"$tty"
echo ready >&3
while :; do
  setsid -c sh -l <>"$tty" >&0 2>&1 3>&-
  # A shell that was killed (HUP, KILL, SEGV) comes again; one that ended takes the machine with it.
  case $? in 129 | 137 | 139) ;; *) break ;; esac
done
poweroff -f
`;

/** `/etc/fstab`; devpts waits for its directory, which devtmpfs does not bring. */
export const fstab = `proc /proc proc nosuid,nodev,noexec 0 0
sys /sys sysfs nosuid,nodev,noexec 0 0
dev /dev devtmpfs nosuid,mode=755 0 0
run /run tmpfs nosuid,nodev,mode=755 0 0
tmp /tmp tmpfs nosuid,nodev,mode=1777 0 0
pts /dev/pts devpts noauto,nosuid,noexec,gid=5,mode=620 0 0
`;

/** \`/etc/shrc\`, read by interactive shells: without an init daemon, ending the machine takes \`-f\`. */
export const shrc = `PS1='\\h:\\w\\$ '
poweroff() { command poweroff -f "$@"; }
halt() { command poweroff -f "$@"; }
reboot() { command reboot -f "$@"; }
alias ll='ls -l'
`;

/** `/etc/udhcpc`, called by busybox's DHCP client with the lease in variables. */
export const udhcpc = `#!/bin/sh
case $1 in
  deconfig) ip addr flush dev "$interface" ;;
  bound | renew)
    ip addr add "$ip/\${mask:-24}" dev "$interface"
    for via in $router; do
      ip route add default via "$via" dev "$interface"
      break
    done
    for server in $dns; do echo "nameserver $server"; done >/etc/resolv.conf
    ;;
esac
`;
