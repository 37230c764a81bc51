package ws

import (
	"errors"
	"os"

	gobwas "github.com/gobwas/ws"

	"github.com/noria-go/noria/compat"
	"github.com/noria-go/noria/internal/friend"
	"github.com/noria-go/noria/runtime"
	"github.com/noria-go/noria/ws/internal/frame"
)

// adapter is the engine that leaves the framing to gobwas/ws, a synchronous
// library that wants an io.Reader and an io.Writer. It is given a
// GrowableSyncStream, which never waits: a header that is cut off is rolled
// back, because ws.ReadHeader would lose what it had read, and read again when
// more is there. What it costs against native are those retries, and a copy of
// every payload into that stream and another one out of it, each way.
type adapter struct {
	sync *compat.GrowableSyncStream
	in   *compat.ReadHalf // of sync
	out  *compat.WriteHalf
	src  compat.Stream
	dec  frame.Decoder // checks what the library lets pass
}

// adapterBuffer is what one connection buffers at most, in bytes. Payloads are
// taken out of it as they come, so that it need not hold a message.
const adapterBuffer = 64 << 10

func newAdapter(t compat.Stream, out sink, client bool) *adapter {
	a := &adapter{src: t, dec: frame.Decoder{Client: client}}
	var err error
	a.sync, err = compat.NewGrowableSyncStream(&instant{t, out}, compat.Options{Size: 4 << 10, Max: adapterBuffer})
	if err != nil {
		panic(err) // the sizes are constants
	}
	a.in, a.out = a.sync.Split()
	return a
}

// fill moves what has arrived into the sync stream, and reports whether there
// was anything.
func (a *adapter) fill() bool {
	n, err := a.sync.FillReadBuf()
	return err == nil && n > 0
}

func (a *adapter) header(h *frame.Header) (bool, error) {
	for {
		if before := a.in.Buffered(); before > 0 {
			a.in.Checkpoint()
			gh, err := gobwas.ReadHeader(a.in)
			if err == nil {
				a.in.Commit()
				*h = frame.Header{Len: gh.Length, Mask: gh.Mask, Op: frame.Opcode(gh.OpCode), Rsv: gh.Rsv, Fin: gh.Fin, Masked: gh.Masked}
				return true, a.dec.Check(h, before-a.in.Buffered())
			}
			a.in.Rollback()
			a.in.Commit()
			if errors.Is(err, gobwas.ErrHeaderLengthMSB) {
				return false, frame.ErrTopBit
			}
			if !errors.Is(err, compat.ErrWouldBlock) {
				return false, err
			}
		}
		if !a.fill() {
			return false, nil
		}
	}
}

func (a *adapter) payload(h *frame.Header, at int64) (segment, bool) {
	if a.in.Buffered() == 0 && !a.fill() {
		return segment{}, false
	}
	n := int(min(h.Len-at, int64(a.in.Buffered()), 32<<10))
	b, err := a.src.Loop().Pool().Get(headroom + n)
	if err != nil {
		b = runtime.NewShared(make([]byte, n)) // Go's memory, then
	} else {
		b.Reset(headroom)
		b.Extend(n)
	}
	p := b.Bytes()
	_, _ = a.in.Read(p) // so many are there
	if h.Masked {
		gobwas.Cipher(p, h.Mask, int(at&3))
	}
	return segment{buf: b, data: p}, true
}

func (a *adapter) control(p []byte, h *frame.Header, at int64) int {
	if a.in.Buffered() == 0 && !a.fill() {
		return 0
	}
	n, _ := a.in.Read(p)
	if h.Masked {
		gobwas.Cipher(p[:n], h.Mask, int(at&3))
	}
	return n
}

func (a *adapter) drop() { _ = a.in.Discard(a.in.Buffered()) }

// write has the library write the frame.
func (a *adapter) write(c *Conn, m *Message) error {
	defer m.free()
	h := c.header(m)
	err := gobwas.WriteHeader(a.sync, gobwas.Header{Fin: true, OpCode: gobwas.OpCode(h.Op), Length: h.Len, Masked: h.Masked, Mask: h.Mask})
	at := 0
	m.eachSegment(func(s *segment) {
		p := s.data
		if h.Masked {
			if s.buf.Friend(friend.Key{}).Home() == nil { // it must not be changed
				p = append([]byte(nil), p...)
			}
			gobwas.Cipher(p, h.Mask, at)
			at += len(p)
		}
		for len(p) > 0 && err == nil {
			var n int
			n, err = a.sync.Write(p)
			p = p[n:]
			if errors.Is(err, compat.ErrWouldBlock) {
				_, err = a.sync.FlushWriteBuf()
			}
		}
	})
	if err == nil {
		_, err = a.sync.FlushWriteBuf()
	}
	if err != nil {
		a.out.Discard() // half a frame, perhaps
		return c.sendFailed(err)
	}
	c.queued(h.Size() + int(h.Len))
	return nil
}

// instant is a connection's transport as a stream that never waits, so that the
// sync stream over it needs no task. There is room whenever it is written to:
// Conn has seen to that.
type instant struct {
	compat.Stream
	sink sink
}

// errNothing is a timeout, after which a stream can be used again.
var errNothing = &runtime.OpError{Op: "recv", Err: os.ErrDeadlineExceeded}

func (i *instant) ReadBuf() (*runtime.Buffer, error) {
	if b := i.TryReadBuf(); b != nil {
		return b, nil
	}
	return nil, errNothing
}

func (i *instant) Read(p []byte) (int, error) {
	b := i.TryReadBuf()
	if b == nil {
		return 0, errNothing
	}
	n := copy(p, b.Bytes())
	if b = b.Friend(friend.Key{}).Rest(n); b != nil {
		i.Unread(b)
	}
	return n, nil
}

func (i *instant) ReadInto(b *runtime.Buffer) (int, error) {
	n, err := i.Read(b.Room())
	b.Extend(n)
	return n, err
}

func (i *instant) Write(p []byte) (int, error) { return len(p), nil } // of nothing: it waits for room

func (i *instant) TryWriteBuf(bufs ...*runtime.Buffer) error {
	for _, b := range bufs {
		b.Retain() // what fails stays the caller's
	}
	if err := i.sink.Enqueue(bufs...); err != nil {
		return err
	}
	runtime.Drop(bufs...)
	return nil
}
