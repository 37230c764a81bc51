#!/bin/bash
# Runs the commands of the examples' READMEs, and drives the examples with programs of
# other authors: curl, netcat, redis-cli, redis-benchmark, npm's ws. Installs what is
# missing.
# usage: interop/examples.sh
set -euo pipefail
set -m # so that kill %1 works as in a terminal
cd "$(dirname "$0")/.."
here=$PWD/interop
work=$(mktemp -d)
cleanup() {
	for job in $(jobs -p); do kill -- "-$job" 2>/dev/null || true; done
	rm -rf "$work"
}
trap cleanup EXIT

missing=()
command -v redis-benchmark >/dev/null || missing+=(redis-tools)
command -v curl >/dev/null || missing+=(curl)
nc -h 2>&1 | grep -q -- '-N' || missing+=(netcat-openbsd)
if [ ${#missing[@]} -gt 0 ]; then
	(apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}") >"$work/apt.log" 2>&1 ||
		{ cat "$work/apt.log"; exit 1; }
fi

# lines prints the code blocks of a README.
lines() { awk '/^```/ { on = !on; next } on' "$1"; }

# paste_readme runs the code blocks of a README in a new shell, and looks for an answer.
paste_readme() {
	echo "== examples/$1/README.md"
	lines "examples/$1/README.md" >"$work/lines"
	bash -m -c "set -e; $(cat "$work/lines")" >"$work/out" 2>&1 || { cat "$work/out"; echo "the lines failed"; exit 1; }
	grep -qF -- "$2" "$work/out" || { cat "$work/out"; echo "no '$2' in it"; exit 1; }
	grep -F -- "$2" "$work/out"
}
paste_readme https 'hello over HTTP/2.0'
paste_readme https-task 'hello from a task over HTTP/1.1'
paste_readme gobwas '101 Switching Protocols'
paste_readme redis 'hello'

# wait_for waits until the server has printed its address to $work/out.
wait_for() {
	for _ in $(seq 100); do
		grep -q "$1" "$work/out" && return
		sleep 0.1
	done
	cat "$work/out"
	exit 1
}

for backend in io_uring epoll; do
	echo "== redis-cli and redis-benchmark, $backend"
	: >"$work/out" # so that wait_for does not see the previous server's output
	NORIA_BACKEND=$backend bin/redis -addr 127.0.0.1:0 >"$work/out" 2>&1 &
	wait_for '^redis on'
	port=$(sed -n 's/^redis on .*:\([0-9]*\)$/\1/p' "$work/out")
	cli() { redis-cli -p "$port" "$@"; }
	expect() {
		local want=$1 got
		shift
		got=$(cli "$@")
		[ "$got" = "$want" ] || { echo "redis-cli $*: '$got', not '$want'"; exit 1; }
	}
	expect PONG ping
	expect OK set k 'a value'
	expect 'a value' get k
	expect 1 incr n
	expect 2 del k n
	expect OK quit
	head -c 3000000 /dev/zero | tr '\0' z >"$work/big"
	[ "$(cli -x set big <"$work/big")" = OK ]
	[ "$(cli get big | wc -c)" = 3000001 ] || { echo 'a large value came back changed'; exit 1; }
	bench() { redis-benchmark -p "$port" -q -c 50 "$@" >"$work/bench"; tr '\r' '\n' <"$work/bench" | grep 'per second'; }
	bench -n 20000 -t ping,set,get,incr,mset
	bench -n 50000 -P 32 -d 1000 -t set,get
	expect 2 exists big key:__rand_int__
	kill %%
	wait %% 2>/dev/null || true

	echo "== npm's ws against examples/gobwas, $backend"
	: >"$work/out"
	NORIA_BACKEND=$backend bin/gobwas -addr 127.0.0.1:17001 >"$work/out" 2>&1 &
	wait_for 'ws://'
	[ -d "$work/node" ] || { mkdir "$work/node" && cp "$here"/package.json "$here"/package-lock.json "$here"/echo.mjs "$work/node" &&
		(cd "$work/node" && npm ci --silent --no-audit --no-fund); }
	(cd "$work/node" && node echo.mjs ws://127.0.0.1:17001/)
	kill %%
	wait %% 2>/dev/null || true
done
echo 'examples: all good'
