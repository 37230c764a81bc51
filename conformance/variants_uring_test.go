//go:build (!noria_epoll || noria_uring) && !386 && !arm && !mips && !mipsle

package conformance_test

import (
	"github.com/noria-go/noria/conformance"
	"github.com/noria-go/noria/runtime"
	"github.com/noria-go/noria/runtime/uring"
)

var uringVariants = []variant{
	{"io_uring", newUring(nil), true},
	{"io_uring-plain", newUring(uring.Features()), false},
}

func newUring(off []string) conformance.Factory {
	return func(w conformance.Wishes) (runtime.Runtime, error) {
		return uring.New(uring.Options{Buffers: w.ReceiveBuffers, Entries: w.QueueEntries, Off: off})
	}
}
