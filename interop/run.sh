#!/bin/sh
# Runs real clients and servers against Noria on each backend: netcat for TCP; for
# WebSocket npm's ws in both roles, Chromium on the served page, and coder/websocket and
# gorilla/websocket in both roles. Installs what is missing. Screenshots go to
# $NORIA_SCREENSHOTS; the default is the directory of noria. $NORIA_BACKENDS names the
# backends; the default is both.
# usage: interop/run.sh path/to/noria
set -eu
noria=$(realpath "$1")
here=$(realpath "$(dirname "$0")")
shots=$(realpath "${NORIA_SCREENSHOTS:-$(dirname "$noria")}")
work=$(mktemp -d)
server= peer=
cleanup() {
	[ -z "$server" ] || kill "$server" 2>/dev/null || true
	[ -z "$peer" ] || kill "$peer" 2>/dev/null || true
	rm -rf "$work"
}
trap cleanup EXIT

# need COMMAND PACKAGE: installs Debian's package if there is no such command.
need() {
	command -v "$1" >/dev/null && return
	(apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$2") >"$work/apt.log" 2>&1 ||
		{ cat "$work/apt.log"; exit 1; }
}
nc -h 2>&1 | grep -q -- '-N' || need nc.openbsd netcat-openbsd
need chromium chromium
cp "$here"/package.json "$here"/package-lock.json "$here"/*.mjs "$work"
(cd "$work" && npm ci --silent --no-audit --no-fund)

max=33554432

# start FLAGS: starts a server and sets $tcp and $ws to its ports.
start() {
	: >"$work/out" # so that the loop below does not see the previous server's output
	"$noria" serve "$@" --compress --max-message $max --tcp 127.0.0.1:0 --ws 127.0.0.1:0 >"$work/out" 2>&1 &
	server=$!
	n=0
	until grep -q '^loops ' "$work/out"; do
		n=$((n + 1))
		if [ $n -gt 100 ] || ! kill -0 "$server"; then
			cat "$work/out"
			exit 1
		fi
		sleep 0.1
	done
	cat "$work/out"
	tcp=$(sed -n 's/^tcp echo on .*:\([0-9]*\)$/\1/p' "$work/out")
	ws=$(sed -n 's/^ws echo on .*:\([0-9]*\)$/\1/p' "$work/out")
}

stop() {
	kill -TERM "$server"
	wait "$server" || { echo "noria ended with $?"; cat "$work/out"; exit 1; }
	server=
}

# connect STATUS WANT FLAGS: requires that noria connect exits with STATUS and prints WANT.
connect() {
	status=$1 want=$2
	shift 2
	got=0
	"$noria" connect --wait 1s "$@" "ws://127.0.0.1:$port/" <"$work/in" >"$work/said" 2>"$work/notes" || got=$?
	if [ $got != "$status" ] || ! grep -q -e "$want" "$work/said" "$work/notes"; then
		echo "noria connect $*: status $got, want $status and '$want'"
		cat "$work/said" "$work/notes"
		exit 1
	fi
}

# client FLAGS: runs noria connect against npm's ws.
client() {
	seq 1 5000 | sed 's/$/ lines that come back, größer und größer/' >"$work/in"
	connect 0 'code 1000' --count 5000 "$@"
	cmp "$work/in" "$work/said"
	head -c 3000000 /dev/urandom >"$work/in"
	connect 0 'code 1000' --binary "$@"
	cmp "$work/in" "$work/said"
	: >"$work/in"
	connect 0 '^2 pings' --ping 2 --every 10ms "$@"
	connect 0 'subprotocol echo' --subprotocol none --subprotocol echo --message hello "$@"
	connect 0 'code 1000.*größer' --message 'close 1000 größer' "$@"
	connect 1 'code 4999.*by request' --message 'close 4999 by request' "$@"
	connect 1 'code 1011' --message 'close 1011 ' "$@"
	echo "npm ws, server: noria connect $* works"
}

(cd "$work" && exec node server.mjs >port) &
peer=$!
until [ -s "$work/port" ]; do sleep 0.1; done
port=$(cat "$work/port")

for backend in ${NORIA_BACKENDS:-io_uring epoll}; do
	echo "== $backend"
	start --backend $backend
	got=$(printf hello | nc -N 127.0.0.1 "$tcp")
	[ "$got" = hello ] || { echo "nc got '$got', not hello"; exit 1; }
	echo 'nc: hello'
	(cd "$work" && node client.mjs "ws://127.0.0.1:$ws/" $max)
	(cd "$work" && node browser.mjs "http://127.0.0.1:$ws/" $max "$shots/page-$backend.png")
	stop
	client --backend $backend
	client --backend $backend --compress
done
echo '== coder/websocket and gorilla/websocket'
(cd "$here/peers" && go test -count=1 ./...)
echo 'interop: all good'
