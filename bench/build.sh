#!/bin/sh
# build.sh DIR: builds the peers into DIR. It always builds those in Go, those in C if
# there is a compiler, those in Rust if there is cargo, and uWebSockets if UWEBSOCKETS is
# the path of its source, with the source of uSockets in its directory uSockets.
set -eu
[ $# -eq 1 ] || { echo "usage: $0 DIR" >&2; exit 2; }
mkdir -p "$1"
out=$(cd "$1" && pwd)
cd "$(dirname "$0")"

echo "building the peers in Go" >&2
go build -o "$out/" ./cmd/...

if command -v "${CC:-cc}" > /dev/null; then
	echo "building the peers in C" >&2
	for c in c/*.c; do
		"${CC:-cc}" -O3 -march=native "$c" -o "$out/tcp-peer-c-$(basename "$c" .c)"
	done
else
	echo "no C compiler: skipping the peers in C" >&2
fi

if command -v cargo > /dev/null; then
	echo "building the peers in Rust" >&2
	RUSTFLAGS="${RUSTFLAGS:--C target-cpu=native}" cargo build --quiet --release --manifest-path rust/Cargo.toml --target-dir "$out/rust"
	for bin in rust/src/bin/*.rs; do
		cp "$out/rust/release/$(basename "$bin" .rs)" "$out/"
	done
else
	echo "no cargo: skipping the peers in Rust" >&2
fi

if [ -n "${UWEBSOCKETS:-}" ]; then
	echo "building uWebSockets" >&2
	src=$UWEBSOCKETS/uSockets/src
	mkdir -p "$out/uws"
	for c in "$src"/*.c "$src"/eventing/epoll_kqueue.c; do
		"${CC:-cc}" -O3 -march=native -flto=auto -DLIBUS_NO_SSL -std=c11 -I "$src" -c "$c" -o "$out/uws/$(basename "$c" .c).o"
	done
	"${CXX:-c++}" -O3 -march=native -flto=auto -DLIBUS_NO_SSL -DUWS_NO_ZLIB -std=c++20 -Wno-stringop-overflow \
		-I "$src" -I "$UWEBSOCKETS/src" cpp/uwebsockets.cpp "$out"/uws/*.o -o "$out/peer-uwebsockets"
else
	echo "UWEBSOCKETS is not set: skipping uWebSockets" >&2
fi
