//go:build !noria_uring || noria_epoll

package backends

import (
	"github.com/noria-go/noria/runtime"
	"github.com/noria-go/noria/runtime/epoll"
)

func epollBackend() []Backend {
	return []Backend{{"epoll", func() (runtime.Runtime, error) { return epoll.New(epoll.Options{}) }}}
}
