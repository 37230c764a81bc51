package adapterbench

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/gobwas/ws"

	"github.com/noria-go/noria/compat"
	"github.com/noria-go/noria/internal/friend"
	"github.com/noria-go/noria/loop"
)

var key friend.Key // opens what only this module may call: see internal/friend

// A receiver receives one message into p and answers it.
type receiver interface {
	receive(p []byte) (int, error)
	counts() counts
	close() error
}

// counts are what a receiver has done since it was made. They are the counts of a sync
// stream; a receiver without one has copied bytes or has done nothing that is counted.
type counts struct {
	WouldBlock  int64 // calls of the library that returned ErrWouldBlock
	Fills       int64
	Flushes     int64
	Rollbacks   int64
	BytesCopied int64
	PeakBuffer  int // in bytes
}

func countsOf(ss *compat.SyncStream) counts { return counts(ss.Friend(key).Counts()) }

// A contender makes a receiver from a task's stream or, if it uses no loop, from a
// net.Conn.
type contender struct {
	name  string
	task  func(s *loop.Stream) (receiver, error)
	plain func(c net.Conn) receiver
}

var contenders = []contender{
	{name: "SyncStream 8 KiB", task: fixed(8 << 10)},
	{name: "SyncStream 1 MiB", task: fixed(1 << 20)},
	{name: "Growable linear 128 KiB", task: growable(128 << 10)},
	{name: "Growable doubling", task: growable(0)},
	{name: "task's stream", task: func(s *loop.Stream) (receiver, error) { return &streamReceiver{s: s}, nil }},
	{name: "net", plain: func(c net.Conn) receiver {
		return &connReceiver{r: bufio.NewReaderSize(c, 32<<10), w: c} // large reads bypass its buffer
	}},
}

func find(name string) (contender, error) {
	for _, c := range contenders {
		if c.name == name {
			return c, nil
		}
	}
	return contender{}, fmt.Errorf("no contender %q", name)
}

// answer is an empty binary frame.
var answer = ws.MustCompileFrame(ws.NewBinaryFrame(nil))

// readPayload reads the payload of h, as a library would.
func readPayload(r io.Reader, h ws.Header, p []byte) (int, error) {
	if h.Length > int64(len(p)) {
		return 0, fmt.Errorf("a message of %d bytes, want at most %d", h.Length, len(p))
	}
	n, err := io.ReadFull(r, p[:h.Length])
	if err != nil {
		return n, err
	}
	ws.Cipher(p[:n], h.Mask, 0)
	return n, nil
}

// fixed returns a contender that reads a header with rollback and the payload piece
// by piece, because the payload does not fit into the buffer.
func fixed(size int) func(s *loop.Stream) (receiver, error) {
	return func(s *loop.Stream) (receiver, error) {
		ss, err := compat.NewSyncStream(s, compat.Options{Size: size, Exact: true})
		return &fixedReceiver{ss}, err
	}
}

type fixedReceiver struct{ ss *compat.SyncStream }

func (f *fixedReceiver) counts() counts { return countsOf(f.ss) }
func (f *fixedReceiver) close() error   { return f.ss.Close() }

func (f *fixedReceiver) receive(p []byte) (int, error) {
	var h ws.Header
	if err := f.ss.Run(func(rw io.ReadWriter) (err error) {
		h, err = ws.ReadHeader(rw)
		return err
	}); err != nil {
		return 0, err
	}
	n, err := readPayload(retrying{f.ss}, h, p)
	if err != nil {
		return n, err
	}
	if _, err := f.ss.Write(answer); err != nil {
		return n, err
	}
	_, err = f.ss.FlushWriteBuf()
	return n, err
}

// retrying fills the stream and reads again after ErrWouldBlock. A reader that can
// stop anywhere needs no rollback.
type retrying struct{ ss *compat.SyncStream }

func (r retrying) Read(p []byte) (int, error) {
	n, err := r.ss.Read(p)
	if !errors.Is(err, compat.ErrWouldBlock) {
		return n, err
	}
	if _, err := r.ss.FillReadBuf(); err != nil {
		return 0, err
	}
	return r.ss.Read(p)
}

// growable returns a contender that reads the whole message in one call of the
// library. Its buffers grow by step bytes, or double if step is 0.
func growable(step int) func(s *loop.Stream) (receiver, error) {
	return func(s *loop.Stream) (receiver, error) {
		gs, err := compat.NewGrowableSyncStream(s, compat.Options{Max: maxMessage + ws.MaxHeaderSize, Exact: true})
		if err != nil {
			return nil, err
		}
		gs.Friend(key).GrowLinearly(step)
		return &growableReceiver{gs}, nil
	}
}

type growableReceiver struct{ gs *compat.GrowableSyncStream }

func (g *growableReceiver) counts() counts { return countsOf(&g.gs.SyncStream) }
func (g *growableReceiver) close() error   { return g.gs.Close() }

func (g *growableReceiver) receive(p []byte) (n int, err error) {
	err = g.gs.Run(func(rw io.ReadWriter) error {
		h, err := ws.ReadHeader(rw)
		if err != nil {
			return err
		}
		if err := g.gs.Want(int(h.Length)); err != nil {
			return err
		}
		if n, err = readPayload(rw, h, p); err != nil {
			return err
		}
		_, err = rw.Write(answer)
		return err
	})
	return n, err
}

// streamReceiver uses the library on a task's stream, which is a blocking net.Conn:
// no call returns ErrWouldBlock.
type streamReceiver struct {
	s     *loop.Stream
	bytes int64
}

func (r *streamReceiver) counts() counts {
	return counts{BytesCopied: r.bytes} // each byte is copied once, from the stream's buffers
}

func (r *streamReceiver) close() error { return r.s.Close() }

func (r *streamReceiver) receive(p []byte) (int, error) {
	h, err := ws.ReadHeader(r.s)
	if err != nil {
		return 0, err
	}
	n, err := readPayload(r.s, h, p)
	if err != nil {
		return n, err
	}
	r.bytes += int64(n)
	_, err = r.s.Write(answer)
	return n, err
}

// connReceiver uses the library on a net.Conn: the kernel copies into the user's
// memory.
type connReceiver struct {
	r *bufio.Reader
	w net.Conn
}

func (r *connReceiver) counts() counts { return counts{} }
func (r *connReceiver) close() error   { return r.w.Close() }

func (r *connReceiver) receive(p []byte) (int, error) {
	h, err := ws.ReadHeader(r.r)
	if err != nil {
		return 0, err
	}
	n, err := readPayload(r.r, h, p)
	if err != nil {
		return n, err
	}
	_, err = r.w.Write(answer)
	return n, err
}
