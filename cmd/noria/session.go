package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
	"unicode/utf8"

	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
	"github.com/noria-go/noria/ws"
)

// A session is one open connection and what the flags ask it to do.
type session struct {
	*connectConfig
	conn       *ws.Conn
	out, notes io.Writer
	terminal   bool // out is a terminal
}

// run does what the flags ask until that is done, the connection ends, or ctx ends.
// Only then does it close the connection: by then no task receives, so the messages
// that Close waits for are left to Close.
func (s *session) run(parent context.Context, in io.Reader) error {
	ctx, stop := context.WithCancelCause(parent)
	input, over := context.WithCancel(ctx) // until there is nothing more to send
	defer over()
	received := make(chan error, 1)
	go func() {
		defer stop(errOver)
		received <- s.receive(ctx, input)
	}()
	err := s.act(ctx, in, over)
	stop(nil)
	rerr := <-received
	code := ws.StatusNormalClosure
	if parent.Err() != nil {
		code = ws.StatusGoingAway
	}
	return errors.Join(s.close(code), unlessOver(rerr), unlessOver(err))
}

// errOver ends a session in order: the connection has ended, --count messages have
// arrived, or none has arrived for --wait.
var errOver = errors.New("the connection has ended")

// unlessOver returns err, or nil if err only says that the session or the connection
// has ended. How the connection ended is reported once, by close.
func unlessOver(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, runtime.ErrCanceled) || ws.CloseStatus(err) != 0 {
		return nil
	}
	return err
}

// close closes the connection and says how it ended. The error is nil if it ended in
// order.
func (s *session) close(code ws.StatusCode) error {
	cerr := s.conn.Close(code, "")
	for {
		m, err := s.conn.Receive(context.Background())
		if err == nil {
			m.Release() // received while a ping waited
			continue
		}
		switch ws.CloseStatus(err) {
		case ws.StatusNormalClosure, ws.StatusGoingAway, ws.StatusNoStatus:
			fmt.Fprintln(s.notes, err)
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return cmp.Or(cerr, fmt.Errorf("the server did not answer the Close frame within %v", ws.DefaultCloseTimeout))
		}
		return err
	}
}

// act does what the flags ask, and calls over when the input has ended. The end of ctx
// ends act.
func (s *session) act(ctx context.Context, in io.Reader, over func()) error {
	switch {
	case s.pings > 0:
		return s.ping(ctx)
	case s.once:
		return s.sendOne(ctx)
	}
	done := make(chan error, 1)
	go func() { done <- s.copyIn(ctx, in) }() // a read of the terminal may never return
	select {
	case err := <-done:
		over()
		<-ctx.Done() // receive what is still in flight, also after an error
		return err
	case <-ctx.Done():
		return nil
	}
}

const maxBatch = 64 << 10 // bytes of messages that are printed at once

// receive prints messages, up to --count of them if that is set, until none has arrived
// for --wait after the end of the input. It is a task of the loop. To print it leaves
// the loop, once for all messages that have arrived.
func (s *session) receive(ctx, input context.Context) error {
	return s.conn.Loop().Call(ctx, "receive", func(ctx context.Context) error {
		sending, stop := context.WithCancel(ctx) // a task can only wait with its own context
		defer stop()
		defer context.AfterFunc(input, stop)()
		var batch []*ws.Message
		for n := 0; s.count == 0 || n < s.count; n += len(batch) {
			m, err := s.next(ctx, sending)
			if m == nil {
				return err
			}
			batch = batch[:0]
			for size := 0; m != nil; m, _ = s.conn.TryReceive() { // the next call reports an error again
				batch = append(batch, m)
				if size += m.Len(); size >= maxBatch || n+len(batch) == s.count {
					break
				}
			}
			oerr := loop.Offload(ctx, func() { err = s.printAll(batch) })
			for _, m := range batch {
				m.Release()
			}
			if err = cmp.Or(oerr, err); err != nil {
				return err
			}
		}
		return nil
	})
}

