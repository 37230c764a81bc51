//go:build !noria_uring || noria_epoll

package backendtest

import (
	"github.com/noria-go/noria/runtime"
	"github.com/noria-go/noria/runtime/epoll"
)

func epollVariants() []Variant {
	return []Variant{
		{"epoll", func() (runtime.Runtime, error) { return epoll.New(epoll.Options{}) }},
	}
}
