package deflate

import (
	"fmt"
	"math/bits"
	"sync"
	"sync/atomic"

	"github.com/klauspost/compress/flate"
)

// A Compressor deflates the messages that this side of a connection sends. It
// must not be used by two goroutines at once.
//
// A message is one call of Message; or any number of Append and Flush, and End:
//
//	out = c.Append(out, part)   // out may be sent whenever it is large enough
//	out = c.End(out[:0])
type Compressor struct {
	takeover bool
	class    class
	history  history // with takeover: what the other side knows

	w      *writer                // while a message lasts
	parked atomic.Pointer[writer] // between two, with takeover; others take it
	spot   spot                   // of the lot, and under its lock
	closed bool
}

// NewCompressor returns a Compressor that refers no further back than this
// window and, if takeover is set, into earlier messages. Level is 1 (fastest)
// to 9; 0 means DefaultLevel. With a window below 32 KiB there is one level
// only.
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

// WindowBits returns the window that the compressor was made with.
func (c *Compressor) WindowBits() int { return bits.Len(uint(c.history.max)) - 1 }

// Message appends to dst the payload of the message p.
func (c *Compressor) Message(dst, p []byte) []byte {
	return c.End(c.Append(dst, p))
}

// Append deflates the next part of a message, and appends to dst what of its
// payload is complete. That may be nothing: up to 64 KiB wait for more.
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

// Flush appends to dst all of the payload that the parts so far make: whoever
// has it can inflate them. That costs a few bytes, and the message goes on; where
// it is cut into frames is free (RFC 7692, section 6.1).
func (c *Compressor) Flush(dst []byte) []byte {
	w := c.writer()
	w.out = dst
	w.must(w.flate.Flush())
	return w.take()
}

// End ends the message and appends to dst the rest of its payload. A message
// with no Append is an empty one.
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

// Sent says that p was sent compressed by somebody else, without references to
// earlier messages: a broadcast that is compressed once. With takeover the
// other side knows p from now on. It must not be called within a message.
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

// Held returns how many bytes of memory c holds until its next message, a
// parked writer not counted: see Parked.
func (c *Compressor) Held() int { return cap(c.history.buf) }

// Close gives back what c holds, in the middle of a message too. It may be
// called again; c is of no more use.
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

// writer returns the writer of the message that is being made; at its start
// that is the one that was parked, or one from the pool.
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

// A class is what writers can be exchanged for each other: a level, or beyond
// that a window.
type class uint8

const (
	windowClass class = 16
	classes           = windowClass + MaxWindowBits
)

var writers [classes]sync.Pool

// A writer is what compressing takes, and the memory that it writes to.
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

// Write is io.Writer's, for flate.
func (w *writer) Write(p []byte) (int, error) {
	w.out = append(w.out, p...)
	return len(p), nil
}

// take returns what was written to and forgets it.
func (w *writer) take() []byte {
	out := w.out
	w.out = nil
	return out
}

// known returns h in one piece.
func (w *writer) known(h *history) []byte {
	n := h.read(w.dict[:], h.len())
	return w.dict[:n]
}

// must: flate fails only with what it writes to, and that cannot fail.
func (w *writer) must(err error) {
	if err != nil {
		panic(fmt.Sprintf("deflate: compressing failed: %v", err))
	}
}

func (w *writer) free() { writers[w.class].Put(w) }
