//go:build noria_epoll && !noria_uring

package conformance_test

var uringVariants []variant
