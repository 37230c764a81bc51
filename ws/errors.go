package ws

import (
	"errors"
	"fmt"
	"io"

	"github.com/noria-go/noria/runtime"
)

// Errors of a connection, to be tested with errors.Is. Calls on a connection that this
// end has closed fail with net.ErrClosed.
var (
	// ErrAbnormalClosure: the connection ended without a Close frame. The error that
	// wraps it names the cause.
	ErrAbnormalClosure = errors.New("the connection ended without a Close frame")

	// ErrDropped: the message was not sent, because the peer does not keep up and the
	// policy is PolicyDrop.
	ErrDropped = errors.New("ws: message dropped: the send queue is full")

	// ErrTooSlow: the connection was closed, because the peer does not keep up and the
	// policy is PolicyDisconnect, or because a call waited WriteTimeout for room to send.
	ErrTooSlow = errors.New("ws: the peer does not keep up with what it is sent")

	// ErrSkipped: the rest of a Reader's message is lost, because the caller asked for
	// the next message (with Receive, TryReceive or NextReader) before the Reader had
	// returned io.EOF.
	ErrSkipped = errors.New("ws: the rest of the message was skipped: the next one was asked for before it was read")

	// ErrPongTimeout: the connection was closed, because nothing arrived from the peer
	// within PongTimeout of a ping.
	ErrPongTimeout = errors.New("ws: the peer does not answer pings")
)

// A CloseError says that the peer has closed the connection with a Close frame.
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

// A ProtocolError says how the peer broke the protocol. Code is the status code that
// this end sent to the peer before it closed the connection.
type ProtocolError struct {
	Code   StatusCode
	Detail string
}

func (e *ProtocolError) Error() string {
	return fmt.Sprintf("ws: closed the connection with code %d: the peer sent %s", e.Code, e.Detail)
}

// abnormal wraps the error that ended the transport.
func abnormal(err error) error {
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("ws: %w: %w", ErrAbnormalClosure, err)
}

var errClosed = fmt.Errorf("ws: the connection was closed here: %w", runtime.ErrClosed)
