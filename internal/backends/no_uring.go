//go:build noria_epoll && !noria_uring

package backends

func uringBackend() []Backend { return nil }
