//go:build noria_epoll && !noria_uring

package backendtest

func plainVariants() []Variant { return nil }
