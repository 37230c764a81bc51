package ws_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/tcp"
	"github.com/noria-go/noria/ws/internal/frame"
)

// BenchmarkEcho measures an echo over one connection, with a client that does as little
// as possible: it writes prepared frames and counts the bytes that come back. tcp is the
// same without frames.
func BenchmarkEcho(b *testing.B) {
	for _, v := range backendtest.Variants() {
		if v.Name == "io_uring-plain" {
			continue
		}
		for _, size := range []int{64, 1024, 16 << 10} {
			for _, batch := range []int{1, 16, 64} {
				if size > 64 && batch > 16 {
					continue
				}
				name := fmt.Sprintf("%s/%dB/%d", v.Name, size, batch)
				b.Run(name+"/tcp", func(b *testing.B) {
					echoes(b, v, tcpEcho(), nil, bytes.Repeat([]byte{'x'}, size), size, batch)
				})
				b.Run(name+"/ws", func(b *testing.B) {
					h := frame.Header{Len: int64(size)}
					echoes(b, v, echoServer(), []byte(request), fr(frame.Binary, true, string(bytes.Repeat([]byte{'x'}, size))), size+h.Size(), batch)
				})
			}
		}
	}
}

func tcpEcho() loop.Service {
	return &tcp.Server{Handler: func(_ context.Context, c *loop.Stream) error {
		_, err := io.Copy(c, c)
		return err
	}}
}

func echoes(b *testing.B, v backendtest.Variant, svc loop.Service, hello, message []byte, answer, batch int) {
	addr := serve(b, backendtest.Group(b, v, 1), svc)
	nc, err := net.Dial("tcp", addr)
	require.NoError(b, err)
	defer nc.Close()
	if hello != nil {
		p := connectOver(b, nc)
		require.Zero(b, p.r.Buffered())
	}
	out := bytes.Repeat(message, batch)
	in := make([]byte, answer*batch)
	b.ReportAllocs()
	for n := 0; n < b.N; n += batch {
		k := min(batch, b.N-n)
		if _, err := nc.Write(out[:k*len(message)]); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(nc, in[:k*answer]); err != nil {
			b.Fatal(err)
		}
	}
}
