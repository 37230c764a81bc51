package runtime

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestOpCheck(t *testing.T) {
	full, some := newBuffer(t, 512), newBuffer(t, 512)
	full.Append(make([]byte, 512))
	some.Append(make([]byte, 10))
	for _, tt := range []struct {
		op   Op
		want string // empty: fine
	}{
		{Op{Code: OpNop}, ""},
		{Op{}, "no operation code"},
		{Op{Code: opCount}, "unknown operation code"},
		{Op{Code: 200}, "bad op(200): unknown"},
		{Op{Code: OpRecv}, "no room"},
		{Op{Code: OpRecv, Buf: full}, "no room"},
		{Op{Code: OpRecv, Buf: some}, ""},
		{Op{Code: OpReadAt, Buf: full}, "no room"},
		{Op{Code: OpReadAt, Buf: some, Off: -1}, "negative"},
		{Op{Code: OpSend}, "no buffer"},
		{Op{Code: OpSend, Buf: some, Skip: 10}, ""},
		{Op{Code: OpSend, Buf: some, Skip: 11}, "skip 11 of a buffer of 10"},
		{Op{Code: OpWriteAt, Buf: some, Skip: -1}, "skip -1"},
		{Op{Code: OpSendVec}, "0 buffers"},
		{Op{Code: OpSendVec, Bufs: make([]*Buffer, MaxVec+1)}, "65 buffers"},
		{Op{Code: OpSendVec, Bufs: []*Buffer{some, full}, Skip: 11}, "skip 11"},
		{Op{Code: OpSendVec, Bufs: []*Buffer{some, full}, Skip: 3}, ""},
		{Op{Code: OpConnect}, "no address"},
		{Op{Code: OpOpen}, "no path"},
		{Op{Code: OpAllocate, Len: -1}, "negative"},
	} {
		err := tt.op.check()
		if tt.want == "" {
			require.NoError(t, err, tt.op.Code)
		} else {
			require.ErrorContains(t, err, tt.want)
		}
	}
}

func TestOpCompletes(t *testing.T) {
	done := 0
	op := &Op{Code: OpRecv, Buf: newBuffer(t, 512), Done: func(*Op) { done++ }}
	require.NoError(t, op.Begin())
	require.Contains(t, panicText(t, func() { _ = op.Begin() }), "recv submitted while it is in flight")
	op.Complete(7, 0, syscall.ECONNRESET)
	require.NoError(t, op.Err, "the bytes are what happened")
	require.Equal(t, 7, op.Buf.Len())
	require.Contains(t, panicText(t, func() { op.Complete(0, 0, nil) }), "completed twice")
	require.Contains(t, panicText(t, func() { op.Deliver(nil, 0) }), "after its terminal completion")
	require.NoError(t, op.Begin())
	op.Complete(0, 0, nil)
	require.Equal(t, io.EOF, op.Err, "never wrapped")
	op.Code = OpSend
	require.NoError(t, op.Begin())
	op.Complete(0, 0, syscall.EPIPE)
	var oe *OpError
	require.ErrorAs(t, op.Err, &oe)
	require.Equal(t, "send", oe.Op)
	require.Equal(t, 3, done)
}

func TestErrors(t *testing.T) {
	closed := &OpError{Op: "recv", Err: ErrClosed}
	require.ErrorIs(t, closed, ErrClosed)
	require.ErrorIs(t, closed, net.ErrClosed)
	require.ErrorIs(t, closed, os.ErrClosed)
	require.NotErrorIs(t, closed, ErrCanceled)

	for _, err := range []error{os.ErrDeadlineExceeded, syscall.ETIMEDOUT, context.DeadlineExceeded,
		fmt.Errorf("deep: %w", os.ErrDeadlineExceeded)} {
		var ne net.Error
		require.ErrorAs(t, error(&OpError{Op: "send", Err: err}), &ne)
		require.True(t, ne.Timeout(), "%v", err)
	}
	require.False(t, closed.Timeout())
	require.Equal(t, "dial 127.0.0.1:1: connection refused", (&OpError{Op: "dial", Detail: "127.0.0.1:1", Err: syscall.ECONNREFUSED}).Error())

	require.Equal(t, io.EOF, wrapErr("recv", 0, io.EOF))
	require.Same(t, closed, wrapErr("again", 0, closed).(*OpError))
	require.NoError(t, wrapErr("recv", 0, nil))
}

func TestParseListenAddr(t *testing.T) {
	for in, want := range map[string]string{
		"127.0.0.1:80":   "127.0.0.1:80",
		":7000":          "[::]:7000",
		"[::1]:0":        "[::1]:0",
		"localhost:http": "127.0.0.1:80",
		"unix:/tmp/x":    "/tmp/x",
		"unix:@name":     "@name",
	} {
		a, err := ParseListenAddr(in)
		require.NoError(t, err, in)
		require.Equal(t, want, a.String())
		require.Equal(t, strings.HasPrefix(in, "unix:"), a.Path != "")
		require.Equal(t, want, a.NetAddr().String())
	}
	for _, in := range []string{"", "unix:", "80", "example.com:80", "127.0.0.1", "127.0.0.1:99999", "1.2.3.4:80:90", "[::1:80"} {
		_, err := ParseListenAddr(in)
		require.Error(t, err, in)
		require.Contains(t, err.Error(), fmt.Sprintf("%q", in))
	}
	require.Empty(t, Addr{}.String())
	require.Equal(t, "tcp", Addr{AddrPort: netip.MustParseAddrPort("[::1]:1")}.NetAddr().Network())
}

func FuzzParseListenAddr(f *testing.F) {
	for _, s := range []string{"127.0.0.1:80", ":7000", "[::1%eth0]:1", "unix:@x", "localhost:http", "unix:", ":"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseListenAddr(s)
		if err != nil {
			require.Zero(t, a)
			return
		}
		require.NotZero(t, a)
		again := a.String()
		if a.Path != "" {
			again = "unix:" + again
		}
		b, err := ParseListenAddr(again)
		require.NoError(t, err, "of %q, which came from %q", again, s)
		require.Equal(t, a, b)
	})
}
