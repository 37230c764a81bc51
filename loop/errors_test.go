package loop

import (
	"errors"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/runtime"
)

func TestErrors(t *testing.T) {
	closed := &runtime.OpError{Op: "recv", Err: runtime.ErrClosed}
	require.Same(t, closed, opErr("again", 0, closed).(*runtime.OpError))
	require.NoError(t, opErr("recv", 0, nil))
	require.ErrorIs(t, opErr("recv", 0, io.ErrUnexpectedEOF), io.ErrUnexpectedEOF)

	cause := errors.New("cause")
	require.ErrorIs(t, &PanicError{Task: "t", Value: cause}, cause)
	require.ErrorContains(t, &PanicError{Task: "t", Value: 7}, "task t panicked: 7")
}
