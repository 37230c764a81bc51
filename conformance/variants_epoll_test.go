//go:build !noria_uring || noria_epoll

package conformance_test

import (
	"github.com/noria-go/noria/conformance"
	"github.com/noria-go/noria/runtime"
	"github.com/noria-go/noria/runtime/epoll"
)

var epollVariants = []variant{
	{"epoll", newEpoll(nil), true},
	{"epoll-plain", newEpoll([]string{epoll.FeaturePwait2}), false},
}

func newEpoll(off []string) conformance.Factory {
	return func(w conformance.Wishes) (runtime.Runtime, error) {
		return epoll.New(epoll.Options{Buffers: w.ReceiveBuffers, Off: off})
	}
}
