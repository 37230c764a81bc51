package ws

import (
	"github.com/noria-go/noria/compat"
	"github.com/noria-go/noria/internal/friend"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
)

// A sink is where frames are queued to be sent. Nothing of it waits. A
// *loop.Stream is one; see there for what the methods promise.
type sink interface {
	WriteErr() error
	Queued() int
	TailRoom() int
	Grow(n, more int) ([]byte, error)
	Enqueue(bufs ...*runtime.Buffer) error
}

var _ sink = (*loop.Stream)(nil)

// A tlsSink gathers what is sent in one turn of the loop, so that many short
// frames share a record, and has it encrypted into the stream's queue.
type tlsSink struct {
	tls *compat.TLSStream
	raw *loop.Stream
	buf *runtime.Buffer
	due bool
	err error
}

// tlsRecord is what fits into one record, in bytes.
const tlsRecord = 16 << 10

func (k *tlsSink) WriteErr() error {
	if k.err != nil {
		return k.err
	}
	return k.raw.WriteErr()
}

func (k *tlsSink) Queued() int {
	n := k.raw.Queued()
	if k.buf != nil {
		n += k.buf.Len()
	}
	return n
}

func (k *tlsSink) TailRoom() int { return tlsRecord } // all is copied anyway

func (k *tlsSink) Grow(n, more int) ([]byte, error) {
	if k.buf != nil && len(k.buf.Room()) < n {
		k.flush()
	}
	if k.err != nil {
		return nil, k.err
	}
	if k.buf == nil {
		b, err := k.raw.Loop().Pool().Get(max(n, min(n+more, tlsRecord)))
		if err != nil {
			return nil, err
		}
		k.buf = b
		if !k.due {
			k.due = true
			k.raw.Loop().Friend(friend.Key{}).NextTurn(k.flushDue)
		}
	}
	at := k.buf.Len()
	k.buf.Extend(n)
	return k.buf.Bytes()[at:], nil
}

func (k *tlsSink) Enqueue(bufs ...*runtime.Buffer) error {
	for i, b := range bufs {
		k.flush()
		if k.err == nil {
			k.err = k.tls.WriteNow(b.Bytes())
		}
		b.Release()
		if k.err != nil {
			runtime.Drop(bufs[i+1:]...)
			return k.err
		}
	}
	return nil
}

func (k *tlsSink) flushDue() {
	k.due = false
	k.flush()
}

// flush encrypts what was gathered.
func (k *tlsSink) flush() {
	b := k.buf
	if b == nil {
		return
	}
	k.buf = nil
	if k.err == nil {
		k.err = k.tls.WriteNow(b.Bytes())
	}
	b.Release()
}
