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

	"github.com/noria-go/noria/compat"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/tcp"
)

// An HTTP head ends with an empty line, and has at most so many bytes: the library
// does not bound it.
const (
	headEnd = "\r\n\r\n"
	maxHead = 16 << 10
)

// accept is the server's side of the opening handshake. The library is called once,
// when the request is complete, with a reader that has the request and no more: it
// would throw away the frames behind it.
func (c *conn) accept() error {
	if err := c.limit(c.opts.HandshakeTimeout); err != nil {
		return err
	}
	u := ws.Upgrader{ReadBufferSize: maxHead}
	err := compat.RunHead(c.sync, headEnd, maxHead, func(rw io.ReadWriter) error {
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

// ask is the client's side of the opening handshake. The library makes a new key each
// time it is called, so it cannot be rolled back and called again. It is called once,
// and what it reads from waits.
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

// An exchange is a request and its response: what the client's library writes and
// reads. Its Read waits until the whole response is there, and has no byte of what
// follows it.
type exchange struct {
	c    *conn
	head *bytes.Reader // nil: not read yet
}

func (x *exchange) Write(p []byte) (int, error) { return x.c.out.Write(p) }

func (x *exchange) Read(p []byte) (int, error) {
	if x.head == nil {
		if _, err := x.c.write.FlushWriteBuf(); err != nil {
			return 0, err
		}
		err := compat.RunHead(x.c.sync, headEnd, maxHead, func(rw io.ReadWriter) error {
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
