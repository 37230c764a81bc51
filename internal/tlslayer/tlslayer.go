// Package tlslayer puts TLS beneath a loop.Stream, with crypto/tls, for the servers and
// dials of this module.
//
// A *tls.Conn over a stream would deadlock. It holds a mutex while it writes, and locks
// the same mutex inside a read, to answer a key update or a bad record. If the writer is a
// suspended task then, the loop's thread waits for itself, and a peer can cause that. So
// here crypto/tls reads and writes memory, which never waits, and no task is suspended
// inside it:
//
//   - The loop gives crypto/tls what arrives at once, and what it decrypts goes into the
//     stream's inbox. Readers wait there, as they do without TLS.
//   - What is written waits in the stream's outbox, as it does without TLS. When the
//     stream sends, at the end of the loop's turn, it encrypts what is queued. So the
//     short writes of one turn share a record.
//   - Answers that crypto/tls writes while it reads are queued even if the queue is full.
//     The stream cuts off a peer that provokes answers and takes none.
//   - Only the handshake waits inside crypto/tls. Server and Client return when it is
//     complete, so no second task uses the stream before that.
//
// crypto/tls calls the functions of the configuration, such as GetCertificate, on the
// loop's thread, so they must not block.
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

// DefaultHandshakeTimeout is how long a handshake may take by default.
const DefaultHandshakeTimeout = 10 * time.Second

var key friend.Key // opens what only this module may call: see internal/friend

// Server performs the server's side of the handshake on s, waits until it is complete, and
// puts TLS beneath s. Only a task of s's loop may call it. It fails after timeout (0 and
// less mean DefaultHandshakeTimeout) and when ctx ends; then s can only be closed. Bytes
// that have arrived already are part of the handshake. Afterwards s has no deadlines.
func Server(ctx context.Context, s *loop.Stream, config *tls.Config, timeout time.Duration) error {
	if config == nil {
		return errors.New("a TLS server needs a configuration with a certificate")
	}
	return start(ctx, s, timeout, func(w *wire) *tls.Conn { return tls.Server(w, config) })
}

// Client is Server for the client's side. config needs a ServerName or InsecureSkipVerify:
// see ConfigFor. The client refuses renegotiation, which would be a handshake inside a
// read.
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

// ConfigFor returns the configuration of a client that connects to host: config, which may
// be nil, with host as its ServerName if it has none.
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

// State returns the state of s's TLS connection; ok is false if s has no TLS.
func State(s *loop.Stream) (state tls.ConnectionState, ok bool) {
	l, ok := s.Friend(key).Layer().(*layer)
	if ok {
		state = l.conn.ConnectionState()
	}
	return state, ok
}

func start(ctx context.Context, s *loop.Stream, timeout time.Duration, side func(*wire) *tls.Conn) error {
	fail := func(err error) error {
		return &runtime.OpError{Op: "tls handshake", Handle: s.Friend(key).Handle(), Detail: s.RemoteAddr().String(), Err: err}
	}
	if !s.Loop().Friend(key).OnLoop() {
		return &runtime.OpError{Op: "tls handshake", Handle: s.Friend(key).Handle(), Err: loop.ErrOffLoop}
	}
	if s.Friend(key).Layer() != nil {
		return fail(errors.New("the stream has TLS already"))
	}
	if timeout <= 0 {
		timeout = DefaultHandshakeTimeout
	}
	l := &layer{wire: wire{s: s, handshaking: true}}
	l.conn = side(&l.wire)
	if err := l.handshake(ctx, timeout); err != nil {
		return fail(err)
	}
	l.inside = maxPlain // conn may have read beyond the handshake
	s.Friend(key).SetLayer(l)
	return nil
}

// handshake runs the handshake of crypto/tls on the stream. It gives crypto/tls a context
// that never ends, because crypto/tls would close the connection from a goroutine of its
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
		// This fails only if the loop has ended, and its end has killed the task.
		_ = s.Loop().Friend(key).Post(func() {
			if l.wire.handshaking {
				_ = s.SetDeadline(time.Unix(1, 0))
			}
		})
	})
	defer stop()
	defer func() { l.wire.handshaking = false }() // also if a function of the configuration panics
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
