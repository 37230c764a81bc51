package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/tidwall/redcon"

	"github.com/noria-go/noria/compat"
	"github.com/noria-go/noria/examples/internal/program"
	"github.com/noria-go/noria/internal/friend"
	"github.com/noria-go/noria/loop"
)

func TestMain(m *testing.M) { program.Main(m, main) }

func TestSignalsDrain(t *testing.T) { program.RequireDrains(t) }

// start starts a server and returns its address.
func start(t *testing.T) string { return startWith(t, growable) }

func startWith(t *testing.T, adapt func(*loop.Stream) (adapter, error)) string {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	address, done := make(chan string, 1), make(chan error, 1)
	go func() { done <- serve(ctx, "127.0.0.1:0", adapt, func(a net.Addr) { address <- a.String() }) }()
	t.Cleanup(func() {
		stop()
		require.NoError(t, <-done)
	})
	return <-address
}

func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	require.NoError(t, c.SetDeadline(time.Now().Add(time.Minute)))
	return c
}

func cmd(args ...string) []byte {
	p := redcon.AppendArray(nil, len(args))
	for _, a := range args {
		p = redcon.AppendBulkString(p, a)
	}
	return p
}

func TestCommands(t *testing.T) {
	c := dial(t, start(t))
	big := strings.Repeat("0123456789", 300_000)
	for _, tt := range []struct {
		send []byte
		want string
	}{
		{cmd("PING"), "+PONG\r\n"},
		{cmd("ping", "hello"), "$5\r\nhello\r\n"},
		{[]byte("PING\r\n"), "+PONG\r\n"},
		{cmd("GET", "a"), "$-1\r\n"},
		{cmd("SET", "a", "1"), "+OK\r\n"},
		{cmd("INCR", "a"), ":2\r\n"},
		{cmd("GET", "a"), "$1\r\n2\r\n"},
		{cmd("SET", "a", "x"), "+OK\r\n"},
		{cmd("INCR", "a"), "-ERR value is not an integer or out of range\r\n"},
		{cmd("MSET", "b", "2", "c", "3"), "+OK\r\n"},
		{cmd("MSET", "b", "2", "c"), "-ERR wrong number of arguments for 'mset' command\r\n"},
		{cmd("MGET", "b", "none", "c"), "*3\r\n$1\r\n2\r\n$-1\r\n$1\r\n3\r\n"},
		{cmd("EXISTS", "b", "c", "d"), ":2\r\n"},
		{cmd("DEL", "b", "c", "d"), ":2\r\n"},
		{cmd("DBSIZE"), ":1\r\n"},
		{cmd("NOPE"), "-ERR unknown command 'nope'\r\n"},
		{cmd("GET"), "-ERR wrong number of arguments for 'get' command\r\n"},
		{cmd("SET", "big", big), "+OK\r\n"},
		{cmd("GET", "big"), fmt.Sprintf("$%d\r\n%s\r\n", len(big), big)},
		{append(cmd("PING"), cmd("ECHO", "x")...), "+PONG\r\n$1\r\nx\r\n"},
		{cmd("FLUSHALL"), "+OK\r\n"},
		{cmd("QUIT"), "+OK\r\n"},
	} {
		_, err := c.Write(tt.send)
		require.NoError(t, err)
		got := make([]byte, len(tt.want))
		_, err = io.ReadFull(c, got)
		require.NoError(t, err, "%.60q", tt.send)
		require.True(t, tt.want == string(got), "%.60q: got %.60q, want %.60q", tt.send, got, tt.want)
	}
	_, err := c.Read(make([]byte, 1))
	require.Equal(t, io.EOF, err)
}

// watched returns growable, and records in most the largest number of bytes that were
// queued at once.
func watched(most *atomic.Int64) func(*loop.Stream) (adapter, error) {
	return func(s *loop.Stream) (adapter, error) {
		s.Friend(friend.Key{}).OnSent(func() { most.Store(max(most.Load(), int64(s.Queued()))) }) // there is only one connection
		return growable(s)
	}
}

