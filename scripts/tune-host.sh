#!/usr/bin/env bash
# tune-host.sh: is this Linux host fit for many connections, and if not, make it so, and take it back.
#
#   check   changes nothing; prints a table of what is short and exits 1, or exits 0
#   apply   writes /etc/sysctl.d/99-meshtalk.conf and /etc/security/limits.d/99-meshtalk.conf, puts the values in force,
#           and remembers what was there before; it only ever moves a value towards what is needed
#   undo    puts the old values back and removes both files
#
# The settings, each with its reason and the number of connections from which it matters, are the table in settings()
# below; docs/tuning.md has the arithmetic. Needs bash 4.4, coreutils, flock (util-linux) and sysctl (procps).
set -euo pipefail
export LC_ALL=C
PATH=$PATH:/usr/sbin:/sbin # where sysctl is, for who is not root

readonly usage='usage: tune-host.sh check|apply|undo [--connections N] [--root DIR]'
readonly marker='# Written by tune-host.sh of Mesh-Talk.' # first line of each file, so that nobody else's is touched

# ---- what is wanted ----

keys=() # in the order of the table
declare -A rule least aim reason

# setting KEY RULE LEAST AIM REASON: LEAST is what `check` judges, AIM what `apply` moves a short value to, number by
# number. Rules: "least" and "most" say in which direction a number may be off; "ports" is a range, LEAST its size; "off" is a
# setting that does not matter for so few connections.
setting() {
  keys+=("$1")
  rule[$1]=$2 least[$1]=$3 aim[$1]=$4 reason[$1]=$5
}

# clamp N LOW HIGH
clamp() { echo $(($1 < $2 ? $2 : $1 > $3 ? $3 : $1)); }

# round_up N: the power of two from N on, for limits that one sets once.
round_up() {
  local p=65536
  while ((p < $1)); do p=$((p * 2)); done
  echo "$p"
}

