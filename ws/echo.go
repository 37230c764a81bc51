// Package ws serves WebSocket connections (RFC 6455).
//
// For now it holds one thing: an echo server on gobwas/ws as it comes, a
// synchronous protocol library that knows nothing of completions. A task's
// stream is a blocking net.Conn, so nothing of the library had to change.
package ws

import (
	"bytes"
	"context"
	"errors"
	"io"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/noria-go/noria/tcp"
)

const (
	maxHead       = 16 << 10         // bytes of an upgrade request
	headTimeout   = 10 * time.Second // for all of it
	maxEchoedSize = 64 << 20         // bytes of a frame
)

// EchoServer returns a server that sends every message back.
func EchoServer() *tcp.Server { return &tcp.Server{Handler: Echo} }

// Echo upgrades c and sends every message back until the peer closes.
func Echo(_ context.Context, c *tcp.Conn) error {
	if err := upgrade(c); err != nil {
		return err
	}
	control := wsutil.ControlFrameHandler(c, ws.StateServerSide)
	rd := wsutil.Reader{Source: c, State: ws.StateServerSide, CheckUTF8: true, MaxFrameSize: maxEchoedSize, OnIntermediate: control}
	for {
		hdr, err := rd.NextFrame()
		if err != nil {
			return err
		}
		if hdr.OpCode.IsControl() {
			if err := control(hdr, &rd); err != nil {
				var closed wsutil.ClosedError
				if errors.As(err, &closed) {
					return nil
				}
				return err
			}
			continue
		}
		w := wsutil.NewWriter(c, ws.StateServerSide, hdr.OpCode)
		if _, err := io.Copy(w, &rd); err != nil {
			return err
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
}

// upgrade answers the upgrade request. The library throws away what follows
// the request in its buffer, so it is given the request and nothing else.
func upgrade(c *tcp.Conn) error {
	if err := c.SetReadDeadline(time.Now().Add(headTimeout)); err != nil {
		return err
	}
	var head []byte
	for {
		b, err := c.ReadBuf()
		if err != nil {
			return err
		}
		before := len(head)
		head = append(head, b.Bytes()...)
		from := max(0, before-3) // the end may lie across two buffers
		if end := bytes.Index(head[from:], []byte("\r\n\r\n")); end >= 0 {
			end += from
			b.Advance(end + 4 - before)
			c.Unread(b)
			head = head[:end+4]
			break
		}
		b.Release()
		if len(head) > maxHead {
			return errors.New("ws: the upgrade request is too long")
		}
	}
	_, err := ws.Upgrade(struct {
		io.Reader
		io.Writer
	}{bytes.NewReader(head), c})
	if err != nil {
		return err
	}
	return c.SetReadDeadline(time.Time{})
}
