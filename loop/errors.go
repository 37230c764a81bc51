package loop

import (
	"errors"
	"fmt"

	"github.com/noria-go/noria/internal/friend"
	"github.com/noria-go/noria/runtime"
)

// key opens what the loop may do with buffers, pools and operations and users
// may not.
var key friend.Key

var (
	// ErrOffLoop: something that belongs to a loop was used from a goroutine
	// that is not a task of that loop.
	ErrOffLoop = errors.New("used from outside its loop: a stream belongs to the tasks of its loop; use Loop.Post, or a handler that runs on a goroutine")

	// errNoTask is ErrOffLoop for what a loop calls outside any task.
	errNoTask = fmt.Errorf("%w (a function given to Post cannot wait)", ErrOffLoop)
)

// opErr returns err as the error of op on h; as it is, if it is nil or an error
// of an operation already.
func opErr(op string, h runtime.Handle, err error) error {
	if _, wrapped := err.(*runtime.OpError); err == nil || wrapped {
		return err
	}
	return &runtime.OpError{Op: op, Handle: h, Err: err}
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