// next returns the next message. It returns nil and no error if none has arrived for
// --wait after the end of sending. It measures only the time in which it waits itself:
// printing may take long, and messages may arrive meanwhile.
func (s *session) next(ctx, sending context.Context) (*ws.Message, error) {
	m, err := s.conn.Receive(sending)
	if m != nil || sending.Err() == nil || ctx.Err() != nil {
		return m, err
	}
	silence, stop := context.WithTimeout(ctx, s.wait)
	defer stop()
	m, err = s.conn.Receive(silence)
	if errors.Is(err, context.DeadlineExceeded) {
		return nil, nil
	}
	return m, err
}

func (s *session) printAll(batch []*ws.Message) error {
	w := bufio.NewWriterSize(s.out, maxBatch)
	for _, m := range batch {
		if err := s.print(w, m); err != nil {
			return err
		}
	}
	return w.Flush()
}

func (s *session) print(w io.Writer, m *ws.Message) error {
	if s.binary {
		_, err := w.Write(m.Bytes())
		return err
	}
	if m.Type() == ws.TypeText {
		text := string(m.Bytes())
		if s.terminal {
			text = escape(text, "\t")
		}
		_, err := fmt.Fprintln(w, text)
		return err
	}
	_, err := fmt.Fprintf(w, "binary, %d bytes\n%s", m.Len(), hex.Dump(m.Bytes()))
	return err
}

// sendOne sends the one message and waits until its answer has been received.
func (s *session) sendOne(ctx context.Context) error {
	if err := s.send(ctx, []byte(s.message)); err != nil {
		return err
	}
	timeout := time.NewTimer(s.timeout)
	defer timeout.Stop()
	select {
	case <-ctx.Done():
		return nil
	case <-timeout.C:
		return fmt.Errorf("no answer within %v (--timeout)", s.timeout)
	}
}

func (s *session) send(ctx context.Context, p []byte) error {
	if s.binary {
		return s.conn.SendBinary(ctx, p)
	}
	return s.conn.SendText(ctx, string(p))
}

const maxPiece = 32 << 10 // bytes of a message with --binary

// copyIn sends the input until the input ends.
func (s *session) copyIn(ctx context.Context, in io.Reader) error {
	if s.binary {
		p := make([]byte, maxPiece)
		for {
			n, err := in.Read(p)
			if n > 0 {
				if err := s.send(ctx, p[:n]); err != nil {
					return err
				}
			}
			if err == io.EOF {
				return nil
			}
			if err != nil {
				return err
			}
		}
	}
	lines := bufio.NewReader(in)
	for n := 1; ; n++ {
		line, err := lines.ReadBytes('\n')
		if !utf8.Valid(line) {
			return fmt.Errorf("line %d of the input is not UTF-8: --binary sends bytes as they are", n)
		}
		if len(line) > 0 {
			if err := s.send(ctx, bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// ping sends the pings and ends with a summary, however the pings ended. A signal is
// not an error.
func (s *session) ping(ctx context.Context) error {
	var (
		n                int
		least, most, sum time.Duration
		err              error
	)
	for ; n < s.pings; n++ {
		var d time.Duration
		if d, err = s.pingOnce(ctx, n > 0); err != nil {
			break
		}
		fmt.Fprintf(s.out, "pong %d: %v\n", n+1, d.Round(time.Microsecond))
		if n == 0 {
			least = d
		}
		least, most, sum = min(least, d), max(most, d), sum+d
	}
	if n > 0 {
		fmt.Fprintf(s.out, "%d pings: least %v, mean %v, most %v\n", n, least.Round(time.Microsecond),
			(sum / time.Duration(n)).Round(time.Microsecond), most.Round(time.Microsecond))
	}
	switch {
	case err == nil, errors.Is(context.Cause(ctx), context.Canceled):
		return nil
	case ctx.Err() != nil, ws.CloseStatus(err) != 0: // a signal, or the server's Close frame
		err = errOver
	}
	return fmt.Errorf("ping %d: %w", n+1, err)
}

// pingOnce pings, after --every if wait is set.
func (s *session) pingOnce(ctx context.Context, wait bool) (time.Duration, error) {
	if wait {
		every := time.NewTimer(s.every)
		defer every.Stop()
		select {
		case <-every.C:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	pctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	d, err := s.conn.Ping(pctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("no pong within %v (--timeout)", s.timeout)
	}
	return d, err
}