# settings fills the table for n connections. `meshtalk doctor` judges by the same numbers.
settings() {
  local n=$1 some=off many=off
  ((n < 10000)) || some=most
  ((n < 100000)) || many=most

  # One descriptor for each connection, and some hundreds for the store, listeners and the admin port.
  need=$((n + 512))
  nofile=$(round_up "$need")
  setting fs.nr_open least "$need" "$nofile" \
    'from 1,000,000 connections: the most that LimitNOFILE and ulimit -n may be; 1,048,576 as the kernel comes'
  setting fs.file-max least $((2 * need)) $((2 * need)) \
    'from 100,000 connections, on hosts with little memory: open files of all processes together'

  # A storm of reconnects arrives faster than it is accepted. What does not fit is dropped, and the client repeats its
  # SYN after 1 s, 3 s, 7 s. More than some thousand only hides a server that is too slow. Listeners read somaxconn when they start.
  local backlog
  backlog=$(clamp $((n / 10)) 128 4096)
  setting net.core.somaxconn least "$backlog" "$backlog" \
    'from 1,000 connections that come back at once: those that wait to be accepted; older kernels have 128'
  backlog=$(clamp $((n / 10)) 128 8192)
  setting net.ipv4.tcp_max_syn_backlog least "$backlog" "$backlog" \
    'from 1,000 connections that come back at once: handshakes under way; small hosts have 128'

  # Packets that wait for a CPU after the loopback device, a bridge, or receive steering; not those of a plain network card.
  backlog=$(clamp $((n / 10)) 1000 16384)
  setting net.core.netdev_max_backlog least "$backlog" "$backlog" \
    'from 10,000 connections: packets of loopback, bridges and receive steering that wait for a CPU; what is too many is dropped'

  # Clients elsewhere bring their own ports. A port is of one source and one target address: more of either multiply it.
  # What listens above 10240 belongs in net.ipv4.ip_local_reserved_ports then.
  setting net.ipv4.ip_local_port_range ports "$(clamp "$n" 10000 50000)" '10240 65535' \
    'from 28,000 connections made from this host (a proxy, a load generator) to one address: their local ports'

  # Pages (4 KiB) of all TCP buffers: where pressure ends, where it begins, where the kernel refuses. An idle socket has
  # none, one with anything queued at least one. Half of all with something queued at once is a bad day. The first number
  # is not judged: it says only how long pressure lasts.
  setting net.ipv4.tcp_mem least "0 $((n / 2)) $((n * 3 / 4))" "$((n * 3 / 8)) $((n / 2)) $((n * 3 / 4))" \
    'from 100,000 connections, on hosts with less than 3.2 GB of memory for each 100,000: pages of all TCP buffers; above the second number they shrink, above the third data is dropped'

  # Bytes that the kernel keeps for one socket: least, first, most. 1 MiB carries some 40 Mbit/s over 100 ms to one client.
  # With the usual most of 4 to 6 MiB, 1,000 stalled ones of 100,000 clients could keep 4 to 6 GB.
  setting net.ipv4.tcp_rmem "$many" '4096 131072 1048576' '4096 131072 1048576' \
    'from 100,000 connections: bytes that one socket may receive ahead; bounds what clients that are not read take'
  setting net.ipv4.tcp_wmem "$many" '4096 65536 1048576' '4096 65536 1048576' \
    'from 100,000 connections: bytes that one socket may hold unacknowledged; bounds what stalled clients take'

  # The kernel takes data long before it can send it. Bounding that keeps what waits for a slow client in the server, which
  # stops at 64 KiB for each, and leaves what is in flight alone. Twice those 64 KiB, so that a fast client never runs dry.
  setting net.ipv4.tcp_notsent_lowat "$some" 131072 131072 \
    'from 10,000 connections: bytes not yet sent that the kernel takes for a slow client; without it up to 4 MiB each'

  # The server closes silent connections itself (heartbeat.timeout) and asks for no probes. The other end may: the
  # default keeps a dead peer for 2 h 11 min, this for 5 min + 5 x 30 s.
  setting net.ipv4.tcp_keepalive_time "$some" 300 300 \
    'from 10,000 connections through a proxy on this host: seconds of silence before the first probe'
  setting net.ipv4.tcp_keepalive_intvl "$some" 30 30 \
    'from 10,000 connections through a proxy on this host: seconds between probes'
  setting net.ipv4.tcp_keepalive_probes "$some" 5 5 \
    'from 10,000 connections through a proxy on this host: unanswered probes that end a connection'

  # Only there when the module is loaded. Better: take the server's ports out of tracking. A module that is loaded after
  # the start's sysctl wants its name in /etc/modules-load.d.
  setting net.netfilter.nf_conntrack_max least $((n * 5 / 4)) $((n * 5 / 4)) \
    'from 50,000 connections, when a firewall tracks them: packets of those beyond it are dropped'
}

# ---- what is ----

tell() { printf 'tune-host.sh: %s\n' "$*" >&2; }
fail() { tell "$@"; exit 1; }
misuse() { tell "$1; $usage"; exit 2; }

