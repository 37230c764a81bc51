package ws

import (
	"errors"
	"fmt"
	"io"

	"github.com/noria-go/noria/runtime"
)

// Errors of a connection. Use errors.Is; a connection that was closed here is
// net.ErrClosed.
var (
	// ErrAbnormalClosure: the connection ended without a Close frame. It comes wrapped,
	// with what there is to know.
	ErrAbnormalClosure = errors.New("the connection ended without a Close frame")

	// ErrDropped: the message was not sent, because the peer does not keep up
	// and the policy is PolicyDrop.
	ErrDropped = errors.New("ws: message dropped: the send queue is full")

	// ErrTooSlow: the connection was closed, because the peer does not keep up
	// and the policy is PolicyDisconnect, or because it took longer than WriteTimeout.
	ErrTooSlow = errors.New("ws: the peer does not keep up with what it is sent")

	// ErrSkipped: the message that a Reader reads was given up: the next one was
	// asked for, with Receive, TryReceive or NextReader, before the Reader had
	// come to its end.
	ErrSkipped = errors.New("ws: the rest of the message was skipped: the next one was asked for before it was read")

	// ErrPongTimeout: the peer has not answered a ping in time.
	ErrPongTimeout = errors.New("ws: the peer does not answer pings")
)

// A CloseError says that the peer has closed the connection, in order: with a
// Close frame, which has been answered.
type CloseError struct {
	Code   StatusCode // StatusNoStatus if the frame had none
	Reason string
}

func (e *CloseError) Error() string {
	if e.Reason == "" {
		return fmt.Sprintf("ws: the peer closed the connection with code %d", e.Code)
	}
	return fmt.Sprintf("ws: the peer closed the connection with code %d: %q", e.Code, e.Reason)
}

// A ProtocolError says what the peer did wrong, and with which code it was
// told so before the connection was closed.
type ProtocolError struct {
	Code   StatusCode
	Detail string
}

func (e *ProtocolError) Error() string {
	return fmt.Sprintf("ws: closed the connection with code %d: the peer sent %s", e.Code, e.Detail)
}

// abnormal wraps what ended the transport.
func abnormal(err error) error {
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("ws: %w: %w", ErrAbnormalClosure, err)
}

var errClosed = fmt.Errorf("ws: the connection was closed here: %w", runtime.ErrClosed)
