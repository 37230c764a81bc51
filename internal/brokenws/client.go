package brokenws

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"time"
)

// Echo connects to a ws URL and sends every message back until the connection ends. f
// may be nil. The error says why no connection was opened.
func Echo(ctx context.Context, address string, f *Fault) error {
	u, err := url.Parse(address)
	if err != nil {
		return err
	}
	var d net.Dialer
	nc, err := d.DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return err
	}
	defer nc.Close()
	defer context.AfterFunc(ctx, func() { _ = nc.Close() })()
	c := &conn{Conn: nc, r: bufio.NewReaderSize(nc, 64<<10), quirks: f.quirks(), client: true}
	if err := c.ask(u); err != nil {
		return fmt.Errorf("the opening handshake: %w", err)
	}
	c.run()
	// The server must end the TCP connection. The client does not wait long for that,
	// so that the wait is not mistaken for a fault of its own.
	_, _ = io.Copy(io.Discard, impatient{nc, 200 * time.Millisecond})
	return nil
}

// ask does the opening handshake.
func (c *conn) ask(u *url.URL) error {
	q := c.quirks
	nonce := make([]byte, 16)
	_, _ = rand.Read(nonce) // never fails
	key := q.key
	if key == "" {
		key = base64.StdEncoding.EncodeToString(nonce)
	}
	request := "GET " + u.RequestURI() + " HTTP/1.1\r\nHost: " + u.Host + "\r\nUser-Agent: broken\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Key: " + key + "\r\nSec-WebSocket-Version: 13\r\n"
	if !q.noDeflate {
		request += "Sec-WebSocket-Extensions: " + offer + "\r\n"
	}
	if _, err := io.WriteString(c, request+"\r\n"); err != nil {
		return err
	}
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
	lines, err := readLines(c.r, q)
	if err != nil {
		return err
	}
	_ = c.SetReadDeadline(time.Time{})
	fields, good := readFields(lines[1:], q)
	var agreed bool
	c.deflate, agreed = agree(fields.get("sec-websocket-extensions"), q)
	switch {
	case !strings.HasPrefix(lines[0], "HTTP/1.1 101 ") && !q.anyStatus:
		return errors.New(lines[0])
	case !good:
		return errors.New("a bad field")
	case !fields.has("upgrade", "websocket") && !q.anyUpgrade, !fields.has("connection", "upgrade") && !q.anyConnection,
		len(fields["connection"]) > 1 && q.oneConnection:
		return errors.New("no upgrade")
	case fields.get("sec-websocket-accept") != accept(key) && !q.anyKey:
		return errors.New("a wrong Sec-WebSocket-Accept")
	case len(fields["sec-websocket-protocol"]) > 0 && !q.anyProtocol:
		return errors.New("a subprotocol that was not asked for")
	case !agreed:
		return errors.New("a bad extension")
	}
	if q.dropsEarly {
		_, _ = c.r.Discard(c.r.Buffered())
	}
	return nil
}

// answerFaults are mistakes in checking a server's answer.
func answerFaults() []Fault {
	wrong := func(q *quirks) { q.takesBadOffers = true }
	return []Fault{
		only("takes status 200", "trap02.answer-200", func(q *quirks) { q.anyStatus = true }),
		only("takes status 400", "trap02.answer-400", func(q *quirks) { q.anyStatus = true }),
		only("wants no Upgrade", "trap02.answer-no-upgrade", func(q *quirks) { q.anyUpgrade = true }),
		only("wants no Connection", "trap02.answer-no-connection", func(q *quirks) { q.anyConnection = true }),
		only("does not look at Sec-WebSocket-Accept", "trap02.answer-wrong-accept", func(q *quirks) { q.anyKey = true }),
		only("wants no Sec-WebSocket-Accept", "trap02.answer-no-accept", func(q *quirks) { q.anyKey = true }),
		only("takes a subprotocol that it has not asked for", "trap02.answer-subprotocol", func(q *quirks) { q.anyProtocol = true }),
		only("takes lines that end with LF alone", "trap02.answer-bare-lf", func(q *quirks) { q.bareLF = true }),
		only("takes heads of any length", "trap02.answer-endless", func(q *quirks) { q.maxHead = 1 << 30 }),
		only("takes anything for an answer", "trap02.answer-garbage", func(q *quirks) {
			q.anyStatus, q.anyUpgrade, q.anyConnection, q.anyKey = true, true, true, true
		}),
		only("takes an extension that it has not offered", "trap08.answer-unknown-extension", wrong),
		only("takes a parameter that does not exist", "trap08.answer-unknown-parameter", wrong),
		only("takes a parameter twice", "trap08.answer-twice", wrong),
		only("takes window bits of 16", "trap08.answer-bits-16", wrong),
		only("takes window bits of 7", "trap08.answer-bits-7", wrong),
		only("takes an extension twice", "trap08.answer-two", wrong),
		only("wants header names as the standard writes them", "trap02.answer-lower-case", func(q *quirks) { q.exactNames = true }),
		only("wants Connection in one line", "trap02.answer-two-connections", func(q *quirks) { q.oneConnection = true }),
		only("takes no answer of more than 512 bytes", "trap02.answer-long", func(q *quirks) { q.maxHead = 512 }),
		only("loses frames that come with the answer", "trap03.together", func(q *quirks) { q.dropsEarly = true }),
	}
}

// clientFaults are mistakes that only a client can make.
func clientFaults() []Fault {
	masks := func(name, cs string, mask func(n int) uint32) Fault {
		return only(name, cs, func(q *quirks) { q.mask = mask })
	}
	return []Fault{
		masks("masks everything with 01020304", "trap10.masks", func(int) uint32 { return 0x01020304 }),
		masks("masks with numbers that count up", "trap10.masks", func(n int) uint32 { return uint32(n) }),
		masks("masks as every other connection does", "trap10.again-?", func(n int) uint32 { return uint32(n) * uint32(n) * 2654435761 }),
		only("has one key for all connections", "trap10.again-?", func(q *quirks) { q.key = "AQIDBAUGBwgJCgsMDQ4PEA==" }),
	}
}
