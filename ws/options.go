package ws

import (
	"fmt"
	"log/slog"
	"time"
)

// Default limits of a connection.
const (
	// DefaultMaxMessage is 1 MiB. Hardly any message is longer, and a thousand peers
	// that each send one at once fill a loop's pool of 1 GiB and not the machine's
	// memory. 32 KiB, the limit of other libraries, is too small for pictures and
	// documents; with 16 MiB 64 peers could fill the pool.
	DefaultMaxMessage = 1 << 20

	DefaultSendQueue    = 256 << 10
	DefaultCloseTimeout = 5 * time.Second
	DefaultWriteTimeout = 30 * time.Second
	DefaultPingInterval = 30 * time.Second
	DefaultPongTimeout  = 20 * time.Second
)

// Options configure the connections of a Server, or the one of Dial. The zero value is
// good. They must not change while connections use them.
type Options struct {
	// MaxMessage is how many bytes of payload a received message may have, after
	// decompression. A longer one closes the connection with StatusMessageTooBig as
	// soon as a frame header announces it. 0 means DefaultMaxMessage, negative means no
	// limit. It does not bound messages that NextReader reads, since a Reader does not
	// hold all of a message.
	MaxMessage int64

	// SendQueue is how many bytes may wait to be sent before Policy applies to the
	// next message. The last message that is admitted may exceed it by any size.
	// Messages from other threads wait for the loop in the cross-thread queue, which has
	// the same limit. 0 and less mean DefaultSendQueue.
	SendQueue int

	// Policy says what Send does for a peer that does not keep up.
	Policy Policy

	// Budget bounds what waits to be sent on all connections that share it, beside
	// SendQueue; nil: SendQueue alone.
	Budget *Budget

	// Compression offers or accepts compression; nil: messages are not compressed.
	Compression *Compression

	// PingInterval is how long the peer may be silent before it is sent a ping, which may
	// be up to a quarter of the interval late. 0 means DefaultPingInterval, negative means
	// that no pings are sent.
	PingInterval time.Duration

	// PongTimeout is how long the peer may be silent after that ping. Then the
	// connection is closed, and receiving and sending fail with ErrPongTimeout. 0 and
	// less mean DefaultPongTimeout.
	PongTimeout time.Duration

	// WriteTimeout is how long Send waits for room before it closes the connection. 0
	// means DefaultWriteTimeout, negative means no limit.
	WriteTimeout time.Duration

	// CloseTimeout is how long Close waits for an open Writer to finish its message, and
	// then as long again for the peer's Close frame and for the peer to end the
	// connection. 0 means DefaultCloseTimeout, negative means that Close waits for
	// neither.
	CloseTimeout time.Duration

	// Logger takes errors that no call returns; nil: slog.Default().
	Logger *slog.Logger

	// Hooks are called for events of connections.
	Hooks Hooks

	// DebugMessages makes each message record the stack of the call that received it.
	// The log entry about messages that a handler forgot then has that stack. This is
	// slow.
	DebugMessages bool
}

// Hooks are functions that a connection calls on its loop. They must not block. A nil
// hook costs nothing.
type Hooks struct {
	// Opened is called after the opening handshake.
	Opened func(c *Conn)

	// Closed is called once when an opened connection has ended. code is that of the
	// first Close frame that was sent or received, or StatusAbnormalClosure if there was
	// none.
	//
	// cause is the handler's error, unless that only reports an orderly end. Otherwise
	// it is a *CloseError if the peer closed, a *ProtocolError, ErrAbnormalClosure,
	// ErrPongTimeout or ErrTooSlow; net.ErrClosed after CloseNow, and when the loop has
	// ended; and nil if this end called Close, even if the peer did not answer in time.
	Closed func(c *Conn, code StatusCode, cause error)

	// MessageReceived is called when a call has received a message or a Reader has read
	// one to its end; not for a message that is skipped, or that arrives while this end
	// closes. MessageSent is called when a message is queued. bytes is the uncompressed
	// payload.
	MessageReceived func(c *Conn, t Type, bytes int)
	MessageSent     func(c *Conn, t Type, bytes int)

	// MessageDropped is called for each message that PolicyDrop dropped.
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
