package runtime

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

func newBuffer(t *testing.T, size int) *Buffer {
	t.Helper()
	p := NewPool(0)
	b, err := p.Get(size)
	require.NoError(t, err)
	return b
}

// panicText returns what f panics with.
func panicText(t *testing.T, f func()) (text string) {
	t.Helper()
	defer func() {
		v := recover()
		require.NotNil(t, v, "it did not panic")
		text = v.(string)
	}()
	f()
	return ""
}

func TestBufferRest(t *testing.T) {
	b := newBuffer(t, 512)
	b.Append([]byte("wheel"))
	require.Same(t, b, b.Friend(key).Rest(2))
	require.Equal(t, "eel", string(b.Bytes()))
	other := b.Retain()
	rest := b.Friend(key).Rest(1)
	require.Equal(t, "el", string(rest.Bytes()))
	require.Equal(t, "eel", string(other.Bytes()), "its other owner sees no change")
	require.False(t, other.Friend(key).Shared(), "b was released")
	require.Nil(t, rest.Friend(key).Rest(2))
	require.Nil(t, other.Friend(key).Rest(3))
	require.Zero(t, other.pool.Friend(key).Stats().Outstanding)
}

func TestBufferWindow(t *testing.T) {
	b := newBuffer(t, 512)
	b.Reset(10)
	require.Equal(t, 5, b.Append([]byte("world")))
	copy(b.Prepend(6), "hello ")
	require.Equal(t, "hello world", string(b.Bytes()))
	require.Equal(t, 4, b.Friend(key).Headroom())
	copy(b.Room(), "!")
	b.Extend(1)
	b.Advance(6)
	require.Equal(t, "world!", string(b.Bytes()))
	b.Truncate(5)
	require.Equal(t, "world", string(b.Bytes()))
	require.Equal(t, 512-10-5, b.Append(make([]byte, 1000)), "Append takes what fits")
	require.Empty(t, b.Room())
	require.Equal(t, 512, b.Friend(key).Cap())
	require.Equal(t, len(b.Bytes()), cap(b.Bytes()), "append to Bytes must not write into the room")
	b.Release()
}

func TestBufferLimits(t *testing.T) {
	for name, f := range map[string]func(b *Buffer){
		"Extend(513) of a buffer with room for 512": func(b *Buffer) { b.Extend(513) },
		"Extend(-1)": func(b *Buffer) { b.Extend(-1) },
		"Prepend(1) of a buffer with a headroom of 0":     func(b *Buffer) { b.Prepend(1) },
		"Advance(1) of a buffer of 0 bytes":               func(b *Buffer) { b.Advance(1) },
		"Truncate(1) of a buffer of 0 bytes":              func(b *Buffer) { b.Truncate(1) },
		"Reset(513) of a buffer of 512 bytes":             func(b *Buffer) { b.Reset(513) },
		"handed out while somebody owns it":               func(b *Buffer) { b.Hand(0, 0) },
		"send of a buffer that is in flight in write-at":  func(b *Buffer) { b.lend(OpWriteAt); b.lend(OpSend) },
		"recv: it belongs to the runtime until that comp": func(b *Buffer) { b.lend(OpRecv); b.lend(OpRecv) },
	} {
		t.Run(name, func(t *testing.T) {
			require.Contains(t, panicText(t, func() { f(newBuffer(t, 512)) }), name)
		})
	}
}

// TestBufferLent: touching a buffer while an operation has it panics, and the
// message names the operation.
func TestBufferLent(t *testing.T) {
	touches := map[string]func(b *Buffer){
		"Bytes":    func(b *Buffer) { b.Bytes() },
		"Len":      func(b *Buffer) { b.Len() },
		"Headroom": func(b *Buffer) { b.Friend(key).Headroom() },
		"Room":     func(b *Buffer) { b.Room() },
		"Extend":   func(b *Buffer) { b.Extend(0) },
		"Prepend":  func(b *Buffer) { b.Prepend(0) },
		"Advance":  func(b *Buffer) { b.Advance(0) },
		"Truncate": func(b *Buffer) { b.Truncate(0) },
		"Reset":    func(b *Buffer) { b.Reset(0) },
		"Append":   func(b *Buffer) { b.Append(nil) },
		"Release":  func(b *Buffer) { b.Release() },
	}
	for _, code := range []OpCode{OpRecv, OpSend, OpSendVec, OpReadAt, OpWriteAt} {
		for name, touch := range touches {
			t.Run(code.String()+"/"+name, func(t *testing.T) {
				b := newBuffer(t, 512)
				op := &Op{Code: code, Done: func(*Op) {}}
				if code == OpSendVec {
					op.Bufs = []*Buffer{b}
				} else {
					op.Buf = b
				}
				require.NoError(t, op.Begin())
				require.Contains(t, panicText(t, func() { touch(b) }), "in flight in "+code.String())
				op.Complete(0, 0, ErrCanceled)
				require.NotPanics(t, func() { touch(b) }, "it is its owner's again")
			})
		}
	}
}

