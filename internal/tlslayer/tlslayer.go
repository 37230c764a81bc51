// Package tlslayer puts TLS, by crypto/tls, beneath a loop.Stream, for the servers
// and dials of this module.
//
// A *tls.Conn over a stream would not do. It holds a mutex while it writes, and
// takes the same one from inside a read, to answer a key update or a bad record; if
// the writer is a suspended task then, the loop's thread waits for itself, and a
// peer can bring that about. So here crypto/tls reads and writes memory that never
// waits, and no task is ever suspended inside it:
//
//   - What arrives is given to crypto/tls at once, and what it decrypts goes into
//     the stream's inbox. Readers wait there, as they do without TLS.
//   - What is written waits in the stream's outbox, as it does without TLS. When the
//     stream sends, at the end of the loop's turn, what is queued is encrypted. So
//     many short writes of one turn share a record.
//   - Answers that crypto/tls makes while it reads are queued whether there is room
//     or not. The stream cuts off a peer that provokes them and takes none.
//   - Only the handshake waits inside crypto/tls. Server and Client return when it
//     is over, so no second task uses the stream before.
//
// crypto/tls calls the functions of the configuration (GetCertificate, for one) on
// the loop's thread: they must not block.
package tlslayer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/noria-go/noria/internal/friend"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
)

// DefaultHandshakeTimeout is how long a handshake may take.
const DefaultHandshakeTimeout = 10 * time.Second

var key friend.Key

// Server does the server's side of the handshake on s, within timeout (0 and less
// mean DefaultHandshakeTimeout), and puts TLS beneath s. It is called by a task of
// s's loop; the end of ctx ends it. Bytes that have arrived already are part of the
// handshake. Afterwards s has no deadlines. If it fails, s can only be closed.
func Server(ctx context.Context, s *loop.Stream, config *tls.Config, timeout time.Duration) error {
	if config == nil {
		return errors.New("a TLS server needs a configuration with a certificate")
	}
	return start(ctx, s, timeout, func(w *wire) *tls.Conn { return tls.Server(w, config) })
}

// Client is Server for the client's side. config needs a ServerName, or
// InsecureSkipVerify: see ConfigFor. A renegotiation that the server asks for is
// refused: it would be a handshake in the middle of a read.
func Client(ctx context.Context, s *loop.Stream, config *tls.Config, timeout time.Duration) error {
	if config == nil {
		return errors.New("a TLS client needs a configuration with a ServerName")
	}
	if config.Renegotiation != tls.RenegotiateNever {
		config = config.Clone()
		config.Renegotiation = tls.RenegotiateNever
	}
	return start(ctx, s, timeout, func(w *wire) *tls.Conn { return tls.Client(w, config) })
}

// ConfigFor returns config, which may be nil, for a client that connects to host.
func ConfigFor(config *tls.Config, host string) *tls.Config {
	switch {
	case config == nil:
		return &tls.Config{ServerName: host}
	case config.ServerName == "" && !config.InsecureSkipVerify:
		config = config.Clone()
		config.ServerName = host
	}
	return config
}

// State returns what the handshake of s has agreed on; false if s has no TLS.
func State(s *loop.Stream) (state tls.ConnectionState, ok bool) {
	l, ok := s.Friend(key).Layer().(*layer)
	if ok {
		state = l.conn.ConnectionState()
	}
	return state, ok
}

func start(ctx context.Context, s *loop.Stream, timeout time.Duration, side func(*wire) *tls.Conn) error {
	fail := func(err error) error {
		return &runtime.OpError{Op: "tls handshake", Handle: s.Handle(), Detail: s.RemoteAddr().String(), Err: err}
	}
	if !s.Loop().Friend(key).OnLoop() {
		return &runtime.OpError{Op: "tls handshake", Handle: s.Handle(), Err: loop.ErrOffLoop}
	}
	if s.Friend(key).Layer() != nil {
		return fail(errors.New("the stream has TLS already"))
	}
	if timeout <= 0 {
		timeout = DefaultHandshakeTimeout
	}
	l := &layer{wire: wire{s: s, shaking: true}}
	l.conn = side(&l.wire)
	if err := l.handshake(ctx, timeout); err != nil {
		return fail(err)
	}
	l.inside = maxPlain // it may have read beyond the handshake
	s.Friend(key).SetLayer(l)
	return nil
}

// handshake runs crypto/tls's, with the stream to itself. A context that can end
// is kept from it: crypto/tls would close the connection from a goroutine of its
// own. Instead, the end of ctx makes the stream's deadlines pass.
func (l *layer) handshake(ctx context.Context, timeout time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s := l.wire.s
	if err := s.SetDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() {
		// If this fails, the loop is ending: then the task is killed.
		_ = s.Loop().Friend(key).Post(func() {
			if l.wire.shaking {
				_ = s.SetDeadline(time.Unix(1, 0))
			}
		})
	})
	defer stop()
	defer func() { l.wire.shaking = false }() // also if a function of the configuration panics
	err := l.conn.HandshakeContext(context.WithoutCancel(ctx))
	switch {
	case err == nil:
		return s.SetDeadline(time.Time{})
	case !errors.Is(err, os.ErrDeadlineExceeded):
		return err
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return fmt.Errorf("not complete after %v: %w", timeout, err)
}
