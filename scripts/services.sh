#!/usr/bin/env bash
# services.sh: Redis, PostgreSQL and RocketMQ on this machine, without containers, for development and tests.
#
#   up       starts the named services (all without names) and prints one line for each, "NAME ADDRESS", when it answers.
#            What runs already is left alone, what ran before comes back with its files and on its ports
#   down     ends what `up` started, and keeps the files; --now with SIGKILL
#   status   prints "NAME up|stopped|down PID ADDRESS" for each; exits 1 if one of them is not up
#   logs     prints the last lines of each log
#   install  installs what is missing: Debian packages, and RocketMQ's jars by Maven into a cache of this user
#
# Services: redis, postgres, rocketmq (= namesrv and broker); more of a kind have numbers: namesrv2, broker2.
# Everything stands in one folder, --dir (default /var/tmp/meshtalk-services-UID), with a folder for each service that holds
# its pid, port, address, log and data. Nothing listens beyond 127.0.0.1. Deleting the folder of what is down is all
# there is to remove.
#
# `up` installs what is missing unless --no-install is given; then it fails with the command that does. With --for PID the
# services end, and their folder goes, when that process is gone: so that a test that was killed leaves nothing.
#
# Redis keeps nothing (one that was killed comes back empty). PostgreSQL syncs, as it comes. The broker has SYNC_FLUSH: what it
# acknowledged is on the disk. SERVICES_JAVA_OPTIONS are Java's, by default -XX:TieredStopAtLevel=1. Needs bash 4.4, coreutils, flock and setpriv (util-linux).
set -euo pipefail
export LC_ALL=C
umask 022 # PostgreSQL refuses to run as root: its own user has to reach its folder

readonly usage='usage: services.sh up|down|status|logs|install [redis|postgres|rocketmq|namesrvN|brokerN …] [--dir D] [--no-install] [--now] [--for PID]'
readonly version=5.4.0 # of RocketMQ
readonly patience=90   # seconds for a service to answer or to end; a busy machine is no error

tell() { printf 'services.sh: %s\n' "$*" >&2; }
fail() { tell "$@"; exit 1; }
misuse() { tell "$1; $usage"; exit 2; }

cache=${XDG_CACHE_HOME:-$HOME/.cache}/meshtalk
readonly cache jars=$cache/rocketmq-$version
readonly ports=$cache/ports # one file for each block of ports in use, holding the folder that has it

# ---- what must be installed ----

# postgres_bin prints the folder of the newest PostgreSQL.
postgres_bin() {
  local -a found
  found=(/usr/lib/postgresql/*/bin/initdb /usr/pgsql-*/bin/initdb)
  local newest
  newest=$(printf '%s\n' "${found[@]}" | sort -V | while read -r f; do [[ ! -x $f ]] || echo "$f"; done | tail -n 1)
  [[ -n $newest ]] || newest=$(command -v initdb) || return 1
  dirname "$newest"
}

# missing KIND: prints the Debian packages that KIND lacks.
missing() {
  case $1 in
    redis) command -v redis-server >/dev/null || echo redis-server ;;
    postgres) postgres_bin >/dev/null || echo postgresql ;;
    rocketmq)
      command -v java >/dev/null || echo default-jre-headless
      [[ -d $jars ]] || command -v mvn >/dev/null || echo maven
      ;;
  esac
}

# provide KIND installs what KIND lacks, or says how.
provide() {
  local packages sudo=''
  packages=$(missing "$1")
  if [[ -n $packages || ($1 == rocketmq && ! -d $jars) ]] && [[ -n $no_install ]]; then
    fail "$1 is not installed: run scripts/services.sh install $1"
  fi
  if [[ -n $packages ]]; then
    command -v apt-get >/dev/null || fail "$1 needs the packages ${packages//$'\n'/ }, and there is no apt-get to install them"
    ((EUID == 0)) || sudo=sudo
    # shellcheck disable=SC2086 # words on purpose
    {
      $sudo env DEBIAN_FRONTEND=noninteractive apt-get update -qq
      $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages
    } >&2
  fi
  if [[ $1 == rocketmq ]]; then fetch_jars; fi
}

