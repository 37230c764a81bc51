//go:build !unix

package loop

import (
	"errors"
	"syscall"
)

func closeDescriptor(int) {}

func dupDescriptor(syscall.Conn) (int, error) { return -1, errors.ErrUnsupported }
