//go:build (!noria_epoll || noria_uring) && !386 && !arm && !mips && !mipsle

package backends

import (
	"github.com/noria-go/noria/runtime"
	"github.com/noria-go/noria/runtime/uring"
)

func uringBackend() []Backend {
	return []Backend{{"io_uring", func() (runtime.Runtime, error) { return uring.New(uring.Options{}) }}}
}
