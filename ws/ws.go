// Package ws serves and opens WebSocket connections (RFC 6455).
//
//	func echo(ctx context.Context, c *ws.Conn) error {
//		for {
//			m, err := c.Receive(ctx)
//			if err != nil {
//				return err
//			}
//			if err := c.Send(ctx, m); err != nil {
//				return err
//			}
//		}
//	}
//
//	err := noria.ListenAndServe(ctx, ":7001", &ws.Server{Handler: echo}, noria.Options{})
//
// # Messages own their bytes
//
// Receive returns a Message that is the very memory the kernel filled: it was
// parsed, unmasked and checked in place. Whoever has a message looks at its
// Bytes, changes them if need be, and then either gives it to Send, of this
// connection or another one, or calls Release. Send puts the header in front
// of the payload and the buffer goes back out; nothing is allocated and nothing
// is copied, except that short messages are gathered, so that those that are
// ready together leave in one send.
//
// # Who may call what
//
// A connection belongs to the loop that it came in on. Its handler runs there
// as a task, or, with Server.OnGoroutine, on a goroutine of its own. One caller
// at a time may receive. Send, and everything that sends, may be called from any
// goroutine and from tasks of any loop, by many at once: the messages of one
// caller arrive in their order, and those of several do not mix.
//
// The package names no backend: it is written against package runtime alone.
package ws

import (
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/noria-go/noria/ws/internal/frame"
)

// A Type says what a message is: TypeText or TypeBinary.
type Type uint8

const (
	// TypeText is UTF-8, which is checked when it is received.
	TypeText Type = Type(frame.Text)
	// TypeBinary is anything.
	TypeBinary Type = Type(frame.Binary)
)

func (t Type) String() string { return frame.Opcode(t).String() }

// check panics if t is no type of a message.
func (t Type) check(what string) {
	if t != TypeText && t != TypeBinary {
		panic(fmt.Sprintf("ws: %s of a message of type %v, want TypeText or TypeBinary", what, t))
	}
}

// A StatusCode says why a connection is closed: RFC 6455, section 7.4, and
// IANA's registry of WebSocket close codes.
type StatusCode uint16

// The codes that are registered. 3000 to 3999 are for libraries, which register
// them, and 4000 to 4999 for whatever two programs agree on.
const (
	StatusNormalClosure      StatusCode = 1000
	StatusGoingAway          StatusCode = 1001 // a server that stops, a page that is left
	StatusProtocolError      StatusCode = 1002
	StatusUnsupportedData    StatusCode = 1003 // text where only binary is wanted, say
	StatusNoStatus           StatusCode = 1005 // never sent: the Close frame had no code
	StatusAbnormalClosure    StatusCode = 1006 // never sent: there was no Close frame
	StatusInvalidPayload     StatusCode = 1007 // text that is not UTF-8, bad compressed data
	StatusPolicyViolation    StatusCode = 1008
	StatusMessageTooBig      StatusCode = 1009
	StatusMandatoryExtension StatusCode = 1010
	StatusInternalError      StatusCode = 1011
	StatusServiceRestart     StatusCode = 1012
	StatusTryAgainLater      StatusCode = 1013
	StatusBadGateway         StatusCode = 1014
	StatusTLSHandshake       StatusCode = 1015 // never sent
)

func (c StatusCode) String() string { return strconv.Itoa(int(c)) }

// sendable reports whether c may stand in a Close frame.
func (c StatusCode) sendable() bool {
	switch {
	case c >= 1000 && c <= 1003, c >= 1007 && c <= 1014, c >= 3000 && c <= 4999:
		return true
	}
	return false
}

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

// CloseStatus returns the code that a connection was closed with, as err tells
// it: the peer's for a *CloseError, ours for a *ProtocolError, and
// StatusAbnormalClosure where it ended without one. It is 0 for nil, and for an
// error that says nothing of the connection's end.
func CloseStatus(err error) StatusCode {
	var (
		closed *CloseError
		broken *ProtocolError
	)
	switch {
	case err == nil:
		return 0
	case errors.As(err, &closed):
		return closed.Code
	case errors.As(err, &broken):
		return broken.Code
	case errors.Is(err, ErrAbnormalClosure), errors.Is(err, ErrPongTimeout), errors.Is(err, ErrTooSlow):
		return StatusAbnormalClosure
	}
	return 0
}

// abnormal wraps what ended the transport.
func abnormal(err error) error {
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("ws: %w: %w", ErrAbnormalClosure, err)
}
