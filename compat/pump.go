package compat

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"time"

	"github.com/noria-go/noria/loop"
)

// A pump carries the bytes of a connection that cannot be moved to a loop. They pass
// through a socket pair, one end of which is the loop's stream. Each direction has a
// goroutine, and the end of one direction does not end the other. The pump ends when the
// stream does, as a socket would.
type pump struct {
	nc   net.Conn
	far  *net.UnixConn // the other end of the pair than the stream's
	sent chan struct{} // closed when nothing is left to write to nc

	why atomic.Pointer[error] // why reading nc has failed
}

// startPump returns a stream that carries nc's bytes. If it fails, the caller still owns
// nc.
func startPump(l *loop.Loop, nc net.Conn, opts TakeOverOptions) (*loop.Stream, error) {
	// The deadlines were set by nc's former owner. A socket that is moved loses them too.
	if err := nc.SetDeadline(time.Time{}); err != nil {
		return nil, err
	}
	near, far, err := socketPair()
	if err != nil {
		return nil, err
	}
	linger := opts.Stream.Linger
	if linger == 0 {
		linger = 5 * time.Second
	}
	p := &pump{nc: nc, far: far, sent: make(chan struct{})}
	s, err := adopt(l, near, opts, func(s *loop.Stream) {
		s.Friend(key).SetAddrs(nc.LocalAddr(), nc.RemoteAddr())
		s.Friend(key).OnEOF(p.failed)
		s.Friend(key).OnEnd(func() { go p.end(linger) })
		go p.in()
		go p.out(s)
	})
	if err != nil {
		return nil, errors.Join(err, near.Close(), far.Close())
	}
	return s, nil
}

// failed returns why reading nc has failed, or nil if it has not.
func (p *pump) failed() error {
	if why := p.why.Load(); why != nil {
		return *why
	}
	return nil
}

// in carries the bytes that nc receives to the stream.
func (p *pump) in() {
	r := &sourceErr{Reader: p.nc}
	_, _ = io.Copy(p.far, r) // if writing fails, the stream has ended
	if r.err != nil {
		p.why.Store(&r.err) // before CloseWrite, at which the stream calls failed
	}
	_ = p.far.CloseWrite()
}

// A sourceErr keeps the error of reading, which io.Copy does not tell from an error of
// writing. It also hides nc's WriteTo: if nc embeds a *net.TCPConn, that method would
// bypass nc's own Read. For the same reason out hides nc's ReadFrom.
type sourceErr struct {
	io.Reader
	err error
}

func (r *sourceErr) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if err != nil && err != io.EOF {
		r.err = err
	}
	return n, err
}

// out carries the bytes that the stream s writes to nc.
func (p *pump) out(s *loop.Stream) {
	defer close(p.sent)
	_, err := io.Copy(struct{ io.Writer }{p.nc}, struct{ io.Reader }{p.far})
	if err != nil {
		// Before CloseRead, after which sending fails with a broken pipe. If the loop has
		// ended, no task can write any more.
		_ = s.Loop().Friend(key).Call(context.Background(), "pump", func(context.Context) error {
			s.Friend(key).FailSends(err)
			return nil
		})
	} else if closeWrite(p.nc) != nil {
		_ = p.nc.Close() // nc has no other way to tell the peer of the end
	}
	_ = p.far.CloseRead()
	// Bytes that lie in the socket keep a stream that waits to send from learning that it
	// cannot: on Linux, epoll reports the stream's end as writable only when they are gone.
	_, _ = io.Copy(io.Discard, p.far)
}

// closeWrite ends the sending side of nc, if nc can do that.
func closeWrite(nc net.Conn) error {
	if c, ok := nc.(interface{ Handshake() error }); ok {
		if err := c.Handshake(); err != nil { // a *tls.Conn cannot send close_notify before it
			return err
		}
	}
	if c, ok := nc.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return errors.ErrUnsupported
}

// end closes nc after the stream has ended. It first waits, up to linger, for the bytes
// that the stream has written.
func (p *pump) end(linger time.Duration) {
	if linger > 0 {
		timer := time.NewTimer(linger)
		defer timer.Stop()
		select {
		case <-p.sent:
		case <-timer.C:
		}
	}
	_ = p.nc.Close() // the stream has ended, so no call could return the error
	_ = p.far.Close()
}

// socketPair returns the two ends of a connection.
func socketPair() (near, far *net.UnixConn, err error) {
	// Without a name, the kernel chooses an unused one in the abstract name space.
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix"})
	if err != nil {
		return nil, nil, err
	}
	defer ln.Close()
	if near, err = net.DialUnix("unix", nil, ln.Addr().(*net.UnixAddr)); err != nil {
		return nil, nil, err
	}
	token := make([]byte, 16)
	_, _ = rand.Read(token) // never fails
	if _, err := near.Write(token); err != nil {
		return nil, nil, errors.Join(err, near.Close())
	}
	if far, err = acceptOwn(ln, token); err != nil {
		return nil, nil, errors.Join(err, near.Close())
	}
	return near, far, nil
}

// acceptOwn accepts the connection that begins with token, and closes others: any process
// on this machine can connect first.
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
