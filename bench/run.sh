#!/bin/sh
# run.sh NORIA PEERS [FLAGS]: runs noria bench echo --proto tcp,ws with every peer that
# build.sh put into the directory PEERS. FLAGS come last, so that they override.
set -eu
[ $# -ge 2 ] || { echo "usage: $0 NORIA PEERS [FLAGS]" >&2; exit 2; }
noria=$1 peers=$2
shift 2
for peer in "$peers"/*peer-*; do # tcp-peer-NAME becomes tcp:NAME
	set -- --peer "$(basename "$peer" | sed 's/^tcp-/tcp:/; s/peer-//')=$peer {port}" "$@"
done
exec "$noria" bench echo --proto tcp,ws "$@"
