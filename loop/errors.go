package loop

import (
	"errors"
	"fmt"

	"github.com/noria-go/noria/internal/friend"
	"github.com/noria-go/noria/runtime"
)

// key gives access to the methods of buffers, pools and operations that users may not
// call.
var key friend.Key

var (
	// ErrOffLoop is the error of a call that only a task of the loop may make, and that
	// came from elsewhere.
	ErrOffLoop = errors.New("used from outside its loop: a stream belongs to the tasks of its loop; use Loop.Post, or a handler that runs on a goroutine")

	// errNoTask is ErrOffLoop for a function that a loop calls outside any task.
	errNoTask = fmt.Errorf("%w (a function given to Post cannot wait)", ErrOffLoop)
)

// opErr returns err as the error of op on h. It returns nil, and an err that is an
// *OpError already, as they are.
func opErr(op string, h runtime.Handle, err error) error {
	if _, wrapped := err.(*runtime.OpError); err == nil || wrapped {
		return err
	}
	return &runtime.OpError{Op: op, Handle: h, Err: err}
}

// A PanicError is the error of a task whose function panicked.
type PanicError struct {
	Task  string // the task's name
	Value any    // the argument of panic
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
