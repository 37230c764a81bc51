//go:build !noria_epoll || noria_uring

package noria

import (
	"github.com/noria-go/noria/runtime"
	"github.com/noria-go/noria/runtime/uring"
)

func uringBackend() []backend {
	return []backend{{"io_uring", func() (runtime.Runtime, error) { return uring.New(uring.Options{}) }}}
}
