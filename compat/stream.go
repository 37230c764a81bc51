package compat

import (
	"context"
	"net"

	"github.com/noria-go/noria/runtime"
)

// A Stream is what a protocol is written against when it is to run over TLS
// too: *runtime.Stream and *TLSStream are both one. See runtime.Stream for
// what the methods promise.
type Stream interface {
	net.Conn

	ReadBuf() (*runtime.Buffer, error)
	TryReadBuf() *runtime.Buffer
	ReadInto(b *runtime.Buffer) (int, error)
	ReadErr() error
	Unread(b *runtime.Buffer)
	Buffered() int
	Readable() runtime.Source

	WriteBuf(bufs ...*runtime.Buffer) error
	TryWriteBuf(bufs ...*runtime.Buffer) error
	WriteNow(p []byte) error
	Writable() runtime.Source
	Queued() int
	Flush() error
	CloseWrite() error

	Loop() *runtime.Loop
	AllowGoroutines(ctx context.Context)
}

var (
	_ Stream = (*runtime.Stream)(nil)
	_ Stream = (*TLSStream)(nil)
)
