//go:build !unix

package loop

import (
	"syscall"

	"github.com/noria-go/noria/runtime"
)

func closeDescriptor(int) {}

func dupDescriptor(syscall.Conn) (int, error) { return -1, runtime.ErrUnsupported }
