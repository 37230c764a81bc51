//go:build noria_uring && !noria_epoll

package backends

func epollBackend() []Backend { return nil }