// A few bytes ask for a lot. The server sends the answers in parts and waits for the
// peer after each, in place of collecting all of them first.
func TestMuchIsAskedFor(t *testing.T) {
	const times = 100
	value := strings.Repeat("0123456789abcdef", 1<<16)
	answer := fmt.Sprintf("$%d\r\n%s\r\n", len(value), value)
	mget := []string{"MGET"}
	for range times {
		mget = append(mget, "big")
	}
	for name, tt := range map[string]struct {
		send []byte
		head string
	}{
		"many commands": {bytes.Repeat(cmd("GET", "big"), times), ""},
		"one command":   {cmd(mget...), fmt.Sprintf("*%d\r\n", times)},
	} {
		t.Run(name, func(t *testing.T) {
			var most atomic.Int64
			c := dial(t, startWith(t, watched(&most)))
			_, err := c.Write(append(cmd("SET", "big", value), tt.send...))
			require.NoError(t, err)
			r := bufio.NewReader(c)
			for i, want := range append([]string{"+OK\r\n", tt.head}, slices.Repeat([]string{answer}, times)...) {
				got := make([]byte, len(want))
				_, err := io.ReadFull(r, got)
				require.NoError(t, err, "answer %d", i)
				require.True(t, want == string(got), "answer %d: %.60q", i, got)
			}
			require.LessOrEqual(t, most.Load(), int64(2<<20))
		})
	}
}

func TestBadInput(t *testing.T) {
	c := dial(t, start(t))
	_, err := c.Write([]byte("*1\r\n$x\r\n"))
	require.NoError(t, err)
	got, err := io.ReadAll(c)
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(string(got), "-ERR Protocol error"), "%q", got)
}

// A pipeline of commands, cut at any byte, has the same answers as the whole.
func TestEveryCut(t *testing.T) {
	for name, adapt := range map[string]func(*loop.Stream) (adapter, error){
		"growable": growable,
		"fixed":    func(s *loop.Stream) (adapter, error) { return compat.NewSyncStream(s, compat.Options{}) },
	} {
		t.Run(name, func(t *testing.T) { everyCut(t, startWith(t, adapt)) })
	}
}

func everyCut(t *testing.T, address string) {
	c, other := dial(t, address), dial(t, address)
	input := bytes.Join([][]byte{
		cmd("SET", "key", "a value\r\nof two lines"), cmd("GET", "key"), []byte("PING\r\n"), cmd("INCR", "n"), cmd("DEL", "n"),
		cmd("MSET", "x", "", "y", strings.Repeat("y", 200)), cmd("MGET", "x", "y", "z"), cmd("NOPE"),
	}, nil)
	_, err := c.Write(append(input, cmd("ECHO", "end")...))
	require.NoError(t, err)
	r := bufio.NewReader(c)
	end := "$3\r\nend\r\n"
	var whole []byte
	for !bytes.HasSuffix(whole, []byte(end)) {
		b, err := r.ReadByte()
		require.NoError(t, err)
		whole = append(whole, b)
	}
	whole = bytes.TrimSuffix(whole, []byte(end))
	for cut := range len(input) {
		_, err := c.Write(input[:cut])
		require.NoError(t, err)
		// The answer on a second connection shows that the server has had time to read
		// the first.
		_, err = other.Write(cmd("PING"))
		require.NoError(t, err)
		_, err = io.ReadFull(other, make([]byte, len("+PONG\r\n")))
		require.NoError(t, err)
		_, err = c.Write(input[cut:])
		require.NoError(t, err)
		got := make([]byte, len(whole))
		_, err = io.ReadFull(r, got)
		require.NoError(t, err, "cut at %d", cut)
		require.Equal(t, string(whole), string(got), "cut at %d", cut)
	}
}
