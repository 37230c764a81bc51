//go:build noria_epoll && !noria_uring

package noria

func uringBackend() []backend { return nil }
