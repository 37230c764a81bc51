package tlslayer_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/internal/tlstest"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
)

// A sealer makes the TLS 1.3 records of a client by hand, because crypto/tls never asks
// for a key update. See RFC 8446, sections 5.2, 7.2 and 7.3.
type sealer struct {
	secret []byte
	seq    uint64
	aead   cipher.AEAD
	iv     []byte
}

// newSealer takes the client's secret from the key log of crypto/tls.
func newSealer(t *testing.T, state tls.ConnectionState, keyLog string) *sealer {
	t.Helper()
	require.Equal(t, uint16(tls.TLS_AES_128_GCM_SHA256), state.CipherSuite, "this test speaks one suite only, which every machine with AES instructions chooses")
	for line := range strings.Lines(keyLog) {
		if f := strings.Fields(line); f[0] == "CLIENT_TRAFFIC_SECRET_0" {
			secret, err := hex.DecodeString(f[2])
			require.NoError(t, err)
			s := &sealer{secret: secret}
			s.setKeys()
			return s
		}
	}
	require.FailNow(t, "no secret was logged")
	return nil
}

func expandLabel(secret []byte, label string, n int) []byte {
	info := binary.BigEndian.AppendUint16(nil, uint16(n))
	info = append(info, byte(len("tls13 "+label)))
	info = append(info, "tls13 "+label...)
	info = append(info, 0)
	out, err := hkdf.Expand(sha256.New, secret, string(info), n)
	if err != nil {
		panic(err)
	}
	return out
}

func (s *sealer) setKeys() {
	block, err := aes.NewCipher(expandLabel(s.secret, "key", 16))
	if err != nil {
		panic(err)
	}
	if s.aead, err = cipher.NewGCM(block); err != nil {
		panic(err)
	}
	s.iv, s.seq = expandLabel(s.secret, "iv", 12), 0
}

// record seals p as one record of this content type.
func (s *sealer) record(content byte, payload []byte) []byte {
	inner := append(bytes.Clone(payload), content)
	head := binary.BigEndian.AppendUint16([]byte{23, 3, 3}, uint16(len(inner)+s.aead.Overhead()))
	nonce := bytes.Clone(s.iv)
	seq := binary.BigEndian.AppendUint64(nil, s.seq)
	for i, b := range seq {
		nonce[4+i] ^= b
	}
	s.seq++
	return s.aead.Seal(head, nonce, inner, head)
}

func (s *sealer) data(p string) []byte { return s.record(23, []byte(p)) }

// keyUpdate returns a key update that asks for an answer.
func (s *sealer) keyUpdate() []byte { return s.update(1) }

// update returns a key update, which asks for an answer if ask is 1.
func (s *sealer) update(ask byte) []byte {
	r := s.record(22, []byte{24, 0, 0, 1, ask})
	s.secret = expandLabel(s.secret, "traffic upd", sha256.Size)
	s.setKeys()
	return r
}

// flood returns as many key updates as crypto/tls allows, and then a byte, after which it
// allows as many again.
func (s *sealer) flood() (p []byte) {
	for range 16 {
		p = append(p, s.keyUpdate()...)
	}
	return append(p, s.data("x")...)
}

// quietFlood is flood without answers.
func (s *sealer) quietFlood() (p []byte) {
	for range 16 {
		p = append(p, s.update(0)...)
	}
	return append(p, s.data("x")...)
}

// withTLSAttacker is tlstest.WithPeer with a sealer that forges the peer's records.
func withTLSAttacker(t *testing.T, g *loop.Group, f func(ctx context.Context, c *loop.Stream, peer *tls.Conn, raw net.Conn, s *sealer) error) {
	t.Helper()
	var keyLog bytes.Buffer
	_, config := tlstest.Configs()
	config = config.Clone()
	config.KeyLogWriter = &keyLog
	tlstest.WithPeer(t, g, config, func(ctx context.Context, c *loop.Stream, peer *tls.Conn, raw net.Conn) error {
		return f(ctx, c, peer, raw, newSealer(t, peer.ConnectionState(), keyLog.String()))
	})
}

// stuckWriter starts a task that writes to a peer that does not read. It returns when that
// task is suspended in the middle of a write.
func stuckWriter(ctx context.Context, c *loop.Stream) (*loop.Task, error) {
	written := 0
	w, err := loop.Go(ctx, "writer", func(context.Context) error {
		p := make([]byte, 100_000)
		for {
			n, err := c.Write(p)
			written += n
			if err != nil {
				return err
			}
		}
	})
	if err != nil {
		return nil, err
	}
	return w, untilStuck(ctx, c, &written)
}

