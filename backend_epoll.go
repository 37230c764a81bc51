//go:build !noria_uring || noria_epoll

package noria

import (
	"github.com/noria-go/noria/runtime"
	"github.com/noria-go/noria/runtime/epoll"
)

func epollBackend() []backend {
	return []backend{{"epoll", func() (runtime.Runtime, error) { return epoll.New(epoll.Options{}) }}}
}
