package deflate

import (
	"fmt"
	"math/bits"
	"sync"
	"sync/atomic"

	"github.com/klauspost/compress/flate"
)

// A Compressor deflates the messages of this side of a connection. Only one
// goroutine may use it at a time.
//
// A message is one call of Message, or any number of calls of Append and Flush and
// then one of End:
//
//	out = c.Append(out, part)   // out may be sent at any time
//	out = c.End(out[:0])
type Compressor struct {
	takeover bool
	class    class
	history  history // with takeover: the bytes that the peer knows

	w      *writer                // during a message
	parked atomic.Pointer[writer] // between two messages, with takeover; another Compressor may take it
	spot   spot                   // in the lot; guarded by its lock
	closed bool
}

// NewCompressor returns a Compressor for a window of this size, whose messages
// refer into earlier ones if takeover is set. Level is 1 (fastest) to 9; 0 means
// DefaultLevel. With a window below 32 KiB the level has no effect.
func NewCompressor(windowBits int, takeover bool, level int) *Compressor {
	if level == 0 {
		level = DefaultLevel
	}
	if level < 1 || level > maxLevel {
		panic(fmt.Sprintf("deflate: level %d, want 1 to %d", level, maxLevel))
	}
	c := &Compressor{takeover: takeover, history: history{max: 1 << checkBits(windowBits)}}
	c.class = class(level)
	if windowBits < MaxWindowBits {
		c.class = windowClass + class(windowBits)
	}
	return c
}

func checkBits(n int) int {
	if n < MinWindowBits || n > MaxWindowBits {
		panic(fmt.Sprintf("deflate: a window of %d bits, want %d to %d", n, MinWindowBits, MaxWindowBits))
	}
	return n
}

// WindowBits returns the window size that c was made with.
func (c *Compressor) WindowBits() int { return bits.Len(uint(c.history.max)) - 1 }

// Message deflates the message p and appends its payload to dst.
func (c *Compressor) Message(dst, p []byte) []byte {
	return c.End(c.Append(dst, p))
}

// Append deflates the next part of a message and appends to dst the payload that is
// complete. That may be nothing: up to 64 KiB may be held back.
func (c *Compressor) Append(dst, p []byte) []byte {
	w := c.writer()
	w.out = dst
	_, err := w.flate.Write(p)
	w.must(err)
	if c.takeover {
		c.history.add(p)
	}
	return w.take()
}

// Flush appends to dst the rest of the payload of all parts so far, so that the
// peer can inflate them. It costs a few bytes. The message continues and may be cut
// into frames anywhere (RFC 7692 §6.1).
func (c *Compressor) Flush(dst []byte) []byte {
	w := c.writer()
	w.out = dst
	w.must(w.flate.Flush())
	return w.take()
}

// End ends the message and appends the rest of its payload to dst. Without an
// Append the message is empty.
func (c *Compressor) End(dst []byte) []byte {
	w := c.writer()
	from := len(dst)
	w.out = dst
	w.must(w.flate.Flush())
	dst = w.take()
	n := len(dst) - len(tail)
	if n < from || string(dst[n:]) != tail {
		panic("deflate: a flush does not end with an empty block")
	}
	c.w = nil
	if c.takeover {
		parked.park(c, w)
	} else {
		w.free()
	}
	return dst[:n]
}

// Sent records that the message p was sent but compressed elsewhere, without
// references to earlier messages, as a broadcast is. With takeover, later messages
// may refer to p. It must not be called within a message.
func (c *Compressor) Sent(p []byte) {
	if c.w != nil {
		panic("deflate: Sent within a message")
	}
	if !c.takeover {
		return
	}
	if w := c.parked.Swap(nil); w != nil {
		w.free() // it does not know p
	}
	c.history.add(p)
}

// Held returns how many bytes of memory c keeps until its next message, without a
// parked writer: see Parked.
func (c *Compressor) Held() int { return cap(c.history.buf) }

// Close frees what c holds, even in the middle of a message. It may be called more
// than once. c is unusable afterwards.
func (c *Compressor) Close() {
	if c.takeover && !c.closed {
		parked.leave(c)
	}
	c.closed = true
	if w := c.w; w != nil {
		c.w = nil
		w.free()
	}
	if w := c.parked.Swap(nil); w != nil {
		w.free()
	}
	c.history.buf = nil
}

// writer returns the writer of the current message. At the start of a message that
// is the parked one, or one from the pool.
func (c *Compressor) writer() *writer {
	if c.w != nil {
		return c.w
	}
	if c.closed {
		panic("deflate: the compressor is closed")
	}
	w := c.parked.Swap(nil)
	if w == nil {
		w = c.class.get()
		w.flate.ResetDict(w, w.known(&c.history))
	}
	c.w = w
	return w
}

// A class is a set of interchangeable writers: those of one level or, above
// windowClass, of one window.
type class uint8

const (
	windowClass class = 16
	classes           = windowClass + MaxWindowBits
)

var writers [classes]sync.Pool

// A writer is the state of the compressor and the memory that it writes to.
type writer struct {
	class class
	flate *flate.Writer
	out   []byte
	dict  [1 << MaxWindowBits]byte
}

func (k class) get() *writer {
	if w, _ := writers[k].Get().(*writer); w != nil {
		return w
	}
	w := &writer{class: k}
	var err error
	if k < windowClass {
		w.flate, err = flate.NewWriter(w, int(k))
	} else {
		w.flate, err = flate.NewWriterWindow(w, 1<<(k-windowClass))
	}
	w.must(err)
	return w
}

// Write implements io.Writer for flate.
func (w *writer) Write(p []byte) (int, error) {
	w.out = append(w.out, p...)
	return len(p), nil
}

// take returns the output and forgets it.
func (w *writer) take() []byte {
	out := w.out
	w.out = nil
	return out
}

// known returns the bytes of h in one piece.
func (w *writer) known(h *history) []byte {
	n := h.read(w.dict[:], h.len())
	return w.dict[:n]
}

// must panics on an error: flate fails only if its destination does, and Write
// cannot fail.
func (w *writer) must(err error) {
	if err != nil {
		panic(fmt.Sprintf("deflate: compressing failed: %v", err))
	}
}

func (w *writer) free() { writers[w.class].Put(w) }
