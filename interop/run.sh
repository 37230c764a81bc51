#!/bin/sh
# Real clients against `noria serve`, on each backend: netcat for TCP, the ws
# package of npm for WebSocket. Installs what is missing.
# usage: interop/run.sh path/to/noria
set -eu
noria=$(realpath "$1")
here=$(realpath "$(dirname "$0")")
work=$(mktemp -d)
server=
cleanup() {
	[ -z "$server" ] || kill "$server" 2>/dev/null || true
	rm -rf "$work"
}
trap cleanup EXIT

if ! command -v nc >/dev/null || ! nc -h 2>&1 | grep -q -- '-N'; then
	(apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq netcat-openbsd) >"$work/apt.log" 2>&1 ||
		{ cat "$work/apt.log"; exit 1; }
fi
cp "$here"/package.json "$here"/package-lock.json "$here"/echo.mjs "$work"
(cd "$work" && npm ci --silent --no-audit --no-fund)

for backend in io_uring epoll; do
	echo "== $backend"
	"$noria" serve --backend "$backend" --tcp 127.0.0.1:0 --ws 127.0.0.1:0 >"$work/out" 2>&1 &
	server=$!
	n=0
	until grep -q '^tcp echo on' "$work/out" && grep -q '^ws echo on' "$work/out"; do
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
	got=$(printf hello | nc -N 127.0.0.1 "$tcp")
	[ "$got" = hello ] || { echo "nc got '$got', not hello"; exit 1; }
	echo 'nc: hello'
	(cd "$work" && node echo.mjs "ws://127.0.0.1:$ws/")
	kill -TERM "$server"
	wait "$server" || { echo "noria ended with $?"; cat "$work/out"; exit 1; }
	server=
done
echo 'interop: all good'
