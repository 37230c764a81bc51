package compat

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/noria-go/noria/internal/friend"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
)

// tlsChunk is how much is encrypted for one look at the room: the largest
// record's payload.
const tlsChunk = 16 << 10

// room waits until the queue may grow. A write of nothing does just that, with
// the deadline.
func (c *TLSStream) room() error {
	if c.shut && !c.closed {
		return c.writeErr()
	}
	_, err := c.s.Write(nil)
	if err == nil {
		c.wire.answers = 0 // those that were queued have moved up
	}
	return err
}

func (c *TLSStream) writeErr() error {
	return &runtime.OpError{Op: "send", Handle: c.s.Handle(), Err: fmt.Errorf("CloseWrite was called: %w", runtime.ErrClosed)}
}

// beginWrite waits until no other write is half-way, so that the bytes of one
// stay together, and then until there is room. Without an error, endWrite is to
// follow.
//
// Deadlines and the end of the stream are for the one that is half-way to
// notice, which waits for nothing but room: it fails, the next one has its turn,
// and fails as well.
func (c *TLSStream) beginWrite() error {
	if c.writing {
		turn := &loop.Event{}
		c.turns = append(c.turns, turn)
		if err := turn.Wait(context.Background()); err != nil { // killed
			if turn.IsSet() {
				c.endWrite()
			} else {
				c.turns = slices.DeleteFunc(c.turns, func(e *loop.Event) bool { return e == turn })
			}
			return &runtime.OpError{Op: "send", Handle: c.s.Handle(), Err: errors.Unwrap(err)}
		}
	}
	c.writing = true
	c.free.Clear()
	if err := c.room(); err != nil {
		c.endWrite()
		return err
	}
	return nil
}

// endWrite hands the turn to whoever has waited longest.
func (c *TLSStream) endWrite() {
	c.midway = false
	if len(c.turns) > 0 {
		c.turns[0].Set()
		c.turns = slices.Delete(c.turns, 0, 1)
		return
	}
	c.writing = false
	c.free.Set()
}

// halfWay is why what never waits cannot write now.
func (c *TLSStream) halfWay() error {
	return &runtime.OpError{Op: "send", Handle: c.s.Handle(), Err: fmt.Errorf("%w: a Write is half-way", runtime.ErrBusy)}
}

// encrypt queues p, whatever room there is. It never waits.
func (c *TLSStream) encrypt(p []byte) (int, error) {
	n, err := c.conn.Write(p)
	if err != nil {
		err = &runtime.OpError{Op: "send", Handle: c.s.Handle(), Err: err}
	}
	return n, err
}

// Write is net.Conn's: it encrypts p into the queue, and waits while that is
// full. An error of sending shows in a later call.
func (c *TLSStream) Write(p []byte) (n int, err error) {
	if !c.Loop().Friend(friend.Key{}).OnLoop() {
		err = c.elsewhere("send", func() (err error) {
			n, err = c.Write(p)
			return err
		})
		return n, err
	}
	if err := c.beginWrite(); err != nil {
		return 0, err
	}
	defer c.endWrite()
	for n < len(p) {
		if err := c.room(); err != nil {
			return n, err
		}
		m, err := c.encrypt(p[n:min(len(p), n+tlsChunk)])
		c.midway = true
		n += m
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// WriteBuf is loop.Stream's: it encrypts bufs, in order and together, and
// takes them: also when it fails. It waits while the queue is full. Small
// buffers, such as a header and its payload, share a record.
func (c *TLSStream) WriteBuf(bufs ...*runtime.Buffer) error {
	if !c.Loop().Friend(friend.Key{}).OnLoop() {
		taken := false
		err := c.elsewhere("send", func() error {
			taken = true
			return c.WriteBuf(bufs...)
		})
		if !taken {
			runtime.Drop(bufs...)
		}
		return err
	}
	defer runtime.Drop(bufs...)
	if err := c.beginWrite(); err != nil {
		return err
	}
	defer c.endWrite()
	return c.encryptAll(bufs, c.room)
}

// TryWriteBuf is WriteBuf that never waits: without room it fails with
// ErrBusy, and then, or if the stream has failed, bufs stay the caller's. With
// room it takes all of them.
func (c *TLSStream) TryWriteBuf(bufs ...*runtime.Buffer) error {
	switch {
	case c.shut && !c.closed:
		return c.writeErr()
	case c.writing:
		return c.halfWay()
	}
	if err := c.s.TryWriteBuf(); err != nil {
		return err
	}
	if err := c.encryptAll(bufs, func() error { return nil }); err != nil {
		return err
	}
	runtime.Drop(bufs...)
	return nil
}

// encryptAll encrypts bufs, with a look at the room before each chunk.
func (c *TLSStream) encryptAll(bufs []*runtime.Buffer, room func() error) (err error) {
	for len(bufs) > 0 && err == nil {
		together := c.gather(bufs)
		if together > 1 {
			err = c.encryptTogether(bufs[:together], room)
		} else {
			err = c.encryptBytes(bufs[0].Bytes(), room)
		}
		bufs = bufs[together:]
	}
	return err
}

// gather returns how many of bufs fit into one record.
func (c *TLSStream) gather(bufs []*runtime.Buffer) (n int) {
	size := 0
	for n < len(bufs) && (n == 0 || size+bufs[n].Len() <= tlsChunk) {
		size += bufs[n].Len()
		n++
	}
	return n
}

func (c *TLSStream) encryptTogether(bufs []*runtime.Buffer, room func() error) error {
	b, err := c.Loop().Pool().Get(tlsChunk)
	if errors.Is(err, runtime.ErrNoBuffers) {
		for _, b := range bufs { // one by one, then
			if err := c.encryptBytes(b.Bytes(), room); err != nil {
				return err
			}
		}
		return nil
	}
	if err != nil {
		return err
	}
	defer b.Release()
	for _, part := range bufs {
		b.Append(part.Bytes())
	}
	return c.encryptBytes(b.Bytes(), room)
}

func (c *TLSStream) encryptBytes(p []byte, room func() error) error {
	for len(p) > 0 {
		if err := room(); err != nil {
			return err
		}
		n, err := c.encrypt(p[:min(len(p), tlsChunk)])
		c.midway = c.writing
		if err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// Writable returns the stream as a Source for loop.WaitAny: it has something
// when a write would not wait.
func (c *TLSStream) Writable() loop.Source { return loop.Both(&c.free, c.s.Writable()) }

// Queued returns how many bytes, encrypted, are not with the kernel yet.
func (c *TLSStream) Queued() int { return c.s.Queued() }

// Flush waits until the kernel has taken everything that was written, or
// returns why it will not.
func (c *TLSStream) Flush() error { return c.s.Flush() }

// CloseWrite says goodbye and waits until that is sent: the peer reads io.EOF.
// Reading goes on; the socket stays open in both directions, since reading may
// have to answer.
func (c *TLSStream) CloseWrite() error {
	if !c.Loop().Friend(friend.Key{}).OnLoop() {
		return c.elsewhere("shutdown", c.CloseWrite)
	}
	if err := c.beginWrite(); err != nil {
		return err
	}
	c.shut = true
	c.endWrite()
	if err := c.conn.CloseWrite(); err != nil {
		return &runtime.OpError{Op: "shutdown", Handle: c.s.Handle(), Err: err}
	}
	return c.Flush()
}
