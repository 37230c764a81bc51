// Command redis is a key-value server that speaks the Redis protocol, on the parser of
// tidwall/redcon over the growable sync stream. redis-cli and redis-benchmark can talk
// to it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"os/signal"
	"syscall"

	"github.com/tidwall/redcon"

	"github.com/noria-go/noria"
	"github.com/noria-go/noria/compat"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/tcp"
)

const (
	// maxCommand limits one command, in bytes.
	maxCommand = 64 << 20

	// maxReply is how many bytes of answers are collected before they are sent and the
	// task waits for the peer: a few bytes of GET can ask for very many. A single value
	// may exceed it.
	maxReply = 256 << 10
)

func main() {
	address := flag.String("addr", "127.0.0.1:6380", "where to listen")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := serve(ctx, *address, growable, func(a net.Addr) { fmt.Printf("redis on %s\n", a) }); err != nil {
		log.Fatal(err)
	}
}

// An adapter lets the parser look at the received bytes: compat has two.
type adapter interface {
	Split() (*compat.ReadHalf, *compat.WriteHalf)
	Take() (*loop.Stream, error)
}

func growable(s *loop.Stream) (adapter, error) {
	return compat.NewGrowableSyncStream(s, compat.Options{Max: maxCommand})
}

// serve answers commands until ctx ends.
func serve(ctx context.Context, address string, adapt func(*loop.Stream) (adapter, error), ready func(net.Addr)) error {
	g, err := noria.Start(noria.Options{})
	if err != nil {
		return err
	}
	ls, err := g.Listen(address, loop.ListenOptions{Spread: true})
	if err == nil {
		ready(ls.Addr())
		err = g.Serve(ctx, ls, &tcp.Server{Handler: newStore(adapt).handle})
	}
	return errors.Join(err, g.Stop())
}

// handle serves one connection, as a task. The parser takes bytes and says whether a
// command is complete. So handle gives it the adapter's buffer and discards what was
// parsed. Commands that arrived together are answered together, up to maxReply.
func (st *store) handle(_ context.Context, c *loop.Stream) error {
	ss, err := st.adapt(c)
	if err != nil {
		return err
	}
	defer func() { _, _ = ss.Take() }() // the server closes the stream
	in, out := ss.Split()
	s := session{store: st, out: out}
	for !s.quit {
		if _, err := in.FillReadBuf(); err != nil {
			if err == io.EOF && in.Buffered() == 0 {
				return nil
			}
			return err
		}
		s.commands(in)
		s.flush()
		if s.err != nil {
			return s.err
		}
		if cap(s.reply) > 64<<10 {
			s.reply = nil // do not keep a large buffer
		}
	}
	return nil
}

// A session is one connection's commands and their answers.
type session struct {
	store *store
	out   *compat.WriteHalf
	args  [][]byte
	reply []byte
	quit  bool
	err   error // why the connection ends
}

// commands carries out each complete command.
func (s *session) commands(in *compat.ReadHalf) {
	for !s.quit && s.err == nil {
		packet := in.Peek()
		if len(packet) == 0 {
			return
		}
		complete, args, _, rest, err := redcon.ReadNextCommand(packet, s.args[:0])
		s.args = args
		if err != nil {
			s.reply = redcon.AppendError(s.reply, "ERR "+err.Error())
			s.err = err
			return
		}
		if !complete {
			return
		}
		if len(args) > 0 {
			s.do(args)
		}
		// Only now, because the arguments lie in the buffer.
		if err := in.Discard(len(packet) - len(rest)); err != nil {
			s.err = errors.Join(s.err, err)
		}
		s.limit()
	}
}

// limit sends the answers so far if they exceed maxReply.
func (s *session) limit() {
	if len(s.reply) >= maxReply {
		s.flush()
	}
}

// flush sends the answers, and waits while the peer does not read them.
func (s *session) flush() { s.err = errors.Join(s.err, s.send()) }

func (s *session) send() error {
	p := s.reply
	s.reply = s.reply[:0]
	for len(p) > 0 {
		n, err := s.out.Write(p)
		p = p[n:]
		if err != nil && !errors.Is(err, compat.ErrWouldBlock) {
			return err
		}
		if _, err := s.out.FlushWriteBuf(); err != nil {
			return err
		}
	}
	return nil
}