# is_now KEY: the numbers with single blanks; fails when the kernel has no such key or it holds something else. A table of
# 0 entries is one without a bound.
is_now() {
  local file=$root/proc/sys/${1//.//} words
  [[ -f $file && -r $file ]] || return 1
  read -r -a words <<<"$(<"$file")"
  [[ ${words[*]} =~ ^[0-9]+( [0-9]+)*$ ]] || return 1
  [[ $1 != net.netfilter.nf_conntrack_max || ${words[0]} != 0 ]] || return 1
  echo "${words[*]}"
}

# short KEY IS: is it short of what is wanted?
short() {
  local -a is want
  local i
  read -r -a is <<<"$2"
  read -r -a want <<<"${least[$1]}"
  if [[ ${rule[$1]} == ports ]]; then
    ((${#is[@]} == 2 && is[1] - is[0] + 1 < want[0]))
    return
  fi
  ((${#is[@]} == ${#want[@]})) || return 1 # not the setting that we know
  for i in "${!is[@]}"; do
    case ${rule[$1]} in
      least) ((is[i] < want[i])) && return 0 ;;
      most) ((is[i] > want[i])) && return 0 ;;
      *) return 1 ;; # off
    esac
  done
  return 1
}

# moved KEY IS: the value with every number that falls short of the aim moved to it, and no other.
moved() {
  local -a is to
  local i up
  read -r -a is <<<"$2"
  read -r -a to <<<"${aim[$1]}"
  for i in "${!is[@]}"; do
    case ${rule[$1]} in
      least) up=1 ;;
      most) up=0 ;;
      ports) up=$i ;; # the first port down, the last one up
      *) continue ;;  # off
    esac
    if ((up ? is[i] < to[i] : is[i] > to[i])); then is[i]=${to[i]}; fi
  done
  echo "${is[*]}"
}

# limit_now: the hard limit of open files that a login shell gets, as far as it can be known here; empty = unknown.
limit_now() {
  local ours='' word
  if [[ -f $limits ]]; then
    while read -r -a word; do
      if [[ ${word[*]} =~ ^\*\ hard\ nofile\ [0-9]+$ ]]; then ours=${word[3]}; fi
    done <"$limits"
  fi
  if [[ -z $root ]]; then
    local mine
    mine=$(ulimit -Hn)
    [[ $mine != unlimited ]] || mine=9223372036854775807
    if [[ -z $ours ]] || ((mine > ours)); then ours=$mine; fi
  fi
  echo "$ours"
}

