#!/usr/bin/env bash
# Three nodes on this machine, on real Redis, PostgreSQL and RocketMQ (scripts/services.sh), until Ctrl-C:
#
#	scripts/cluster.sh [--nodes N] [--dir DIR]
#
# DIR (./data/cluster) keeps everything: a second run goes on where the first ended. Ports of clients and of the admin API are
# 8180, 8181, 8190 for the first node, then 8280, 8281, 8290 and so on. Wants bin/meshtalk (make build).
set -euo pipefail
cd "$(dirname "$0")/.."

nodes=3 dir=data/cluster
while [ $# -gt 0 ]; do
	case $1 in
	--nodes) nodes=$2 && shift 2 ;;
	--dir) dir=$2 && shift 2 ;;
	*) echo "cluster.sh: unknown argument $1 (expected --nodes N or --dir DIR)" >&2 && exit 2 ;;
	esac
done
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
pids=()

lives() { kill -0 "$1" 2>/dev/null; }

finish() {
	trap - EXIT INT TERM
	for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
	for pid in "${pids[@]}"; do while lives "$pid"; do sleep 0.1; done; done
	scripts/services.sh down --dir "$dir/services"
}
trap finish EXIT
trap 'exit 0' INT TERM

# address NAME is where a service is, from the lines of services.sh.
address() { sed -n "s/^$1 //p" <<<"$services"; }

services=$(scripts/services.sh up --dir "$dir/services" redis postgres rocketmq)
redis=$(address redis)
MESHTALK_STORE_POSTGRES_URL=$(address postgres) # not a flag, which everybody on this machine could read
export MESHTALK_STORE_POSTGRES_URL
for i in $(seq "$nodes"); do
	data=$dir/node$i
	mkdir -p "$data"
	[ "$i" = 1 ] || cp -p "$dir/node1/jwt.key" "$data/jwt.key" # one key of tokens for all
	: >"$data/out"                                             # what an earlier run said is not this one's
	# In a session of its own: Ctrl-C is for this script, which then stops the nodes, once.
	setsid bin/meshtalk serve --data-dir "$data" --cluster.enable --cluster.node-id="node$i" \
		--rocketmq.name-server="$(address namesrv)" --redis.host="${redis%:*}" --redis.port="${redis##*:}" \
		--websocket.port=$((8080 + 100 * i)) --tcpsocket.port=$((8081 + 100 * i)) --admin.port=$((8090 + 100 * i)) \
		>"$data/out" 2>"$data/log" &
	pids+=($!)
	disown # without bash's own word of a kill
	until grep -q '^ready' "$data/out"; do
		lives "${pids[-1]}" || { cat "$data/log" >&2 && exit 1; }
		sleep 0.1
	done
	echo "node$i, process ${pids[-1]}"
	sed 's/^/  /; /^  ready/d' "$data/out"
	echo "  log $data/log"
	echo "  log in: bin/meshtalk client --user NAME --data-dir $data --addr ws://127.0.0.1:$((8080 + 100 * i))/im"
done
cat <<TEXT

Chat over two nodes: log in as alice on one and as bob on another, each in a terminal, and type /to bob.
Who owns what: bin/meshtalk nodes --admin http://127.0.0.1:8190
Kill a node (kill -9 PROCESS) and see it go on. Ctrl-C ends all of it.
TEXT
while ((${#pids[@]} > 0)); do
	for i in "${!pids[@]}"; do
		if ! lives "${pids[i]}"; then
			echo "node$((i + 1)) has ended; the others go on until Ctrl-C"
			unset "pids[i]"
		fi
	done
	sleep 0.5
done
echo "no node is left"
