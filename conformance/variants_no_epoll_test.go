//go:build noria_uring && !noria_epoll

package conformance_test

var epollVariants []variant
