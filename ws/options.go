package ws

import (
	"fmt"
	"log/slog"
	"time"
)

// Limits of a connection, unless Options say otherwise.
const (
	// DefaultMaxMessage is 1 MiB: more than nearly every message, and so little
	// that a thousand peers that each send one at once take a loop's pool of
	// 1 GiB and not the machine's memory. The 32 KiB that others have cut off
	// pictures and documents, and 16 MiB let 64 peers fill the pool.
	DefaultMaxMessage = 1 << 20

	DefaultSendQueue    = 256 << 10
	DefaultCloseTimeout = 5 * time.Second
	DefaultWriteTimeout = 30 * time.Second
	DefaultPingInterval = 30 * time.Second
	DefaultPongTimeout  = 20 * time.Second
)

// A Policy says what happens to a message for a peer that does not keep up:
// one for which more than Options.SendQueue bytes are waiting, or more than its
// Budget allows.
type Policy uint8

const (
	// PolicyWait makes Send wait until there is room, for as long as WriteTimeout.
	PolicyWait Policy = iota
	// PolicyDrop makes Send drop the message and return ErrDropped.
	PolicyDrop
	// PolicyDisconnect closes the connection with StatusPolicyViolation; Send returns
	// ErrTooSlow.
	PolicyDisconnect
)

// Options are what a connection can be told, on either side. The zero value is
// good. They must not change while connections use them.
type Options struct {
	// MaxMessage is how many bytes of payload a message that is received may
	// have, after it was decompressed. A longer one closes the connection with
	// StatusMessageTooBig, as soon as a header announces it. 0 means
	// DefaultMaxMessage, negative means no limit. It does not bound what is read
	// by NextReader, which holds nothing whole.
	MaxMessage int64

	// SendQueue is how many bytes may wait to be sent before Policy says what
	// happens to the next message. One message more may be there, of whatever
	// size. What other threads send waits for the loop in a second queue of this
	// size. 0 and less mean DefaultSendQueue.
	SendQueue int

	// Policy is for peers that do not keep up.
	Policy Policy

	// Budget bounds what waits to be sent on all connections that share it; nil:
	// only SendQueue does.
	Budget *Budget

	// Compression says how messages are compressed; nil: not at all.
	Compression *Compression

	// PingInterval is after how long without anything from the peer it is sent
	// a ping; if PongTimeout later still nothing has come, the connection is
	// closed, and receiving and sending fail with ErrPongTimeout. 0 means
	// DefaultPingInterval and DefaultPongTimeout (and so does a negative
	// PongTimeout); a negative PingInterval means that nobody is asked.
	PingInterval time.Duration
	PongTimeout  time.Duration

	// WriteTimeout is how long Send waits for room before it gives up and closes
	// the connection. 0 means DefaultWriteTimeout, negative means for ever.
	WriteTimeout time.Duration

	// CloseTimeout is how long closing waits for the peer's Close frame and for
	// its end of the connection. 0 means DefaultCloseTimeout, negative means not
	// at all.
	CloseTimeout time.Duration

	// Logger takes what goes wrong with nobody to tell; nil: slog.Default().
	Logger *slog.Logger

	// Hooks are called for what happens on connections.
	Hooks Hooks

	// DebugMessages has each message remember the stack that received it, which
	// is slow, for the report of those that a handler forgot.
	DebugMessages bool
}

// Hooks are called on the connection's loop. They must not block. Those that
// are nil cost nothing.
type Hooks struct {
	// Opened is called after the opening handshake.
	Opened func(c *Conn)

	// Closed is called once when an opened connection has ended: with the code
	// of the first Close frame that was sent or received, StatusAbnormalClosure if
	// the connection ended before there was one, and with what ended it. That is the
	// handler's error, if it returned one that is no orderly end; otherwise a
	// *CloseError if the peer closed, a *ProtocolError, ErrAbnormalClosure, ErrPongTimeout or
	// ErrTooSlow; net.ErrClosed after CloseNow, and when the loop has ended; and nil
	// if this end has closed, whatever the peer answered and whether it did in time.
	Closed func(c *Conn, code StatusCode, cause error)

	// MessageReceived and MessageSent are called for each message, with the bytes of
	// its payload: uncompressed. One that came in is counted when it is handed out
	// by a call that receives, or read to its end by a Reader: not if it is skipped,
	// or comes while this end closes.
	MessageReceived func(c *Conn, t Type, bytes int)
	MessageSent     func(c *Conn, t Type, bytes int)

	// MessageDropped is called for each message that Policy dropped.
	MessageDropped func(c *Conn, t Type, bytes int)
}

func (o *Options) withDefaults() Options {
	r := *o
	if r.MaxMessage == 0 {
		r.MaxMessage = DefaultMaxMessage
	}
	if r.MaxMessage < 0 {
		r.MaxMessage = 1<<63 - 1
	}
	if r.SendQueue <= 0 {
		r.SendQueue = DefaultSendQueue
	}
	if r.CloseTimeout == 0 {
		r.CloseTimeout = DefaultCloseTimeout
	}
	if r.WriteTimeout == 0 {
		r.WriteTimeout = DefaultWriteTimeout
	}
	if r.PingInterval == 0 {
		r.PingInterval = DefaultPingInterval
	}
	if r.PongTimeout <= 0 {
		r.PongTimeout = DefaultPongTimeout
	}
	r.Logger = o.logger()
	return r
}

func (o *Options) logger() *slog.Logger {
	if o.Logger != nil {
		return o.Logger
	}
	return slog.Default()
}

func (o *Options) check() error {
	if o.Policy > PolicyDisconnect {
		return fmt.Errorf("ws: unknown policy %d", o.Policy)
	}
	return o.Compression.check()
}
