//go:build (noria_epoll && !noria_uring) || 386 || arm || mips || mipsle

package backends

func uringBackend() []Backend { return nil }
