package ws

import (
	"errors"
	"strconv"
)

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
