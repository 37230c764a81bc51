package compat_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/internal/tlstest"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
	"github.com/noria-go/noria/tcp"
)

// The tests of golang.org/x/net/nettest with tasks in place of goroutines: one function for
// each of its subtests, with the same name. Both ends are streams of the same loop.

var longAgo = time.Unix(233431200, 0)

// A crew is a group of tasks and their errors.
type crew struct {
	ctx   context.Context
	tasks []*loop.Task
	errs  []error
}

func (c *crew) run(name string, f func(ctx context.Context) error) {
	t, err := loop.Go(c.ctx, name, f)
	if err != nil {
		c.errs = append(c.errs, err)
		return
	}
	c.tasks = append(c.tasks, t)
}

// wait waits for all tasks and returns their errors.
func (c *crew) wait() error {
	for _, t := range c.tasks {
		c.errs = append(c.errs, t.Wait(c.ctx))
	}
	c.tasks = nil
	return errors.Join(c.errs...)
}

// background starts a task that ends with the connection and whose result does not matter.
func background(ctx context.Context, f func() error) error {
	_, err := loop.Go(ctx, "background", func(context.Context) error { return f() })
	return err
}

// streamPair returns two streams of the calling task's loop that are each
// other's peer.
func streamPair(ctx context.Context) (*loop.Stream, *loop.Stream, error) {
	lp := loop.TaskOf(ctx).Loop()
	ln, err := lp.Friend(key).Listen(runtime.Addr{AddrPort: netip.MustParseAddrPort("127.0.0.1:0")}, runtime.ListenOptions{}, loop.StreamOptions{})
	if err != nil {
		return nil, nil, err
	}
	c1, err := lp.Friend(key).Dial(ctx, ln.Addr().String(), loop.DialOptions{})
	if err != nil {
		return nil, nil, errors.Join(err, ln.Close())
	}
	c2, err := ln.Accept(ctx)
	return c1, c2, errors.Join(err, ln.Close())
}

func tlsPair(ctx context.Context) (c1, c2 *loop.Stream, err error) {
	c1, c2, err = streamPair(ctx)
	if err != nil {
		return nil, nil, err
	}
	server, client := tlstest.Configs()
	cr := &crew{ctx: ctx}
	cr.run("client", func(ctx context.Context) error { return tcp.StartTLSClient(ctx, c1, client) })
	cr.run("server", func(ctx context.Context) error { return tcp.StartTLSServer(ctx, c2, server) })
	return c1, c2, cr.wait()
}

var taskTests = map[string]func(ctx context.Context, c1, c2 net.Conn) error{
	"BasicIO": taskBasicIO, "PingPong": taskPingPong, "RacyRead": taskRacyRead, "RacyWrite": taskRacyWrite,
	"ReadTimeout": taskReadTimeout, "WriteTimeout": taskWriteTimeout, "PastTimeout": taskPastTimeout,
	"PresentTimeout": taskPresentTimeout, "FutureTimeout": taskFutureTimeout, "CloseTimeout": taskCloseTimeout,
	"ConcurrentMethods": taskConcurrentMethods,
}

func TestNettestWithTasks(t *testing.T) {
	pairs := map[string]func(ctx context.Context) (net.Conn, net.Conn, error){
		"stream": func(ctx context.Context) (net.Conn, net.Conn, error) { return streamPair(ctx) },
		"tls":    func(ctx context.Context) (net.Conn, net.Conn, error) { return tlsPair(ctx) },
	}
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		for kind, pair := range pairs {
			for name, test := range taskTests {
				t.Run(kind+"/"+name, func(t *testing.T) {
					g := backendtest.Group(t, v, 1)
					if err := backendtest.Run(t, g, func(ctx context.Context) error {
						c1, c2, err := pair(ctx)
						if err != nil {
							return err
						}
						err = test(ctx, c1, c2)
						// c2 does not read, so Close of c1 would wait for it if it came first.
						for _, c := range []net.Conn{c2, c1} {
							_ = c.SetDeadline(time.Time{})
							_ = c.Close() // some tests close themselves
						}
						return err
					}); err != nil {
						t.Error(err)
					}
				})
			}
		}
	})
}

func taskBasicIO(ctx context.Context, c1, c2 net.Conn) error {
	want := backendtest.RandomBytes(mathrand.New(mathrand.NewPCG(0, 0)), 1<<20)
	cr := &crew{ctx: ctx}
	cr.run("writer", func(context.Context) error {
		return errors.Join(chunkedCopy(c1, bytes.NewReader(want)), c1.Close())
	})
	var got bytes.Buffer
	cr.run("reader", func(context.Context) error {
		return errors.Join(chunkedCopy(&got, c2), c2.Close())
	})
	err := cr.wait()
	if !bytes.Equal(got.Bytes(), want) {
		err = errors.Join(err, errors.New("transmitted data differs"))
	}
	return err
}

