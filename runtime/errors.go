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
	// ErrCanceled says that the operation was cancelled before it had a result.
	ErrCanceled = errors.New("operation canceled")

	// ErrClosed says that this side has closed the handle, stream, loop or group.
	// errors.Is finds net.ErrClosed and os.ErrClosed in it too.
	ErrClosed error = closedError{}

	// ErrBusy says that a bounded queue is full, or that operations are in flight.
	ErrBusy = errors.New("busy")

	// ErrNoBuffers says that the pool has reached its limit. LoopOptions.PoolLimit
	// raises it.
	ErrNoBuffers = errors.New("buffer pool exhausted")
)

type closedError struct{}

func (closedError) Error() string        { return "use of closed connection, file or loop" }
func (closedError) Is(target error) bool { return target == net.ErrClosed || target == os.ErrClosed }

// An OpError says which operation failed, on what, and why. Err is usually a
// syscall.Errno or one of the errors above.
type OpError struct {
	Op     string // "recv", "accept", "dial", …
	Handle Handle // 0 if the operation has none
	Detail string // an address or a path; may be empty
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

// Timeout reports whether a deadline has passed or the system timed out
// (ETIMEDOUT). It makes OpError a net.Error.
func (e *OpError) Timeout() bool {
	var t interface{ Timeout() bool }
	return errors.Is(e.Err, os.ErrDeadlineExceeded) || (errors.As(e.Err, &t) && t.Timeout())
}

// Temporary returns Timeout. It is part of net.Error, where it is deprecated.
func (e *OpError) Temporary() bool { return e.Timeout() }

// wrapErr wraps err unless it is nil, io.EOF, or an OpError already.
func wrapErr(op string, h Handle, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	if _, ok := err.(*OpError); ok {
		return err
	}
	return &OpError{Op: op, Handle: h, Err: err}
}
