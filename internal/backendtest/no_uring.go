//go:build noria_epoll && !noria_uring

package backendtest

func uringVariants() []Variant { return nil }
