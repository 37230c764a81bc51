// Package bench_test checks that the peers in Go are echo servers.
package bench_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/coder/websocket"
)

func TestPeersEcho(t *testing.T) {
	dir := t.TempDir()
	if out, err := exec.Command("go", "build", "-o", dir+string(filepath.Separator), "./cmd/...").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	peers, err := filepath.Glob(filepath.Join(dir, "peer-*"))
	if err != nil || len(peers) == 0 {
		t.Fatal("there are no peers: ", err)
	}
	for _, peer := range peers {
		t.Run(filepath.Base(peer), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			c := dial(ctx, t, start(ctx, t, peer))
			c.SetReadLimit(1 << 20)
			for _, size := range []int{0, 1, 125, 126, 70_000} {
				want := bytes.Repeat([]byte("noria"), size/5+1)[:size]
				if err := c.Write(ctx, websocket.MessageBinary, want); err != nil {
					t.Fatal(err)
				}
				kind, got, err := c.Read(ctx)
				if err != nil {
					t.Fatal(err)
				}
				if kind != websocket.MessageBinary || !bytes.Equal(got, want) {
					t.Fatalf("sent %d bytes, received %d as %v", size, len(got), kind)
				}
			}
			if err := c.CloseNow(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// start starts a peer and returns its address.
func start(ctx context.Context, t *testing.T, peer string) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0") // finds a free port
	if err != nil {
		t.Fatal(err)
	}
	address := ln.Addr().String()
	ln.Close()
	cmd := exec.CommandContext(ctx, peer, fmt.Sprint(ln.Addr().(*net.TCPAddr).Port))
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return address
}

// dial tries until the peer listens.
func dial(ctx context.Context, t *testing.T, address string) *websocket.Conn {
	for {
		c, _, err := websocket.Dial(ctx, "ws://"+address, nil)
		if err == nil {
			return c
		}
		select {
		case <-ctx.Done():
			t.Fatal(err)
		case <-time.After(20 * time.Millisecond): // a peer does not say when it listens
		}
	}
}
