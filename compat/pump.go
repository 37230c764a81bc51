package compat

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
	"time"

	"github.com/noria-go/noria/loop"
)

// A pump carries the bytes of a connection that cannot be moved to a loop
// through a socket pair, one end of which the loop has. It lives as long as the
// loop's stream, like the socket of any other: a direction that has ended, well
// or not, says nothing about the other one.
type pump struct {
	nc   net.Conn
	far  *net.UnixConn // the end of the pair that the loop does not have
	sent chan struct{} // closed when nothing that the stream wrote is left

	why atomic.Pointer[error] // that reading nc has failed
}

// startPump returns the stream that nc's bytes are pumped to and from. When it
// fails, nc still is the caller's.
func startPump(l *loop.Loop, nc net.Conn, opts TakeOverOptions) (*loop.Stream, error) {
	// Those that are set were somebody else's. A socket that moves leaves them
	// behind as well.
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
		s.SetAddrs(nc.LocalAddr(), nc.RemoteAddr())
		s.OnEOF(p.failed)
		s.OnEnd(func() { go p.end(linger) })
		go p.in()
		go p.out()
	})
	if err != nil {
		return nil, errors.Join(err, near.Close(), far.Close())
	}
	return s, nil
}

// failed returns why nc could not be read to its end.
func (p *pump) failed() error {
	if why := p.why.Load(); why != nil {
		return *why
	}
	return nil
}

// in carries what nc receives.
func (p *pump) in() {
	r := &sourceErr{Reader: p.nc}
	_, _ = io.Copy(p.far, r) // that far takes nothing is the stream's end
	if r.err != nil {
		p.why.Store(&r.err) // before the stream learns of the end
	}
	_ = p.far.CloseWrite()
}

// sourceErr keeps why reading has failed apart from why writing has. Besides,
// it has no WriteTo: that of a *net.TCPConn which nc embeds would pass by nc's
// own Read. A Writer has no ReadFrom for the same reason.
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

// out carries what the stream writes.
func (p *pump) out() {
	defer close(p.sent)
	_, err := io.Copy(struct{ io.Writer }{p.nc}, struct{ io.Reader }{p.far})
	if err == nil && closeWrite(p.nc) != nil {
		_ = p.nc.Close() // the peer must learn of the end, and this is the way that is left
	}
	_ = p.far.CloseRead() // what the stream writes from now on fails
}

func closeWrite(nc net.Conn) error {
	if c, ok := nc.(interface{ Handshake() error }); ok {
		if err := c.Handshake(); err != nil { // before it, a *tls.Conn cannot say goodbye
			return err
		}
	}
	if c, ok := nc.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return errors.ErrUnsupported
}

// end is called when the stream is no more. What it has written may still be
// on its way.
func (p *pump) end(linger time.Duration) {
	if linger > 0 {
		timer := time.NewTimer(linger)
		defer timer.Stop()
		select {
		case <-p.sent:
		case <-timer.C:
		}
	}
	_ = p.nc.Close() // nobody is left to be told what goes wrong
	_ = p.far.Close()
}
