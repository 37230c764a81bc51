package ws

import (
	"errors"
	"strconv"
)

// A StatusCode says why a connection is closed. See RFC 6455, section 7.4, and IANA's
// registry of WebSocket close codes.
type StatusCode uint16

// The registered codes. Libraries and frameworks register 3000 to 3999; 4000 to 4999
// are for private use.
const (
	StatusNormalClosure      StatusCode = 1000
	StatusGoingAway          StatusCode = 1001 // the server stops, or the browser leaves the page
	StatusProtocolError      StatusCode = 1002
	StatusUnsupportedData    StatusCode = 1003 // text where only binary is accepted, for example
	StatusNoStatus           StatusCode = 1005 // never sent; the Close frame had no code
	StatusAbnormalClosure    StatusCode = 1006 // never sent; there was no Close frame
	StatusInvalidPayload     StatusCode = 1007 // text that is not UTF-8, or corrupt compressed data
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

// sendable reports whether a Close frame may have the code c.
func (c StatusCode) sendable() bool {
	switch {
	case c >= 1000 && c <= 1003, c >= 1007 && c <= 1014, c >= 3000 && c <= 4999:
		return true
	}
	return false
}

// CloseStatus returns the status code with which a connection ended, given the error
// that ended it: the peer's code for a *CloseError, this end's for a *ProtocolError, and
// StatusAbnormalClosure for ErrAbnormalClosure, ErrPongTimeout and ErrTooSlow. It returns
// 0 for nil and for any other error.
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
