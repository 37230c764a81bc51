package ws_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"strings"

	"github.com/noria-go/noria"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/ws"
)

// The first program of the README.
func Example() {
	echo := func(ctx context.Context, c *ws.Conn) error {
		for {
			m, err := c.Receive(ctx) // m owns its bytes: no copy was made
			if err != nil {
				return err // a peer's close comes as *ws.CloseError
			}
			if err := c.Send(ctx, m); err != nil {
				return err // Send took m; the very buffer goes back out
			}
		}
	}

	main := func() {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
		defer stop()
		if err := noria.ListenAndServe(ctx, ":7001", &ws.Server{Handler: echo}, noria.Options{}); err != nil {
			log.Fatal(err)
		}
	}
	_ = main
}

// A server and a client in one program.
func ExampleDial() {
	g, err := noria.Start(noria.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer g.Stop()
	ls, err := g.Listen("127.0.0.1:0", loop.ListenOptions{})
	if err != nil {
		log.Fatal(err)
	}
	echo := func(ctx context.Context, c *ws.Conn) error {
		for {
			m, err := c.Receive(ctx)
			if err != nil {
				return err
			}
			if err := c.Send(ctx, m); err != nil {
				return err
			}
		}
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- g.Serve(ctx, ls, &ws.Server{Handler: echo}) }()

	err = g.Loop().Call(ctx, "client", func(ctx context.Context) error {
		c, err := ws.Dial(ctx, "ws://"+ls.Addr().String()+"/", ws.DialOptions{})
		if err != nil {
			return err
		}
		if err := c.SendText(ctx, "hello"); err != nil {
			return err
		}
		m, err := c.Receive(ctx)
		if err != nil {
			return err
		}
		fmt.Printf("%s: %s\n", m.Type(), m.Bytes())
		m.Release()
		return c.Close(ws.StatusNormalClosure, "")
	})
	if err != nil {
		log.Fatal(err)
	}
	stop()
	if err := <-done; err != nil {
		log.Fatal(err)
	}
	// Output: text: hello
}

// A path of a net/http server, whose connections move to the group's loops.
func ExampleHTTPHandler() {
	group, err := noria.Start(noria.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer group.Stop()
	mux := http.NewServeMux()
	mux.Handle("/ws", ws.HTTPHandler(group, func(ctx context.Context, c *ws.Conn) error {
		return c.SendText(ctx, "this is "+c.Request().URI)
	}))
	srv := httptest.NewServer(mux)
	defer srv.Close()

	visit(group, srv.URL+"/ws", func(ctx context.Context, c *ws.Conn) error {
		m, err := c.Receive(ctx)
		if err != nil {
			return err
		}
		defer m.Release()
		fmt.Printf("%s\n", m.Bytes())
		return nil
	})
	// Output: this is /ws
}

// A line protocol, whose library needs a net.Conn, through a WebSocket.
func ExampleConn_NetConn() {
	lines := func(ctx context.Context, c *ws.Conn) error {
		nc := c.NetConn(ctx, ws.TypeBinary)
		for s := bufio.NewScanner(nc); s.Scan(); {
			if _, err := fmt.Fprintf(nc, "you said %s\n", s.Text()); err != nil {
				return err
			}
		}
		return nil
	}
	withServer(lines, func(ctx context.Context, c *ws.Conn) error {
		nc := c.NetConn(ctx, ws.TypeBinary)
		if _, err := io.WriteString(nc, "hel"); err != nil {
			return err
		}
		if _, err := io.WriteString(nc, "lo\n"); err != nil { // message boundaries do not matter
			return err
		}
		line, err := bufio.NewReader(nc).ReadString('\n')
		fmt.Print(line)
		return err
	})
	// Output: you said hello
}

// A message that is too long to hold is copied as it arrives.
func ExampleConn_NextReader() {
	upper := func(ctx context.Context, c *ws.Conn) error {
		t, r, err := c.NextReader(ctx)
		if err != nil {
			return err
		}
		w, err := c.NextWriter(ctx, t)
		if err != nil {
			return err
		}
		if _, err := io.Copy(w, r); err != nil {
			return err
		}
		return w.Close() // ends the message
	}
	withServer(upper, func(ctx context.Context, c *ws.Conn) error {
		if err := c.SendText(ctx, strings.Repeat("a long message. ", 1000)); err != nil {
			return err
		}
		m, err := c.Receive(ctx)
		if err != nil {
			return err
		}
		defer m.Release()
		fmt.Println(m.Len(), "bytes came back")
		return nil
	})
	// Output: 16000 bytes came back
}

// A message for many connections is framed once, and compressed once.
func ExamplePrepare() {
	news := ws.Prepare(ws.TypeText, []byte("to all of you"))
	withServer(func(ctx context.Context, c *ws.Conn) error {
		return c.SendPrepared(ctx, news) // on each connection, of any loop
	}, func(ctx context.Context, c *ws.Conn) error {
		m, err := c.Receive(ctx)
		if err != nil {
			return err
		}
		defer m.Release()
		fmt.Printf("%s\n", m.Bytes())
		return nil
	})
	// Output: to all of you
}

// withServer runs client on a connection to a server with that handler.
func withServer(handler ws.HandlerFunc, client func(ctx context.Context, c *ws.Conn) error) {
	group, err := noria.Start(noria.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer group.Stop()
	ls, err := group.Listen("127.0.0.1:0", loop.ListenOptions{})
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- group.Serve(ctx, ls, &ws.Server{Handler: handler}) }()
	visit(group, "ws://"+ls.Addr().String()+"/", client)
	stop()
	if err := <-done; err != nil {
		log.Fatal(err)
	}
}

// visit runs client on a connection to url, and closes it.
func visit(group *loop.Group, url string, client func(ctx context.Context, c *ws.Conn) error) {
	err := group.Loop().Call(context.Background(), "client", func(ctx context.Context) error {
		c, err := ws.Dial(ctx, url, ws.DialOptions{})
		if err != nil {
			return err
		}
		defer c.Close(ws.StatusNormalClosure, "")
		return client(ctx, c)
	})
	if err != nil {
		log.Fatal(err)
	}
}