# fetch_jars fills the cache once, whoever comes first; a fetch that breaks off leaves nothing that looks whole.
fetch_jars() {
  mkdir -p "$cache"
  local partial lock
  exec {lock}>"$cache/lock"
  flock "$lock"
  if [[ ! -d $jars ]]; then
    tell "fetching RocketMQ $version into $jars"
    rm -rf "$jars".partial
    partial=$jars.partial
    mkdir "$partial"
    cat >"$partial/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>meshtalk</groupId><artifactId>services</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.rocketmq</groupId><artifactId>rocketmq-namesrv</artifactId><version>$version</version></dependency>
    <dependency><groupId>org.apache.rocketmq</groupId><artifactId>rocketmq-broker</artifactId><version>$version</version></dependency>
  </dependencies>
</project>
POM
    mvn -q -B -Dstyle.color=never -f "$partial/pom.xml" org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies \
      -DincludeScope=runtime -DoutputDirectory="$partial/lib" >&2
    mv "$partial" "$jars"
  fi
  exec {lock}>&-
}

# ---- ports ----

# in_use PORT: something listens there.
in_use() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# port_of NAME prints the service's port, chosen at its first start and kept. Ports come in blocks of four, of which the
# third is the service's: a broker takes port - 2 and port + 1 too. Below 32,768, where outgoing connections begin.
port_of() {
  local file=$dir/$1/port block port owner
  if [[ ! -s $file ]]; then
    mkdir -p "$ports"
    while :; do
      block=$((10000 + (RANDOM * 32768 + RANDOM) % 5600 * 4))
      if owner=$(cat "$ports/$block" 2>/dev/null); then
        if [[ -e $owner ]]; then continue; fi
        rm -f "$ports/$block"
      fi
      (set -o noclobber && echo "$dir/$1" >"$ports/$block") 2>/dev/null || continue # another one was faster
      for port in 0 1 2 3; do
        if in_use $((block + port)); then continue 2; fi
      done
      break
    done
    echo $((block + 2)) >"$file"
  fi
  cat "$file"
}

# ---- one service ----

kind_of() {
  case $1 in
    namesrv* | broker*) echo rocketmq ;;
    *) echo "$1" ;;
  esac
}

# pid_of NAME prints the process of a service that runs. Its working directory tells it from a process that got the number
# of one that has ended.
pid_of() {
  local pid cwd
  pid=$(cat "$dir/$1/pid" 2>/dev/null) && [[ $pid =~ ^[0-9]+$ ]] || return 1
  cwd=$(readlink "/proc/$pid/cwd" 2>/dev/null) && [[ $cwd/ == "$dir/$1/"* ]] || return 1
  echo "$pid"
}

state_of() {
  local pid _ state
  pid=$(pid_of "$1") || { echo down; return; }
  while read -r _ state _; do
    if [[ $_ == State: ]]; then break; fi
  done < <(sed -n 's/^State:/State: /p' "/proc/$pid/status" 2>/dev/null)
  if [[ $state == T ]]; then echo stopped; else echo up; fi
}

# launch NAME COMMAND…: in the background, in a session of its own, in the service's folder.
launch() {
  local home=$dir/$1
  shift
  (
    cd "$home" # before there is a process, which pid_of knows by it
    setsid "$@" >>log 2>&1 </dev/null {folder_lock}>&- & # a lock lives as long as any holder of the file
    echo $! >pid
  )
}

start_redis() {
  launch "$1" redis-server --bind 127.0.0.1 --port "$2" --dir "$dir/$1" --save '' --appendonly no
}
ready_redis() {
  local answer
  { exec 3<>"/dev/tcp/127.0.0.1/$2"; } 2>/dev/null || return 1
  echo PING >&3
  read -r -t 2 answer <&3 || true
  exec 3>&-
  [[ $answer == +PONG* ]]
}

# as_postgres prints what comes before a command that PostgreSQL refuses to run as root.
as_postgres() {
  if ((EUID == 0)); then echo setpriv --reuid=postgres --regid=postgres --init-groups; fi
}

# at_work_in FOLDER: some process has it as its working directory.
at_work_in() {
  local p
  for p in /proc/[0-9]*/cwd; do
    if [[ $(readlink "$p" 2>/dev/null) == "$1" ]]; then return 0; fi
  done
  return 1
}

