// Command redis is a key-value server that speaks the Redis protocol, by the
// parser of tidwall/redcon over the growable adapter. redis-cli and
// redis-benchmark can talk to it.
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
	"github.com/noria-go/noria/tcp"
)

// maxCommand is how large one command may be, in bytes.
const maxCommand = 64 << 20

func main() {
	address := flag.String("addr", "127.0.0.1:6380", "where to listen")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := serve(ctx, *address, growable, func(a net.Addr) { fmt.Printf("redis on %s\n", a) }); err != nil {
		log.Fatal(err)
	}
}

// An adapter lets the parser see what has arrived: compat has two.
type adapter interface {
	Split() (*compat.ReadHalf, *compat.WriteHalf)
	Take() (compat.Stream, error)
}

func growable(s compat.Stream) (adapter, error) {
	return compat.NewGrowableSyncStream(s, compat.Options{Max: maxCommand})
}

// serve answers commands until ctx ends.
func serve(ctx context.Context, address string, adapt func(compat.Stream) (adapter, error), ready func(net.Addr)) error {
	g, err := noria.Start()
	if err != nil {
		return err
	}
	ls, err := g.Listen(address, noria.ServeOptions{Spread: true})
	if err == nil {
		ready(ls.Addr())
		err = g.Serve(ctx, ls, &tcp.Server{Handler: newStore(adapt).handle})
	}
	return errors.Join(err, g.Stop())
}

// handle serves one connection, as a task. The parser takes bytes and says
// whether a command is complete; so the adapter's buffer is looked at, and what
// was parsed is discarded. Commands that arrived together are answered
// together.
func (st *store) handle(_ context.Context, c *tcp.Conn) error {
	ss, err := st.adapt(c)
	if err != nil {
		return err
	}
	defer func() { _, _ = ss.Take() }() // the server closes it
	in, out := ss.Split()
	s := session{store: st}
	for !s.quit {
		if _, err := in.FillReadBuf(); err != nil {
			if err == io.EOF && in.Buffered() == 0 {
				return nil
			}
			return err
		}
		err := s.commands(in)
		if werr := s.flush(out); err != nil || werr != nil {
			return errors.Join(err, werr)
		}
	}
	return nil
}

// A session is one connection's commands, and the answers to them.
type session struct {
	store *store
	args  [][]byte
	reply []byte
	quit  bool
}

// commands carries out each command that is complete.
func (s *session) commands(in *compat.ReadHalf) error {
	for !s.quit {
		packet := in.Peek()
		if len(packet) == 0 {
			return nil
		}
		complete, args, _, rest, err := redcon.ReadNextCommand(packet, s.args[:0])
		s.args = args
		if err != nil {
			s.reply = redcon.AppendError(s.reply, "ERR "+err.Error())
			return err
		}
		if !complete {
			return nil
		}
		if len(args) > 0 {
			s.do(args)
		}
		// Only now: the arguments lie in the buffer.
		if err := in.Discard(len(packet) - len(rest)); err != nil {
			return err
		}
	}
	return nil
}

// flush sends the answers.
func (s *session) flush(out *compat.WriteHalf) error {
	for p := s.reply; len(p) > 0; {
		n, err := out.Write(p)
		p = p[n:]
		if err != nil && !errors.Is(err, compat.ErrWouldBlock) {
			return err
		}
		if _, err := out.FlushWriteBuf(); err != nil {
			return err
		}
	}
	if s.reply = s.reply[:0]; cap(s.reply) > 64<<10 {
		s.reply = nil // what was large once need not stay
	}
	return nil
}
