//go:build noria_uring && !noria_epoll

package noria

func epollBackend() []backend { return nil }
