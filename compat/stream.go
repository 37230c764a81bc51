package compat

import (
	"context"
	"net"

	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
)

// A Stream is what a protocol is written against when it is to run over TLS
// too: *loop.Stream and *TLSStream are both one. See loop.Stream for
// what the methods promise.
type Stream interface {
	net.Conn

	ReadBuf() (*runtime.Buffer, error)
	TryReadBuf() *runtime.Buffer
	ReadInto(b *runtime.Buffer) (int, error)
	ReadErr() error
	Unread(b *runtime.Buffer)
	Buffered() int
	Readable() loop.Source

	WriteBuf(bufs ...*runtime.Buffer) error
	TryWriteBuf(bufs ...*runtime.Buffer) error
	WriteNow(p []byte) error
	Writable() loop.Source
	Queued() int
	Flush() error
	CloseWrite() error

	Loop() *loop.Loop
	AllowGoroutines(ctx context.Context)
}

var (
	_ Stream = (*loop.Stream)(nil)
	_ Stream = (*TLSStream)(nil)
)
