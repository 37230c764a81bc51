//go:build (noria_epoll && !noria_uring) || 386 || arm || mips || mipsle

package conformance_test

var uringVariants []variant