func taskPingPong(ctx context.Context, c1, c2 net.Conn) error {
	cr := &crew{ctx: ctx}
	for _, c := range []net.Conn{c1, c2} {
		cr.run("ping pong", func(context.Context) error { return errors.Join(pingPonger(c), c.Close()) })
	}
	_, err := c1.Write(make([]byte, 8))
	return errors.Join(err, cr.wait())
}

func pingPonger(c net.Conn) error {
	buf := make([]byte, 8)
	var prev uint64
	for {
		if _, err := io.ReadFull(c, buf); err != nil {
			if err == io.EOF {
				return nil
			}
			return err
		}
		v := binary.LittleEndian.Uint64(buf)
		binary.LittleEndian.PutUint64(buf, v+1)
		if prev != 0 && prev+2 != v {
			return fmt.Errorf("got %d, want %d", v, prev+2)
		}
		prev = v
		if v == 1000 {
			return nil
		}
		if _, err := c.Write(buf); err != nil {
			return err
		}
	}
}

func taskRacyRead(ctx context.Context, c1, c2 net.Conn) error {
	if err := background(ctx, func() error { return chunkedCopy(c2, randomReader{}) }); err != nil {
		return err
	}
	return racy(ctx, c1.Read, c1.SetReadDeadline)
}

func taskRacyWrite(ctx context.Context, c1, c2 net.Conn) error {
	if err := background(ctx, func() error { return chunkedCopy(io.Discard, c2) }); err != nil {
		return err
	}
	return racy(ctx, c1.Write, c1.SetWriteDeadline)
}

// racy has ten tasks change a buffer as soon as a call with it has returned.
func racy(ctx context.Context, call func([]byte) (int, error), setDeadline func(time.Time) error) error {
	if err := setDeadline(time.Now().Add(time.Millisecond)); err != nil {
		return err
	}
	cr := &crew{ctx: ctx}
	for range 10 {
		cr.run("racy", func(context.Context) error {
			b1, b2 := make([]byte, 1024), make([]byte, 1024)
			for range 100 {
				_, err := call(b1)
				copy(b1, b2)
				if err != nil {
					if err := errors.Join(wantTimeout(err), setDeadline(time.Now().Add(time.Millisecond))); err != nil {
						return err
					}
				}
			}
			return nil
		})
	}
	return cr.wait()
}

func taskReadTimeout(ctx context.Context, c1, c2 net.Conn) error {
	if err := background(ctx, func() error { return chunkedCopy(io.Discard, c2) }); err != nil {
		return err
	}
	serr := c1.SetReadDeadline(longAgo)
	_, rerr := c1.Read(make([]byte, 1024))
	_, werr := c1.Write(make([]byte, 1024))
	return errors.Join(serr, wantTimeout(rerr), werr)
}

func taskWriteTimeout(ctx context.Context, c1, c2 net.Conn) error {
	if err := background(ctx, func() error { return chunkedCopy(c2, randomReader{}) }); err != nil {
		return err
	}
	serr := c1.SetWriteDeadline(longAgo)
	_, werr := c1.Write(make([]byte, 1024))
	_, rerr := c1.Read(make([]byte, 1024))
	return errors.Join(serr, wantTimeout(werr), rerr)
}

func taskPastTimeout(ctx context.Context, c1, c2 net.Conn) error {
	if err := background(ctx, func() error { return chunkedCopy(c2, c2) }); err != nil {
		return err
	}
	if err := roundTrip(c1); err != nil {
		return err
	}
	if err := c1.SetDeadline(longAgo); err != nil {
		return err
	}
	wn, werr := c1.Write(make([]byte, 1024))
	rn, rerr := c1.Read(make([]byte, 1024))
	if wn != 0 || rn != 0 {
		return fmt.Errorf("%d written, %d read", wn, rn)
	}
	return errors.Join(wantTimeout(werr), wantTimeout(rerr), roundTrip(c1))
}

func taskPresentTimeout(ctx context.Context, c1, _ net.Conn) error {
	cr := &crew{ctx: ctx}
	set, written := false, 0
	cr.run("deadline", func(ctx context.Context) error {
		err := standsStill(ctx, &written) // then both wait
		set = true
		return errors.Join(err, c1.SetReadDeadline(longAgo), c1.SetWriteDeadline(longAgo))
	})
	cr.run("reader", func(context.Context) error {
		n, err := c1.Read(make([]byte, 1024))
		if n != 0 || !set {
			return fmt.Errorf("%d bytes read, deadline set: %t, %w", n, set, err)
		}
		return wantTimeout(err)
	})
	cr.run("writer", func(context.Context) error {
		err := writeUntilError(c1, &written)
		if !set {
			return fmt.Errorf("before the deadline was set: %w", err)
		}
		return wantTimeout(err)
	})
	return cr.wait()
}