// untilStuck returns when the kernel takes no more bytes and the writer queues no more.
func untilStuck(ctx context.Context, c *loop.Stream, written *int) error {
	for still := 0; still < 100; still++ {
		before, queued := *written, c.Queued()
		if err := loop.Yield(ctx); err != nil {
			return err
		}
		// A writer that waits resumes when half of the queue is free.
		if *written != before || c.Queued() != queued || queued <= (64<<10)/2 {
			still = 0
		}
	}
	return nil
}

// A bad record makes crypto/tls send an alert from inside a read while a writer is
// suspended. With a *tls.Conn over the stream the loop's thread would wait for itself.
func TestTLSBadRecordWhileTheWriterIsStuck(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		tlstest.WithPeer(t, g, nil, func(ctx context.Context, c *loop.Stream, _ *tls.Conn, raw net.Conn) error {
			writer, err := stuckWriter(ctx, c)
			if err != nil {
				return err
			}
			if _, err := raw.Write(append([]byte{23, 3, 3, 0, 32}, make([]byte, 32)...)); err != nil {
				return err
			}
			var alert *net.OpError
			if _, err := c.ReadBuf(); !errors.As(err, &alert) || alert.Op != "local error" {
				return fmt.Errorf("reading: %v", err)
			}
			if err := c.Friend(key).ReadErr(); !errors.As(err, &alert) {
				return fmt.Errorf("reading again: %v", err)
			}
			if err := loopLives(g); err != nil {
				return err
			}
			_ = raw.Close()
			if werr := writer.Wait(ctx); werr == nil {
				return errors.New("the writer did not fail")
			}
			_ = c.Close() // it says that the peer is gone
			return nil
		})
	})
}

// loopLives returns once the loop has run a task that was started from another thread.
func loopLives(g *loop.Group) error {
	done := make(chan error, 1)
	if err := g.Loops()[0].Go("alive", func(ctx context.Context) error { return loop.Yield(ctx) }, func(err error) { done <- err }); err != nil {
		return err
	}
	return g.Loops()[0].Call(context.Background(), "alive", func(ctx context.Context) error {
		return backendtest.Offload(ctx, func() error { return <-done })
	})
}

// A peer sends key updates without end while a writer is suspended. Each is answered from
// inside a read. The answers that the server queues have a bound, and a peer that provokes
// more is cut off.
func TestTLSKeyUpdateFloodWhileTheWriterIsStuck(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		withTLSAttacker(t, g, func(ctx context.Context, c *loop.Stream, _ *tls.Conn, raw net.Conn, s *sealer) error {
			writer, err := stuckWriter(ctx, c)
			if err != nil {
				return err
			}
			flooded := make(chan struct{})
			go func() {
				defer close(flooded)
				w := bufio.NewWriter(raw)
				for range 10_000 { // it ends when the server closes
					if _, err := w.Write(s.flood()); err != nil {
						return
					}
				}
			}()
			got := 0
			for err == nil {
				var n int
				n, err = c.Read(make([]byte, 100))
				got += n
				if limit := (64 << 10) + 2*(16<<10) + 4096; c.Queued() > limit {
					return fmt.Errorf("%d bytes are queued", c.Queued())
				}
			}
			if !errors.Is(err, runtime.ErrBusy) || got == 0 {
				return fmt.Errorf("%d bytes, then %v", got, err)
			}
			if err := loopLives(g); err != nil {
				return err
			}
			_ = raw.Close()
			<-flooded
			if werr := writer.Wait(ctx); werr == nil {
				return errors.New("the writer did not fail")
			}
			_ = c.Close()
			return nil
		})
	})
}

