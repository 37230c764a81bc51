//go:build noria_uring && !noria_epoll

package backendtest

func epollVariants() []Variant { return nil }
