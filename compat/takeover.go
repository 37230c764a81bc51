package compat

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/noria-go/noria/runtime"
)

// TakeOverOptions say how a connection is taken over. The zero value is good.
type TakeOverOptions struct {
	// Unread is what was read from the connection already and not used, such as
	// what http.Hijacker's bufio.Reader holds. It is read first.
	Unread []byte

	// Stream are the stream's limits.
	Stream runtime.StreamOptions
}

// TakeOver moves nc, which another library accepted or dialed, to l: its
// descriptor becomes the loop's, nc is closed (the connection is not), and the
// stream is for the tasks of l; give it to NewConn for goroutines. It may be
// called from any goroutine. When it fails, nc still is the caller's.
//
// A *Conn of l itself, as net/http over a Listener has it, is moved by handing out its
// stream.
//
// A connection that has no descriptor of its own to give (a *tls.Conn, a
// net.Pipe) cannot be moved: two goroutines pump its bytes through a socket
// pair then, which costs two copies and two switches for each, and pumped says
// so.
func TakeOver(l *runtime.Loop, nc net.Conn, opts TakeOverOptions) (s *runtime.Stream, pumped bool, err error) {
	if c, ok := nc.(*Conn); ok && c.Loop() == l {
		if len(opts.Unread) > 0 {
			c.Unread(runtime.NewShared(opts.Unread))
		}
		return c.Stream, false, nil
	}
	s, err = adopt(l, nc, opts)
	if !errors.Is(err, runtime.ErrUnsupported) {
		return s, false, err
	}
	near, far, err := socketPair()
	if err != nil {
		return nil, true, fmt.Errorf("take over %T: %w", nc, err)
	}
	if s, err = adopt(l, near, opts); err != nil {
		return nil, true, errors.Join(err, near.Close(), far.Close())
	}
	pump(nc, far)
	return s, true, nil
}

func adopt(l *runtime.Loop, nc net.Conn, opts TakeOverOptions) (s *runtime.Stream, err error) {
	err = l.Call(context.Background(), "take over", func(context.Context) (err error) {
		if s, err = l.AdoptConn(nc, opts.Stream); err == nil && len(opts.Unread) > 0 {
			s.Unread(runtime.NewShared(opts.Unread))
		}
		return err
	})
	return s, err
}

// socketPair returns two connections that are each other's peer.
func socketPair() (near, far net.Conn, err error) {
	// An unnamed address in the abstract name space: the kernel chooses one that
	// nobody else has.
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix"})
	if err != nil {
		return nil, nil, err
	}
	defer ln.Close()
	if near, err = net.Dial("unix", ln.Addr().String()); err != nil {
		return nil, nil, err
	}
	token := make([]byte, 16)
	_, _ = rand.Read(token) // it never fails: see crypto/rand
	if _, err := near.Write(token); err != nil {
		return nil, nil, errors.Join(err, near.Close())
	}
	for {
		if far, err = ln.Accept(); err != nil {
			return nil, nil, errors.Join(err, near.Close())
		}
		// Anybody on this machine could have connected in between.
		got := make([]byte, len(token))
		_ = far.SetReadDeadline(time.Now().Add(time.Second))
		if _, err := io.ReadFull(far, got); err == nil && bytes.Equal(got, token) {
			return near, far, far.SetReadDeadline(time.Time{})
		}
		_ = far.Close()
	}
}

// halfCloser is what *tls.Conn, *net.TCPConn and *net.UnixConn can do.
type halfCloser interface{ CloseWrite() error }

// pump copies both ways until both have ended, and then closes both.
func pump(nc, far net.Conn) {
	ended := make(chan struct{}, 2)
	copyAll := func(dst, src net.Conn) {
		_, err := io.Copy(dst, src)
		if hc, ok := dst.(halfCloser); ok && err == nil {
			err = hc.CloseWrite()
		} else if err == nil {
			err = net.ErrClosed // it cannot say that this direction has ended, except by ending
		}
		if err != nil {
			// One direction failed: the other one has nobody to talk to.
			_ = nc.Close()
			_ = far.Close()
		}
		ended <- struct{}{}
	}
	go copyAll(far, nc)
	go copyAll(nc, far)
	go func() {
		<-ended
		<-ended
		_ = nc.Close()
		_ = far.Close()
	}()
}