start_postgres() {
  local home=$dir/$1 bin user
  bin=$(postgres_bin)
  read -r -a user <<<"$(as_postgres)"
  if [[ ! -e $home/data/PG_VERSION ]]; then
    rm -rf "$home/data"
    mkdir -m 700 "$home/data"
    if ((EUID == 0)); then
      chown postgres: "$home/data"
      "${user[@]}" test -w "$home/data" || fail "the user postgres cannot reach $home: choose another --dir"
    fi
    (umask 077 && head -c 18 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$home/password")
    if ((EUID == 0)); then chown postgres: "$home/password"; fi
    "${user[@]}" "$bin/initdb" -D "$home/data" -U meshtalk --auth=scram-sha-256 --pwfile="$home/password" \
      --encoding=UTF8 --locale=C >>"$home/log" 2>&1 || fail "initdb: $(tail -n 5 "$home/log")"
  fi
  # What a killed server leaves are children that end by themselves, and a lock file with its number, which may still stand for
  # a process that nobody has reaped.
  while at_work_in "$home/data"; do
    ((SECONDS < patience)) || fail "$1: the processes of an earlier run do not end"
    sleep 0.05
  done
  rm -f "$home/data/postmaster.pid"
  launch "$1" "${user[@]}" "$bin/postgres" -D "$home/data" -p "$2" -c listen_addresses=127.0.0.1 \
    -c unix_socket_directories= -c max_connections=300 -c shared_buffers=128MB
}
ready_postgres() {
  local bin
  bin=$(postgres_bin)
  "$bin/pg_isready" -q -h 127.0.0.1 -p "$2" || return 1
  export PGPASSWORD
  PGPASSWORD=$(<"$dir/$1/password")
  "$bin/psql" -q -h 127.0.0.1 -p "$2" -U meshtalk -d meshtalk -c 'select 1' >/dev/null 2>&1 ||
    "$bin/psql" -q -h 127.0.0.1 -p "$2" -U meshtalk -d postgres -c 'create database meshtalk' >/dev/null 2>&1
}

# start_java NAME HEAP OPTION… CLASS…
# With the first of Java's two compilers alone: the second takes a quarter of a core for the first minute of a broker's life, which in tests is all of it.
# A broker that lives longer wants both: SERVICES_JAVA_OPTIONS= (0.53 cores instead of 0.63 at 2,000 messages/s).
# And with binary headers: a broker answers pulls that have waited in its own kind, which is JSON by default.
start_java() {
  local name=$1 heap=$2 home=$dir/$1 options
  read -ra options <<<"${SERVICES_JAVA_OPTIONS--XX:TieredStopAtLevel=1}"
  shift 2
  ROCKETMQ_HOME=$home launch "$name" java "-Xms$heap" "-Xmx$heap" -XX:+UseSerialGC "${options[@]}" -XX:-UsePerfData "-Duser.home=$home" -Drocketmq.serialize.type=ROCKETMQ \
    --add-exports=java.base/sun.nio.ch=ALL-UNNAMED --add-exports=java.base/jdk.internal.ref=ALL-UNNAMED \
    --add-opens=java.base/java.nio=ALL-UNNAMED --add-opens=java.base/jdk.internal.ref=ALL-UNNAMED \
    --add-opens=java.base/java.util=ALL-UNNAMED -cp "$jars/lib/*" "$@"
}

start_namesrv() {
  printf 'listenPort=%s\nbindAddress=127.0.0.1\n' "$2" >"$dir/$1/conf"
  start_java "$1" 64m org.apache.rocketmq.namesrv.NamesrvStartup -c "$dir/$1/conf"
}
ready_namesrv() { in_use "$2"; }

# start_broker: the files are small, because they are mapped whole; the waits of a request in the broker's queue are
# long, because a test machine stalls. Topics are made by who needs them, with the number of queues that they want.
start_broker() {
  local home=$dir/$1 servers='' n
  for n in "$dir"/namesrv*/port; do
    if [[ -s $n ]]; then servers+="${servers:+;}127.0.0.1:$(<"$n")"; fi
  done
  [[ -n $servers ]] || fail "$1 needs a name server: services.sh up rocketmq"
  cat >"$home/conf" <<CONF
brokerClusterName=meshtalk
brokerName=$1
brokerId=0
brokerIP1=127.0.0.1
bindAddress=127.0.0.1
listenPort=$2
namesrvAddr=$servers
storePathRootDir=$home/store
storePathCommitLog=$home/store/commitlog
flushDiskType=SYNC_FLUSH
autoCreateTopicEnable=false
mappedFileSizeCommitLog=67108864
mappedFileSizeConsumeQueue=600000
maxHashSlotNum=100000
maxIndexNum=400000
timerWheelEnable=false
transactionMetricFlushInterval=1000
diskMaxUsedSpaceRatio=95
waitTimeMillsInSendQueue=5000
osPageCacheBusyTimeOutMills=5000
CONF
  if [[ -e $home/extra.conf ]]; then cat "$home/extra.conf" >>"$home/conf"; fi # what a test wants otherwise
  start_java "$1" 256m -XX:MaxDirectMemorySize=256m -Drocketmq.broker.diskSpaceWarningLevelRatio=0.99 \
    -Drocketmq.broker.diskSpaceCleanForciblyRatio=0.98 org.apache.rocketmq.broker.BrokerStartup -c "$home/conf"
}
# remoting PORT CODE [BODY] sends one request of RocketMQ's protocol and prints the answer: length 4, length of the header 4, header, body.
remoting() {
  local header="{\"code\":$2,\"flag\":0,\"language\":\"JAVA\",\"opaque\":1,\"serializeTypeCurrentRPC\":\"JSON\",\"version\":399}" body=${3-} n frame
  { exec 3<>"/dev/tcp/127.0.0.1/$1"; } 2>/dev/null || return 1
  printf -v frame '\\x%02x' 0 0 0 $((4 + ${#header} + ${#body})) 0 0 0 ${#header}
  printf '%b%s%s' "$frame" "$header" "$body" >&3
  n=$(timeout 3 head -c 4 <&3 | od -An -tu1 | { read -r a b c d && echo $((((a * 256 + b) * 256 + c) * 256 + d)); }) &&
    timeout 3 head -c "$n" <&3 | tr '\0' ' '
  exec 3>&-
}

# ready_broker: it listens, and the name servers know it. At its start it tells only those that it has found by then, and the
# others 10 s later; a change of its permission, to what it is, makes it tell again.
ready_broker() {
  local n
  # Without -q, here and below: grep would end at once, and what feeds it by a signal, which counts as a failure.
  tail -n "+$((log_begin + 1))" "$dir/$1/log" | grep 'boot success' >/dev/null && in_use "$2" || return 1
  for n in "$dir"/namesrv*/port; do
    if remoting "$(<"$n")" 106 | grep "\"127.0.0.1:$2\"" >/dev/null; then continue; fi
    if pid_of "$(basename "$(dirname "$n")")" >/dev/null; then
      remoting "$2" 25 brokerPermission=6 >/dev/null
      return 1
    fi
  done
}

address_of() {
  if [[ $1 == postgres ]]; then
    echo "postgres://meshtalk:$(<"$dir/$1/password")@127.0.0.1:$2/meshtalk?sslmode=disable"
  else
    echo "127.0.0.1:$2"
  fi
}

# ---- the commands ----

# start NAME, unless it runs; await waits until it answers.
declare -A log_begins=() # lines of the log that are of earlier runs
start() {
  local base=${1%%[0-9]*} port
  mkdir -p "$dir/$1"
  touch "$dir/$1/log"
  log_begins[$1]=0
  if pid_of "$1" >/dev/null; then return; fi
  log_begins[$1]=$(wc -l <"$dir/$1/log")
  port=$(port_of "$1")
  "start_$base" "$1" "$port"
  (umask 077 && address_of "$1" "$port" >"$dir/$1/address")
}

# said FILE [FIRST]: a log from a line on, without what RocketMQ tells of its own logging.
said() { tail -n "+${2-1}" "$1" | grep -v -- '|-' || true; }

await() {
  local base=${1%%[0-9]*} port since=$SECONDS log_begin=${log_begins[$1]}
  port=$(port_of "$1")
  until "ready_$base" "$1" "$port" && pid_of "$1" >/dev/null; do
    if ! pid_of "$1" >/dev/null; then fail "$1 has ended: $(said "$dir/$1/log" $((log_begin + 1)) | tail -n 15)"; fi
    ((SECONDS - since < patience)) || fail "$1 does not answer for $patience s: $(said "$dir/$1/log" $((log_begin + 1)) | tail -n 15)"
    sleep 0.1
  done
}

up() {
  local name kind
  for kind in $(for name in "${names[@]}"; do kind_of "$name"; done | sort -u); do provide "$kind"; done
  if [[ -n $for_pid ]]; then
    # It outlives this script, and holds none of its files.
    setsid "$BASH" "$0" watch --dir "$dir" --for "$for_pid" </dev/null >/dev/null 2>&1 {folder_lock}>&- &
  fi
  for name in "${names[@]}"; do # brokers want a name server that listens
    start "$name"
    if [[ $name == namesrv* ]]; then await "$name"; fi
  done
  for name in "${names[@]}"; do await "$name"; done
  for name in "${names[@]}"; do echo "$name $(<"$dir/$name/address")"; done
}

# end SIGNAL NAME… and wait for it.
end() {
  local signal=$1 name pid since=$SECONDS
  shift
  for name in "$@"; do
    if pid=$(pid_of "$name"); then
      [[ $name != postgres || $signal != TERM ]] || signal=INT # fast: does not wait for its clients
      kill -s "$signal" "$pid" 2>/dev/null || true
      kill -s CONT "$pid" 2>/dev/null || true # a stopped one takes the signal only now
    fi
  done
  for name in "$@"; do
    while pid=$(pid_of "$name"); do
      if ((SECONDS - since >= patience)); then kill -s KILL "$pid" 2>/dev/null || true; fi
      sleep 0.05
    done
    rm -f "$dir/$name/pid"
  done
}

down() {
  local name
  local -a brokers=() others=()
  for name in "${names[@]}"; do
    if [[ $name == broker* ]]; then brokers+=("$name"); else others+=("$name"); fi
  done
  end "${now:-TERM}" "${brokers[@]}" # first: they say goodbye to the name servers
  end "${now:-TERM}" "${others[@]}"
}

status() {
  local name all=0 state
  for name in "${names[@]}"; do
    state=$(state_of "$name")
    [[ $state == up ]] || all=1
    echo "$name $state $(pid_of "$name" || echo -) $(cat "$dir/$name/address" 2>/dev/null || echo -)"
  done
  return $all
}

logs() {
  local name
  for name in "${names[@]}"; do
    if [[ -e $dir/$name/log ]]; then
      echo "==> $dir/$name/log <=="
      said "$dir/$name/log" | tail -n 50
    fi
  done
}

install() {
  local kind name
  for kind in $(for name in "${names[@]}"; do kind_of "$name"; done | sort -u); do provide "$kind"; done
}

# watch is the process that ends the services of a test that is gone.
watch() {
  tail --pid="$for_pid" -f /dev/null
  [[ -d $dir ]] || return 0
  "$BASH" "$0" down --now --dir "$dir" # which looks for what is there by now
  rm -rf "$dir"
}

# ---- the command line ----

command='' dir='' no_install='' now='' for_pid='' names=()
while (($#)); do
  case $1 in
    up | down | status | logs | install | watch)
      [[ -z $command ]] || misuse "two commands, $command and $1"
      command=$1
      ;;
    rocketmq) names+=(namesrv broker) ;;
    redis | postgres) names+=("$1") ;;
    namesrv* | broker*)
      [[ $1 =~ ^(namesrv|broker)([2-9])?$ ]] || misuse "$1 is no service"
      names+=("$1")
      ;;
    --dir | --for)
      (($# > 1)) || misuse "$1 needs a value"
      if [[ $1 == --dir ]]; then dir=$2; else for_pid=$2; fi
      shift
      ;;
    --dir=*) dir=${1#*=} ;;
    --for=*) for_pid=${1#*=} ;;
    --no-install) no_install=1 ;;
    --now) now=KILL ;;
    -h | --help)
      sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"
      exit
      ;;
    *) misuse "$1 is neither a command, a service nor a flag" ;;
  esac
  shift
done
[[ -n $command ]] || misuse 'no command'
[[ -z $for_pid || $for_pid =~ ^[0-9]+$ ]] || misuse "--for $for_pid: not the number of a process"
[[ $command != watch || -n $for_pid ]] || misuse 'watch needs --for'

[[ -n $dir ]] || dir=/var/tmp/meshtalk-services-$EUID
if [[ $command == up ]]; then
  mkdir -p "$dir"
  [[ -O $dir ]] || fail "$dir belongs to somebody else"
elif [[ ! -d $dir && $command != install ]]; then
  [[ $command == down || $command == watch ]] || fail "nothing was started in $dir"
  exit 0
fi
if ((${#names[@]} == 0)); then
  case $command in
    up | install) names=(redis postgres namesrv broker) ;;
    *) # what is there
      for file in "$dir"/*/port; do
        if [[ -s $file ]]; then
          file=${file%/port}
          names+=("${file##*/}")
        fi
      done
      ;;
  esac
fi

if [[ -d $dir ]]; then
  dir=$(cd "$dir" && pwd -P)
  if [[ $command == up || $command == down ]]; then # one at a time
    exec {folder_lock}<"$dir"
    flock "$folder_lock"
  fi
fi
"$command"
