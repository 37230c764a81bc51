package compat

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
)

// TakeOverOptions are the options of TakeOver. The zero value is good.
type TakeOverOptions struct {
	// Unread are bytes that were read from the connection and not used, such as those in
	// the bufio.Reader of an http.Hijacker. The stream returns them first.
	Unread []byte

	// Stream are the limits of the stream. A *Conn keeps those that it has.
	Stream loop.StreamOptions
}

// TakeOver moves nc, which another library accepted or dialed, to the loop l, and returns
// the stream that l's tasks use in its place; NewConn makes it usable from goroutines.
// TakeOver may be called from any goroutine. If it fails, the caller still owns nc.
//
// A *net.TCPConn and a *net.UnixConn are moved: the loop gets a copy of the descriptor,
// and nc is closed, which does not end the connection. A *Conn of l itself, which a server
// of net/http over a Listener has, is moved by returning its stream.
//
// Any other connection is pumped, and pumped is true: two goroutines carry its bytes
// through a socket pair, which costs two copies and two thread switches for each piece.
// This is for connections without a descriptor of their own (a *tls.Conn, a net.Pipe, a
// *Conn of another loop), and for types that wrap or embed a *net.TCPConn, because they
// may hold bytes or change those that pass. A caller who knows that a wrapper does not
// passes the connection inside it.
//
// A task sees no difference. When reading nc fails, reading the stream fails with the
// same error, and when writing to nc fails, so does writing to the stream. nc is closed
// after the stream, once what was written has been sent or Stream.Linger has passed.
// CloseWrite closes nc if nc has no CloseWrite.
//
// TakeOver fails with errors.ErrUnsupported for datagram connections, and for a
// *loop.Stream, which is on a loop already.
func TakeOver(l *loop.Loop, nc net.Conn, opts TakeOverOptions) (s *loop.Stream, pumped bool, err error) {
	if c, ok := nc.(*Conn); ok && c.Loop() == l {
		return takeOwn(l, c, opts)
	}
	if err := refuse(nc); err != nil {
		return nil, false, err
	}
	s, err = adopt(l, nc, opts, nil)
	if !errors.Is(err, errors.ErrUnsupported) {
		return s, false, err
	}
	if s, err = startPump(l, nc, opts); err != nil {
		err = fmt.Errorf("take over %T: %w", nc, err)
	}
	return s, true, err
}

// takeOwn returns the stream of a Conn that is on l already.
func takeOwn(l *loop.Loop, c *Conn, opts TakeOverOptions) (*loop.Stream, bool, error) {
	err := l.Friend(key).Call(context.Background(), "take over", func(context.Context) error {
		if err := c.s.Friend(key).ReadErr(); errors.Is(err, runtime.ErrClosed) {
			return err
		}
		c.s.Unread(runtime.NewShared(opts.Unread)) // does nothing if that is empty
		return nil
	})
	if err != nil {
		return nil, false, fmt.Errorf("take over %T: %w", c, err)
	}
	return c.s, false, nil
}

// refuse returns an error if nc can be neither adopted nor pumped.
func refuse(nc net.Conn) error {
	if _, ok := nc.(interface {
		ReadBuf() (*runtime.Buffer, error)
	}); ok { // a *loop.Stream, or a type that embeds one
		return fmt.Errorf("take over %T: it is on a loop already, and for the tasks there: %w", nc, errors.ErrUnsupported)
	}
	if a := nc.LocalAddr(); a != nil {
		switch network := a.Network(); {
		case strings.HasPrefix(network, "udp"), strings.HasPrefix(network, "ip"), network == "unixgram", network == "unixpacket":
			return fmt.Errorf("take over %T: a connection of %s is no stream: %w", nc, network, errors.ErrUnsupported)
		}
	}
	return nil
}

// adopt makes a stream of nc's socket, and calls prepare, if it is not nil, with the
// stream on the loop.
func adopt(l *loop.Loop, nc net.Conn, opts TakeOverOptions, prepare func(*loop.Stream)) (s *loop.Stream, err error) {
	err = l.Friend(key).Call(context.Background(), "take over", func(context.Context) (err error) {
		if s, err = l.Friend(key).AdoptConn(nc, opts.Stream); err != nil {
			return err
		}
		if prepare != nil {
			prepare(s)
		}
		s.Unread(runtime.NewShared(opts.Unread)) // does nothing if that is empty
		return nil
	})
	return s, err
}
