#!/usr/bin/env bash
# million.sh: one server process with a million logged-in connections, in a guest of this host.
#
#   scripts/million.sh [--connections N] [--memory 14G] [--seconds S] [--kernel FILE] [--accel A]
#
# A host lets a process have some thousand open files unless root says otherwise, and a load of a million connections
# belongs on no host that does something else. The guest has a kernel, a static shell, the server and the load, and nothing
# is left of it afterwards. It is emulated unless told otherwise (--accel kvm): its CPU is some 15 times slower, more when
# the host has other work, so that no time in it means anything; what its kernel counts, memory above all, is exact.
#
# In the guest: `meshtalk serve`, `meshbench idle` in four processes from many loopback addresses, WebSocket and TCP in
# turn, all with their heartbeats, and in the end `meshbench private` beside them. Printed are the server's memory at a
# tenth, a half and all of the connections, the kernel's, and a message's round trip.
#
# Needs qemu-system-x86_64, cpio, a static busybox, Go, and a kernel with virtio or without need of it:
#   apt-get install qemu-system-x86 cpio busybox-static linux-image-cloud-amd64
set -euo pipefail
cd "$(dirname "$0")/.."

usage='usage: million.sh [--connections N] [--memory SIZE] [--seconds S] [--kernel FILE] [--accel A]'
connections=1000000 memory=14G seconds=7200 kernel='' accel=tcg,thread=multi
while (($#)); do
  case $1 in
    --connections) connections=${2-} ;;
    --memory) memory=${2-} ;;
    --seconds) seconds=${2-} ;; # after which the guest is ended, whatever it does
    --accel) accel=${2-} ;; # of QEMU; kvm where the host has it and is no guest itself
    --kernel) kernel=${2-} ;;
    *) echo "million.sh: unknown: '$1'; $usage" >&2; exit 2 ;;
  esac
  [[ -n ${2-} ]] || { echo "million.sh: $1 wants a value; $usage" >&2; exit 2; }
  shift 2
done
[[ $connections =~ ^[1-9][0-9]{2,6}$ && $seconds =~ ^[1-9][0-9]*$ ]] || { echo "million.sh: want 100 to 9999999 connections; $usage" >&2; exit 2; }

for program in qemu-system-x86_64 cpio busybox go; do
  command -v "$program" >/dev/null || { echo "million.sh: no $program; see the top of this file" >&2; exit 2; }
done
if [[ -z $kernel ]]; then
  for kernel in /boot/vmlinuz-*-cloud-amd64; do :; done # the newest of this name
fi
[[ -r $kernel ]] || { echo "million.sh: no kernel $kernel; see the top of this file" >&2; exit 2; }

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir -p "$dir/root"/{bin,proc,sys,dev,tmp,data}
cp "$(command -v busybox)" "$dir/root/bin/busybox"
CGO_ENABLED=0 go build -ldflags '-s -w' -o "$dir/root/bin/" ./cmd/meshtalk ./cmd/meshbench

# A heartbeat from each connection every 30 s, or so seldom that an emulated CPU keeps up: 2,000 a second.
beat=$((connections / 2000))
((beat >= 30)) || beat=30

cat >"$dir/root/init" <<GUEST
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
mount -t tmpfs tmpfs /tmp; mount -t tmpfs tmpfs /data
export TERM=dumb
N=$connections BEAT=$beat HOLD=$((180 + connections / 2000))
GUEST
cat >>"$dir/root/init" <<'GUEST'
set_kernel() {
  sysctl -w fs.nr_open=8000000 fs.file-max=16000000 net.core.somaxconn=4096 net.ipv4.tcp_max_syn_backlog=8192 \
    net.core.netdev_max_backlog=16384 net.ipv4.ip_local_port_range='1024 65535' \
    net.ipv4.tcp_mem="$((N * 3 / 8)) $((N / 2)) $((N * 3 / 4))" >/dev/null
  ulimit -n 4000000
  ip link set lo up
}

# kb FILE NAME: the number of a line "NAME: 123 kB".
kb() { awk -v name="$2:" '$1 == name { print $2 }' "$1"; }
# count: the server's sessions.
count() { wget -q -O - http://127.0.0.1:8090/metrics | awk '$1 == "meshtalk_sessions" { printf "%d", $2 }'; }

memory() {
  echo "memory with $(count) sessions:"
  echo "  server     VmRSS $(kb /proc/$server/status VmRSS) kB, RssAnon $(kb /proc/$server/status RssAnon) kB"
  echo "  kernel     Slab $(kb /proc/meminfo Slab) kB, of that SUnreclaim $(kb /proc/meminfo SUnreclaim) kB; available $(kb /proc/meminfo MemAvailable) kB"
  grep -E '^(sockets|TCP)' /proc/net/sockstat | sed 's/^/  sockets    /'
}

set_kernel
meshtalk serve --data-dir /data/d --limits.messages-per-second=0 --heartbeat.interval=${BEAT}s --heartbeat.timeout=$((BEAT * 4))s \
  --login.timeout=120s --shutdown.timeout=600s --log.level=warn >/tmp/server.out 2>/tmp/server.err &
server=$!
until grep -q '^ready' /tmp/server.out; do sleep 1; kill -0 $server || { cat /tmp/server.err; poweroff -f; }; done
echo "guest: $(uname -r), $(nproc) CPUs, $(kb /proc/meminfo MemTotal) kB; a heartbeat every $BEAT s"
memory

# All that a source address and a target address have of each other are some 60,000 ports, half of them quickly.
targets=
for i in 1 2 3 4; do targets="$targets,ws://127.0.2.$i:8080/im,tcp://127.0.2.$i:8081"; done
common="--data-dir /data/d --admin http://127.0.0.1:8090 --server-pid $server"
GOGC=50 meshbench idle $common --addr "${targets#,}" --sources 127.0.1.1-127.0.1.40 --procs 4 --handshakes 64 --heartbeat ${BEAT}s \
  --steps $((N / 10)),$((N / 2)),$N --settle 20s --duration ${HOLD}s >/tmp/idle.out 2>&1 &
idle=$!
last=0
while [ "$(count)" -lt "$N" ] && kill -0 $idle 2>/dev/null; do
  sleep 20
  now=$(count); echo "$now sessions, $(((now - last) / 20)) more a second"; last=$now
done
memory
echo "private messages meanwhile:"
meshbench private $common --addr tcp://127.0.0.1:8081 --pairs 20 --rate 20 --warmup 10s --duration 60s --heartbeat ${BEAT}s --drain 60s --floor=false
echo "private exit $?"
memory
wait $idle; echo "idle exit $?"
cat /tmp/idle.out
kill -TERM $server; wait $server; echo "server exit $?"
echo "server says:"; cat /tmp/server.err
poweroff -f
GUEST
chmod +x "$dir/root/init"
(cd "$dir/root" && find . | cpio -o -H newc --quiet | gzip -1 >"$dir/initrd.gz")

# The clock is the CPU's: a look at the usual one is a device's, through the emulator's lock. 1.5 times the logins a second.
timeout "$seconds" qemu-system-x86_64 -accel "$accel" -cpu max -smp 2 -m "$memory" -nographic -no-reboot \
  -kernel "$kernel" -initrd "$dir/initrd.gz" -append 'console=ttyS0 quiet panic=-1 clocksource=tsc tsc=reliable mitigations=off' </dev/null | sed -u 's/\r$//' | tee "$dir/log"
# Every part must have ended well, and all must have been there.
grep -q '^private exit 0' "$dir/log" && grep -q '^idle exit 0' "$dir/log" && grep -q '^server exit 0' "$dir/log"