# unit_limit: LimitNOFILE (the hard one) of an installed meshtalk.service with its drop-ins; empty = there is no unit.
unit_limit() {
  local dir unit='' value='' line file
  local -a files dirs=(/lib/systemd/system /usr/lib/systemd/system /usr/local/lib/systemd/system /run/systemd/system /etc/systemd/system)
  for dir in "${dirs[@]}"; do # the last one wins
    if [[ -f $root$dir/meshtalk.service ]]; then unit=$root$dir/meshtalk.service; fi
  done
  [[ -n $unit ]] || return 0
  value=524288 # systemd's default since 240
  for dir in "${dirs[@]}"; do files+=("$root$dir"/meshtalk.service.d/*.conf); done
  for file in "$unit" "${files[@]}"; do
    [[ -f $file ]] || continue # a pattern that nothing matches stays as it is
    while read -r line; do
      if [[ $line =~ ^LimitNOFILE=([0-9]+:)?([0-9]+|infinity)$ ]]; then value=${BASH_REMATCH[2]}; fi
    done <"$file"
  done
  if [[ $value == infinity ]]; then value=$(is_now fs.nr_open || echo 1048576); fi
  echo "$value"
}

# ---- check ----

# shortages: a line for each, its four columns separated by "|".
shortages() {
  local key is
  is=$(limit_now)
  if [[ -z $is ]] || ((is < need)); then
    echo "nofile, hard limit|${is:-unset}|$nofile|from 500 connections: one descriptor each; 4,096 or 524,288 as distributions come"
  fi
  is=$(unit_limit)
  if [[ -n $is ]] && ((is < need)); then
    echo "LimitNOFILE, meshtalk.service|$is|$nofile|a service gets nothing from limits.d: systemctl edit meshtalk, [Service], LimitNOFILE=$nofile"
  fi
  for key in "${keys[@]}"; do
    if is=$(is_now "$key") && short "$key" "$is"; then
      echo "$key|$is|$(moved "$key" "$is")|${reason[$key]}"
    fi
  done
}

# table prints the lines of standard input in columns as wide as they must be.
table() {
  local -a lines=('setting|is|wants|why') wide=(0 0 0) cell
  local line i
  while read -r line; do lines+=("$line"); done
  for line in "${lines[@]}"; do
    IFS='|' read -r -a cell <<<"$line"
    for i in 0 1 2; do
      if ((${#cell[i]} > wide[i])); then wide[i]=${#cell[i]}; fi
    done
  done
  for line in "${lines[@]}"; do
    IFS='|' read -r -a cell <<<"$line"
    printf '%-*s  %-*s  %-*s  %s\n' "${wide[0]}" "${cell[0]}" "${wide[1]}" "${cell[1]}" "${wide[2]}" "${cell[2]}" "${cell[3]}"
  done
}

check() {
  local found
  found=$(shortages)
  if [[ -z $found ]]; then
    echo "Nothing is short for $connections connections."
    return
  fi
  echo "Short for $connections connections:"
  table <<<"$found"
  return 1
}

# ---- apply and undo ----

declare -A old=() # values from before the first apply, of the keys that it changed

# alone makes sure that this may be done, and by one at a time.
alone() {
  if [[ -z $root ]] && ((EUID != 0)); then fail "$command: needs root"; fi
  local file
  for file in "$conf" "$limits" "$saved"; do
    [[ ! -e $file ]] || [[ -f $file && $(head -n 1 "$file") == "$marker"* ]] || fail "$file is not of this script: move it away first"
  done
  mkdir -p "$state"
  exec {lock}<"$state"
  flock -n "$lock" || fail 'another one is at work'
}

# remember reads the old values. Only keys of the table and numbers are taken.
remember() {
  local line
  [[ -f $saved ]] || return 0
  while read -r line; do
    if [[ $line =~ ^([a-z0-9_.-]+)\ =\ ([0-9]+( [0-9]+)*)$ && -n ${rule[${BASH_REMATCH[1]}]-} ]]; then
      old[${BASH_REMATCH[1]}]=${BASH_REMATCH[2]}
    fi
  done <"$saved"
}

# write FILE TEXT: all of it or nothing, with the marker above.
partial=''
trap '[[ -z $partial ]] || rm -f "$partial"' EXIT
write() {
  mkdir -p "${1%/*}"
  partial=$(mktemp "${1%/*}/.tune-host.XXXXXX") # no name that sysctl or PAM would read
  printf '%s\n%s\n' "$marker" "$2" >"$partial"
  chmod 644 "$partial"
  mv -f "$partial" "$1"
  partial=''
}

# put_in_force reads "key = value" lines. What the kernel refuses is told and does not stop the rest.
put_in_force() {
  if [[ -z $root ]]; then
    sysctl -e -q -p /dev/stdin || true
    return
  fi
  local key value
  while IFS=' ' read -r key _ value; do
    if [[ -f $root/proc/sys/${key//.//} ]]; then
      echo "$value" >"$root/proc/sys/${key//.//}" || true
    fi
  done
}

apply() {
  alone
  [[ ! -e $conf || -e $saved ]] || fail "$conf is there, $saved is not: run undo first"
  remember
  local key is
  local -A before=() to=()
  for key in "${keys[@]}"; do
    is=$(is_now "$key") || continue
    before[$key]=$is
    if short "$key" "$is"; then
      to[$key]=$(moved "$key" "$is")
      [[ -n ${old[$key]-} ]] || old[$key]=$is
    elif [[ -n ${old[$key]-} ]]; then
      to[$key]=$is # from an earlier apply
    fi
  done

  write "$saved" "$(memory)" # first, so that nothing is changed that is not remembered
  write "$conf" "$(configuration)"
  put_in_force <"$conf"
  write "$limits" "$(limit_lines)"

  for key in "${keys[@]}"; do
    if is=$(is_now "$key") && [[ $is != "${before[$key]}" ]]; then echo "$key: ${before[$key]} -> $is"; fi
  done
  echo "Written: $conf, $limits. Undo: tune-host.sh undo."
  echo "Log in again for the new limit of open files, and start a running server again: its listeners keep their backlog."
  echo "A service needs LimitNOFILE=$nofile in its unit (deploy/meshtalk.service has 1048576)."
  check
}

# memory is the content of the file with the old values.
memory() {
  local key
  echo '# What was in force before; undo puts it back.'
  for key in "${keys[@]}"; do
    if [[ -n ${old[$key]-} ]]; then echo "$key = ${old[$key]}"; fi
  done
}

# configuration is the content of the file in /etc/sysctl.d.
configuration() {
  local key
  echo "# For $connections connections. Undo: tune-host.sh undo."
  for key in "${keys[@]}"; do
    if [[ -n ${to[$key]-} ]]; then
      printf '\n# %s\n%s = %s\n' "${reason[$key]^}" "$key" "${to[$key]}"
    elif [[ -n ${before[$key]-} ]]; then
      printf '\n# %s\n# %s: %s is enough.\n' "${reason[$key]^}" "$key" "${before[$key]}"
    else
      printf '\n# %s\n# %s: not there.\n' "${reason[$key]^}" "$key"
    fi
  done
}

# limit_lines is the content of the file in limits.d. Only the hard limit: the server raises its own to it, and other
# programs keep what they are used to. Above fs.nr_open nobody could log in any more, so never above that.
limit_lines() {
  local most
  most=$(is_now fs.nr_open) || most=1048576
  if ((nofile < most)); then most=$nofile; fi
  echo "# From 500 connections: one descriptor each. For shells; a service has LimitNOFILE in its unit."
  echo "* hard nofile $most"
  echo "root hard nofile $most" # the star does not mean root
}

undo() {
  alone
  if [[ ! -e $conf && ! -e $limits && ! -e $saved ]]; then
    rmdir "$state" 2>/dev/null || true
    echo 'Nothing to undo.'
    return
  fi
  remember
  rm -f "$limits" # before fs.nr_open shrinks below it
  if [[ -e $saved ]]; then
    put_in_force < <(memory) # and not what else the file may hold
  else
    echo "$saved is not there: the kernel's old values come back with the next start of the host."
  fi
  rm -f "$conf"
  local key is failed=''
  for key in "${keys[@]}"; do
    if [[ -n ${old[$key]-} ]] && is=$(is_now "$key") && [[ $is != "${old[$key]}" ]]; then failed+=" $key"; fi
  done
  [[ -z $failed ]] || fail "not put back:$failed ($saved has the values)"
  rm -f "$saved"
  rmdir "$state" 2>/dev/null || true
  echo "Put back: ${#old[@]} settings. Removed: $conf, $limits."
}

# ---- the command line ----

command='' root='' connections=10000 # the same default as meshtalk doctor's
while (($#)); do
  case $1 in
    check | apply | undo)
      [[ -z $command ]] || misuse "two commands, $command and $1"
      command=$1
      ;;
    --connections=* | --root=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" && continue ;;
    --connections)
      [[ ${2-} =~ ^[1-9][0-9]{0,8}$ ]] || misuse "--connections: '${2-}' (expected a number from 1 to 999999999)"
      connections=$2
      shift
      ;;
    --root) # a tree with etc, var and proc/sys, instead of this host's: for tests and images
      [[ -n ${2-} && -d $2 ]] || misuse "--root: '${2-}' (expected a folder)"
      root=${2%/}
      shift
      ;;
    -h | --help)
      echo "$usage"
      exit
      ;;
    *) misuse "unknown: '$1'" ;;
  esac
  shift
done
[[ -n $command ]] || misuse 'no command'

readonly conf=$root/etc/sysctl.d/99-meshtalk.conf
readonly limits=$root/etc/security/limits.d/99-meshtalk.conf
# Not the server's own folder below /var/lib: root acts on what stands here, and the server must not be able to write it.
readonly state=$root/var/lib/meshtalk-host
readonly saved=$state/tune-host.saved

settings "$connections"
"$command"
