//go:build (noria_epoll && !noria_uring) || 386 || arm || mips || mipsle

package backendtest

func plainVariants() []Variant { return nil }