func taskFutureTimeout(ctx context.Context, c1, c2 net.Conn) error {
	if err := c1.SetDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		return err
	}
	cr := &crew{ctx: ctx}
	cr.run("reader", func(context.Context) error {
		_, err := c1.Read(make([]byte, 1024))
		return wantTimeout(err)
	})
	cr.run("writer", func(context.Context) error { return wantTimeout(writeUntilError(c1, new(int))) })
	if err := cr.wait(); err != nil {
		return err
	}
	if err := background(ctx, func() error { return chunkedCopy(c2, c2) }); err != nil {
		return err
	}
	return errors.Join(resync(ctx, c1), roundTrip(c1))
}

func taskCloseTimeout(ctx context.Context, c1, c2 net.Conn) error {
	if err := background(ctx, func() error { return chunkedCopy(c2, c2) }); err != nil {
		return err
	}
	if err := c1.SetDeadline(time.Time{}); err != nil {
		return err
	}
	cr := &crew{ctx: ctx}
	written := 0
	cr.run("closer", func(ctx context.Context) error {
		var err error
		for written < 200 && err == nil { // in the midst of it
			err = loop.Yield(ctx)
		}
		_ = c1.Close() // the peer may be stuck too: what is queued need not arrive
		return err
	})
	cr.run("reader", func(context.Context) error {
		var err error
		for buf := make([]byte, 1024); err == nil; {
			_, err = c1.Read(buf)
		}
		return nil
	})
	cr.run("writer", func(context.Context) error {
		_ = writeUntilError(c1, &written)
		return nil
	})
	return cr.wait()
}

func taskConcurrentMethods(ctx context.Context, c1, c2 net.Conn) error {
	if err := background(ctx, func() error { return chunkedCopy(c2, c2) }); err != nil {
		return err
	}
	cr := &crew{ctx: ctx}
	for range 100 {
		for _, f := range []func(){
			func() { _, _ = c1.Read(make([]byte, 1024)) },
			func() { _, _ = c1.Write(make([]byte, 1024)) },
			func() { _ = c1.SetDeadline(time.Now().Add(10 * time.Millisecond)) },
			func() { _ = c1.SetReadDeadline(longAgo) },
			func() { _ = c1.SetWriteDeadline(longAgo) },
			func() { c1.LocalAddr() },
			func() { c1.RemoteAddr() },
		} {
			cr.run("method", func(context.Context) error { f(); return nil })
		}
	}
	return errors.Join(cr.wait(), resync(ctx, c1), roundTrip(c1))
}

// writeUntilError writes until that fails, and counts KiB in n.
func writeUntilError(c net.Conn, n *int) (err error) {
	for err == nil {
		_, err = c.Write(make([]byte, 1024))
		*n++
	}
	return err
}

// standsStill waits until n has not changed for a hundred turns of the loop.
func standsStill(ctx context.Context, n *int) error {
	for before, turns := -1, 0; turns < 100; turns++ {
		if *n != before {
			before, turns = *n, 0
		}
		if err := loop.Yield(ctx); err != nil {
			return err
		}
	}
	return nil
}

func wantTimeout(err error) error {
	if nerr, ok := err.(net.Error); !ok || !nerr.Timeout() {
		return fmt.Errorf("got %T: %v, want a net.Error that is a timeout", err, err)
	}
	return nil
}

func roundTrip(c net.Conn) error {
	const s = "Hello, world!"
	serr := c.SetDeadline(time.Time{})
	_, werr := io.WriteString(c, s)
	buf := make([]byte, len(s))
	_, rerr := io.ReadFull(c, buf)
	if string(buf) != s {
		rerr = errors.Join(rerr, fmt.Errorf("round trip: got %q", buf))
	}
	return errors.Join(serr, werr, rerr)
}

// resync writes a mark and reads until the echo of the mark.
func resync(ctx context.Context, c net.Conn) error {
	if err := c.SetDeadline(time.Time{}); err != nil {
		return err
	}
	cr := &crew{ctx: ctx}
	cr.run("mark", func(context.Context) error {
		_, err := c.Write([]byte{0xff})
		return err
	})
	for buf := make([]byte, 1024); ; {
		n, err := c.Read(buf)
		if n > 0 && bytes.IndexByte(buf[:n], 0xff) == n-1 {
			return cr.wait()
		}
		if err != nil {
			return errors.Join(err, cr.wait())
		}
	}
}

// randomReader never ends, and has no 0xff.
type randomReader struct{}

func (randomReader) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(mathrand.Uint32() % 255)
	}
	return len(p), nil
}

func chunkedCopy(w io.Writer, r io.Reader) error {
	_, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{r}, make([]byte, 1024))
	return err
}
