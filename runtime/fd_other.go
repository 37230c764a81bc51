//go:build !unix

package runtime

import "syscall"

func closeDescriptor(int) {}

func dupDescriptor(syscall.Conn) (int, error) { return -1, ErrUnsupported }
