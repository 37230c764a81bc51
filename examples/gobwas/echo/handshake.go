package echo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"time"

	"github.com/gobwas/ws"

	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/tcp"
)

// An HTTP head ends with an empty line. The library does not limit its size.
const (
	headEnd = "\r\n\r\n"
	maxHead = 16 << 10
)

// accept does the server's opening handshake. It calls the library once, when the
// request is complete, with a reader that has only the request: the library would throw
// away the frames behind it.
func (c *conn) accept() error {
	if err := c.limit(c.opts.HandshakeTimeout); err != nil {
		return err
	}
	u := ws.Upgrader{ReadBufferSize: maxHead}
	err := c.sync.RunHead(headEnd, maxHead, func(rw io.ReadWriter) error {
		_, err := u.Upgrade(rw)
		return err
	})
	if err != nil {
		return fmt.Errorf("handshake: %w", err)
	}
	return c.stream().SetReadDeadline(time.Time{})
}

// dial opens a connection to a ws URL.
func dial(ctx context.Context, address string, o Options) (*conn, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	if u.Scheme != "ws" || u.Hostname() == "" {
		return nil, fmt.Errorf("%q is not ws://HOST/", address)
	}
	host := u.Host
	if u.Port() == "" {
		host = net.JoinHostPort(u.Hostname(), "80")
	}
	s, err := tcp.Dial(ctx, host, tcp.DialOptions{Net: loop.DialOptions{Timeout: o.withDefaults().HandshakeTimeout}})
	if err != nil {
		return nil, err
	}
	c, err := newConn(s, o, true)
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if err := c.ask(u); err != nil {
		return nil, errors.Join(err, c.sync.Close())
	}
	return c, nil
}

// ask does the client's opening handshake. The library makes a new key with each call,
// so the call cannot be rolled back and repeated. It is called once, and reads from an
// exchange, which waits.
func (c *conn) ask(u *url.URL) error {
	if err := c.limit(c.opts.HandshakeTimeout); err != nil {
		return err
	}
	var d ws.Dialer
	if _, _, err := d.Upgrade(&exchange{c: c}, u); err != nil {
		return fmt.Errorf("handshake: %w", err)
	}
	return c.stream().SetReadDeadline(time.Time{})
}

// An exchange is a request and its response, as the client's library writes and reads
// them. Its Read waits until the whole response has arrived, and returns no byte behind
// it.
type exchange struct {
	c    *conn
	head *bytes.Reader // nil: not received yet
}

func (x *exchange) Write(p []byte) (int, error) { return x.c.out.Write(p) }

func (x *exchange) Read(p []byte) (int, error) {
	if x.head == nil {
		if _, err := x.c.write.FlushWriteBuf(); err != nil {
			return 0, err
		}
		err := x.c.sync.RunHead(headEnd, maxHead, func(rw io.ReadWriter) error {
			head, err := io.ReadAll(rw)
			x.head = bytes.NewReader(head)
			return err
		})
		if err != nil {
			return 0, err
		}
	}
	return x.head.Read(p)
}
