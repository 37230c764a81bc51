package runtime

import (
	"errors"
	"io"
	"net"
	"os"
)

// Errors that operations and streams report, wrapped in *OpError (except
// io.EOF, which is never wrapped). Use errors.Is.
var (
	// ErrCanceled: the operation was cancelled before it had a result.
	ErrCanceled = errors.New("operation canceled")

	// ErrClosed: the handle, stream, loop or group was closed here. It is
	// net.ErrClosed too, as far as errors.Is can tell.
	ErrClosed error = closedError{}

	// ErrBusy: a bounded queue is full, or operations are still in flight.
	ErrBusy = errors.New("busy")

	// ErrNoBuffers: the pool's byte limit is reached.
	ErrNoBuffers = errors.New("buffer pool exhausted")
)

type closedError struct{}

func (closedError) Error() string        { return "use of closed connection, file or loop" }
func (closedError) Is(target error) bool { return target == net.ErrClosed || target == os.ErrClosed }

// OpError says which operation failed, on what, and why. Err is usually a
// syscall.Errno or one of the errors above.
type OpError struct {
	Op     string // "recv", "accept", "dial", …
	Handle Handle // 0 if there was none yet
	Detail string // address or path, if that helps
	Err    error
}

func (e *OpError) Error() string {
	s := e.Op
	if e.Detail != "" {
		s += " " + e.Detail
	}
	return s + ": " + e.Err.Error()
}

func (e *OpError) Unwrap() error { return e.Err }

// Timeout makes OpError a net.Error: it is true for a deadline that passed
// and for ETIMEDOUT.
func (e *OpError) Timeout() bool {
	var t interface{ Timeout() bool }
	return errors.Is(e.Err, os.ErrDeadlineExceeded) || (errors.As(e.Err, &t) && t.Timeout())
}

// Temporary is part of net.Error, where it is deprecated.
func (e *OpError) Temporary() bool { return e.Timeout() }

// wrapErr wraps err unless it is nil, io.EOF, or wrapped already.
func wrapErr(op string, h Handle, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	if _, ok := err.(*OpError); ok {
		return err
	}
	return &OpError{Op: op, Handle: h, Err: err}
}