func TestBufferReleased(t *testing.T) {
	b := newBuffer(t, 512)
	b.Release()
	require.Contains(t, panicText(t, func() { b.Bytes() }), "released")
	require.Contains(t, panicText(t, func() { b.Release() }), "Release of a buffer that was released")
	require.Contains(t, panicText(t, func() { b.Retain() }), "Retain of a buffer that was released")
	require.Contains(t, panicText(t, func() { b.lend(OpSend) }), "send of a buffer that was released")
}

func TestBufferShared(t *testing.T) {
	b := newBuffer(t, 512)
	b.Append([]byte("payload"))
	require.False(t, b.Friend(key).Shared())
	b.Retain()
	require.True(t, b.Friend(key).Shared())
	require.Contains(t, panicText(t, func() { b.Append([]byte("x")) }), "shared buffer cannot be changed")
	require.Contains(t, panicText(t, func() { b.lend(OpRecv) }), "shared")
	b.lend(OpSend)
	b.lend(OpSend) // the same payload, to two peers
	require.Equal(t, "payload", string(b.Bytes()), "reading is allowed")
	b.unlend()
	b.unlend()
	b.Release()
	b.Append([]byte("!")) // alone again
	require.Equal(t, "payload!", string(b.Bytes()))
	b.Release()
}

// TestBufferClaims: a stream's claim is lent like an operation's buffer, and there
// are no more claims than owners, whatever else is done with it.
func TestBufferClaims(t *testing.T) {
	b := newBuffer(t, 512)
	b.Friend(key).Claim(OpSend)
	require.Contains(t, panicText(t, func() { b.Bytes() }), "in flight in send")
	require.Contains(t, panicText(t, func() { b.Friend(key).Claim(OpSend) }), "it has 1 owners")
	require.Contains(t, panicText(t, func() { b.lend(OpSend) }), "in flight in send")
	require.Contains(t, panicText(t, func() { b.Release() }), "in flight in send")
	b.Retain()
	require.NotPanics(t, func() { b.Bytes() }, "there is another owner now")
	b.lend(OpWriteAt) // as an operation may, beside the send
	b.Friend(key).Disclaim()
	require.Contains(t, panicText(t, func() { b.Release() }), "in flight in write-at")
	require.Contains(t, panicText(t, func() { b.Friend(key).Claim(OpSend) }), "in flight in write-at")
	b.unlend()
	b.Friend(key).Claim(OpSend)
	b.Friend(key).Disclaim() // the last owner's
	require.Zero(t, b.pool.Friend(key).Stats().Outstanding)
	require.Contains(t, panicText(t, func() { b.Friend(key).Claim(OpSend) }), "released")
	b = newBuffer(t, 512) // one that a stream has made for itself
	b.Friend(key).Disclaim()
	require.Zero(t, b.pool.Friend(key).Stats().Outstanding)
}

// TestBufferClaimsFromManyThreads: the counts hold together.
func TestBufferClaimsFromManyThreads(t *testing.T) {
	b := NewShared([]byte("everywhere"))
	var wg sync.WaitGroup
	for range 8 {
		b.Retain()
		wg.Go(func() {
			for range 1000 {
				b.Retain().Friend(key).Claim(OpSend)
				b.Friend(key).Disclaim()
			}
			b.Release()
		})
	}
	wg.Wait()
	require.Equal(t, oneOwner, b.state.Load())
	b.state.Store(maxCount - 1)
	require.Contains(t, panicText(t, func() { b.Retain() }), "owners already")
}

func TestNewShared(t *testing.T) {
	b := NewShared([]byte("everywhere"))
	require.True(t, b.Friend(key).Shared())
	require.Nil(t, b.Friend(key).Home())
	require.Contains(t, panicText(t, func() { b.Reset(0) }), "shared")
	var wg sync.WaitGroup
	for range 8 {
		b.Retain()
		wg.Go(func() {
			for range 100 {
				b.Retain()
				b.lend(OpSend)
				require.Equal(t, 10, b.Len())
				b.unlend()
				b.Release()
			}
			b.Release()
		})
	}
	wg.Wait()
	b.Release()
	require.Contains(t, panicText(t, func() { b.Bytes() }), "released")
}

func TestBufferExchange(t *testing.T) {
	p := NewPool(0)
	get := func(size int) *Buffer {
		b, err := p.Get(size)
		require.NoError(t, err)
		return b
	}
	b, c := get(4096), get(512)
	b.Reset(100)
	b.Append([]byte("held"))
	b.lend(OpSend) // an operation has it and must not notice
	require.True(t, b.Friend(key).Exchange(c, 32))
	require.Equal(t, 512, b.Friend(key).Cap())
	require.Equal(t, 4096, c.Friend(key).Cap())
	c.Release()
	b.unlend()
	require.Equal(t, "held", string(b.Bytes()))
	require.Equal(t, 32, b.Friend(key).Headroom())

	small := get(512)
	large := get(4096)
	large.Append(make([]byte, 513))
	require.False(t, large.Friend(key).Exchange(small, 0), "it does not fit")
	b.Retain()
	require.False(t, b.Friend(key).Exchange(small, 0), "another owner could see it move")
	b.Release()
	require.False(t, NewShared([]byte("x")).Friend(key).Exchange(small, 0))
	b.Release()
	small.Release()
	large.Release()
	require.NoError(t, p.Close())
}