// A peer that changes its keys all the time, and reads, is served. It waits for a byte
// between the answers, because its crypto/tls would take them for a flood otherwise.
func TestTLSKeyUpdates(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		const rounds = 200
		data := backendtest.RandomBytes(backendtest.Rand(t), backendtest.Bulk()/rounds*rounds)
		withTLSAttacker(t, g, func(ctx context.Context, c *loop.Stream, peer *tls.Conn, raw net.Conn, s *sealer) error {
			done := make(chan error, 1)
			go func() {
				got := make([]byte, len(data)/rounds)
				for round := range rounds {
					if _, err := raw.Write(s.flood()); err != nil {
						done <- err
						return
					}
					if _, err := io.ReadFull(peer, got); err != nil || !bytes.Equal(got, data[round*len(got):][:len(got)]) {
						done <- fmt.Errorf("round %d: what came is something else, or %w", round, err)
						return
					}
				}
				done <- nil
			}()
			for round := range rounds {
				if _, err := c.Read(make([]byte, 1)); err != nil {
					return err
				}
				if _, err := c.Write(data[len(data)/rounds*round : len(data)/rounds*(round+1)]); err != nil {
					return err
				}
			}
			return errors.Join(c.CloseWrite(), backendtest.Offload(ctx, func() error { return <-done }), c.Close())
		})
	})
}

// Peers that make decrypting costly share a turn's time for it: the loop's other tasks
// go on. Each of these peers sends a quarter of a megabyte of key updates.
func TestTLSFloodsShareATurn(t *testing.T) {
	const peers, size = 16, 256 << 10
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.CrowdedGroup(t, v, 1) // its watchdog is silent
		var streams []*loop.Stream
		var floods []func() error
		bytes := 0
		var connect func() // each connection inside the one before
		connect = func() {
			withTLSAttacker(t, g, func(ctx context.Context, s *loop.Stream, _ *tls.Conn, raw net.Conn, seal *sealer) error {
				s.Friend(key).ReadAhead()
				var flood []byte
				for len(flood) < size {
					flood = append(flood, seal.quietFlood()...)
					bytes++
				}
				streams = append(streams, s)
				floods = append(floods, func() error { _, err := raw.Write(flood); return err })
				if len(streams) < peers {
					if err := loop.Offload(ctx, connect); err != nil {
						return err
					}
					return s.Close()
				}
				for _, flood := range floods { // the loop stands still, and all of it is there
					if err := flood(); err != nil {
						return err
					}
				}
				begun, worst := time.Now(), time.Duration(0)
				for there := 0; there < bytes; {
					turn := time.Now()
					if err := loop.Yield(ctx); err != nil {
						return err
					}
					worst = max(worst, time.Since(turn))
					there = 0
					for _, s := range streams {
						there += s.Buffered()
					}
				}
				if all := time.Since(begun); worst > all/3 {
					return fmt.Errorf("of %v, one turn took %v", all, worst)
				}
				return s.Close()
			})
		}
		connect()
	})
}

// A peer that asks for answers and never reads is cut off, also if no task writes or
// reads. What is queued for it has a bound.
func TestTLSKeyUpdateFloodOfAPeerThatDoesNotRead(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		withTLSAttacker(t, g, func(ctx context.Context, s *loop.Stream, _ *tls.Conn, raw net.Conn, seal *sealer) error {
			// Smaller ones than that, and the kernel at this end drops acknowledgements too.
			if err := errors.Join(raw.(*net.TCPConn).SetReadBuffer(64<<10), s.Friend(key).SetOption(runtime.OptSendBuffer, 64<<10)); err != nil {
				return err
			}
			flooded := make(chan struct{})
			go func() {
				defer close(flooded)
				for {
					p := append(seal.flood(), seal.flood()...)
					if _, err := raw.Write(p); err != nil { // it ends when the server closes
						return
					}
				}
			}()
			most := 0
			b := pooled(s, nil)
			defer b.Release()
			var err error
			for err == nil {
				if b := s.TryReadBuf(); b != nil {
					b.Release()
				} else if err = s.Friend(key).ReadErr(); err == nil {
					_, err = loop.WaitAny(ctx, s.Readable())
				}
				most = max(most, s.Queued())
			}
			if !errors.Is(err, runtime.ErrBusy) || !strings.Contains(err.Error(), "provokes") {
				return fmt.Errorf("reading: %v", err)
			}
			if most > (64<<10)+17<<10 {
				return fmt.Errorf("%d bytes were queued", most)
			}
			if _, err := s.Write([]byte("x")); !errors.Is(err, runtime.ErrBusy) {
				return fmt.Errorf("writing: %v", err)
			}
			begun := time.Now()
			err = s.Close()
			if took := time.Since(begun); took > linger/2 {
				return fmt.Errorf("closing waited %v for a peer that takes nothing", took)
			}
			<-flooded
			if err == nil {
				return errors.New("Close does not say that something was not sent")
			}
			return nil
		})
	})
}
