package compat

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/noria-go/noria/internal/friend"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
)

// TakeOverOptions say how a connection is taken over. The zero value is good.
type TakeOverOptions struct {
	// Unread is what was read from the connection already and not used, such as
	// what http.Hijacker's bufio.Reader holds. It is read first.
	Unread []byte

	// Stream are the stream's limits.
	Stream loop.StreamOptions
}

// TakeOver moves nc, which another library accepted or dialed, to l: its
// descriptor becomes the loop's, nc is closed (the connection is not), and the
// stream is for the tasks of l; give it to NewConn for goroutines. It may be
// called from any goroutine. When it fails, nc still is the caller's.
//
// That is for a *net.TCPConn, a *net.UnixConn, and a *Conn of l itself, as
// net/http over a Listener has it, which is moved by handing out its stream.
//
// Anything else is pumped, and pumped says so: two goroutines carry its bytes
// through a socket pair, which costs two copies and two switches for each. So it
// is with what has no descriptor to give (a *tls.Conn, a net.Pipe, a *Conn of
// another loop), and with a type that wraps or embeds a *net.TCPConn, which may
// hold bytes itself or change those that pass: whoever knows that it does not
// gives what is inside. To the task a pumped connection is like another one: the
// error that reading nc ends with is what reading the stream ends with, and nc is
// closed when the stream is, after what was written has been sent, for as long as
// Stream.Linger. A CloseWrite ends an nc that has none itself.
//
// A connection of datagrams, and a stream that only the tasks of a loop can use (a
// *loop.Stream), fail with ErrUnsupported.
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

// takeOwn hands out the stream of a Conn that is on l already.
func takeOwn(l *loop.Loop, c *Conn, opts TakeOverOptions) (*loop.Stream, bool, error) {
	err := l.Friend(friend.Key{}).Call(context.Background(), "take over", func(context.Context) error {
		if err := c.ReadErr(); errors.Is(err, runtime.ErrClosed) {
			return err
		}
		c.Stream.Unread(runtime.NewShared(opts.Unread)) // nothing, if that is empty
		return nil
	})
	if err != nil {
		return nil, false, fmt.Errorf("take over %T: %w", c, err)
	}
	return c.Stream, false, nil
}

// refuse says why nc can neither be adopted nor pumped.
func refuse(nc net.Conn) error {
	if _, ok := nc.(interface{ conn() *Conn }); ok {
		return nil // a Conn, or what embeds one: for goroutines
	}
	if _, ok := nc.(interface{ Loop() *loop.Loop }); ok {
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

// adopt makes a stream of nc's socket; prepare, if not nil, is called with it
// on the loop.
func adopt(l *loop.Loop, nc net.Conn, opts TakeOverOptions, prepare func(*loop.Stream)) (s *loop.Stream, err error) {
	err = l.Friend(friend.Key{}).Call(context.Background(), "take over", func(context.Context) (err error) {
		if s, err = l.Friend(friend.Key{}).AdoptConn(nc, opts.Stream); err != nil {
			return err
		}
		if prepare != nil {
			prepare(s)
		}
		s.Unread(runtime.NewShared(opts.Unread)) // nothing, if that is empty
		return nil
	})
	return s, err
}

// socketPair returns two connections that are each other's peer.
func socketPair() (near, far *net.UnixConn, err error) {
	// An unnamed address in the abstract name space: the kernel chooses one that
	// nobody else has.
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix"})
	if err != nil {
		return nil, nil, err
	}
	defer ln.Close()
	if near, err = net.DialUnix("unix", nil, ln.Addr().(*net.UnixAddr)); err != nil {
		return nil, nil, err
	}
	token := make([]byte, 16)
	_, _ = rand.Read(token) // it never fails: see crypto/rand
	if _, err := near.Write(token); err != nil {
		return nil, nil, errors.Join(err, near.Close())
	}
	if far, err = acceptOwn(ln, token); err != nil {
		return nil, nil, errors.Join(err, near.Close())
	}
	return near, far, nil
}

// acceptOwn accepts the connection that begins with token. Anybody on this machine
// may have connected before it.
func acceptOwn(ln *net.UnixListener, token []byte) (*net.UnixConn, error) {
	for {
		c, err := ln.AcceptUnix()
		if err != nil {
			return nil, err
		}
		got := make([]byte, len(token))
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
		if _, err := io.ReadFull(c, got); err == nil && bytes.Equal(got, token) {
			return c, c.SetReadDeadline(time.Time{})
		}
		_ = c.Close()
	}
}
