package runtime

import (
	"errors"
	"fmt"
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

	// ErrOffLoop: something that belongs to a loop was used from a goroutine
	// that is not a task of that loop.
	ErrOffLoop = errors.New("used from outside its loop: a stream belongs to the tasks of its loop; use Loop.Post, or a handler that runs on a goroutine")

	// errNoTask is ErrOffLoop for what a loop calls outside any task.
	errNoTask = fmt.Errorf("%w (a function given to Post cannot wait)", ErrOffLoop)

	// ErrNoBuffers: the pool's byte limit is reached.
	ErrNoBuffers = errors.New("buffer pool exhausted")

	// ErrUnsupported: the backend or the system cannot do this.
	ErrUnsupported = errors.New("not supported")
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

// PanicError is what a task ended with when its function panicked.
type PanicError struct {
	Task  string // the task's name
	Value any    // what was given to panic
	Stack []byte // of the task, where it panicked
}

func (e *PanicError) Error() string {
	return fmt.Sprintf("task %s panicked: %v", e.Task, e.Value)
}

// Unwrap returns the panic's value if it was an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}
