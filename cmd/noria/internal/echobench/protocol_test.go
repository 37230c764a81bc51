package echobench

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/gobwas/ws"
	"github.com/stretchr/testify/require"
)

// Another implementation can read a connection's requests, and its answer equals
// the expected replies.
func TestTrafficIsWebSocket(t *testing.T) {
	for _, size := range []int{1, 125, 126, 65535, 65536} {
		for _, n := range []int{1, 3} {
			tr := newTraffic(protoWS, size, n)
			for _, s := range tr.scripts {
				in := bytes.NewReader(s.requests.Bytes())
				var back bytes.Buffer
				masks := map[[4]byte]bool{}
				for range n {
					h, err := ws.ReadHeader(in)
					require.NoError(t, err)
					require.True(t, h.Masked && h.Fin)
					masks[h.Mask] = true
					payload := make([]byte, h.Length)
					_, err = io.ReadFull(in, payload)
					require.NoError(t, err)
					ws.Cipher(payload, h.Mask, 0)
					require.NoError(t, ws.WriteFrame(&back, ws.NewBinaryFrame(payload)))
				}
				require.Len(t, masks, n, "each frame has a mask of its own")
				require.Zero(t, in.Len())
				require.Equal(t, back.Bytes(), s.replies)
				require.Equal(t, tr.reply*n, len(s.replies))
			}
		}
	}
}

func TestTrafficStaysSmall(t *testing.T) {
	for _, tt := range []struct{ size, n, scripts int }{{64, 1, maxScripts}, {16384, 1, maxScripts}, {16384, 64, 1}, {1 << 22, 1, 1}} {
		require.Len(t, newTraffic(protoTCP, tt.size, tt.n).scripts, tt.scripts, "%d bytes, %d away", tt.size, tt.n)
	}
}

// The number of replies is counted right, in whatever pieces they arrive.
func TestRepliesInPieces(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	const n = 7
	for _, proto := range protocols {
		for _, size := range []int{1, 125, 126, 300, 70000} {
			tr := newTraffic(proto, size, n)
			for range 50 {
				rest, total := tr.scripts[0].replies, 0
				r := replies{traffic: tr}
				for len(rest) > 0 {
					piece := rest[:min(1+random.IntN(2*size), len(rest))]
					got, err := r.whole(piece)
					require.NoError(t, err)
					total += got
					rest = rest[len(piece):]
					require.Equal(t, n-total, (len(rest)+tr.reply-1)/tr.reply)
				}
				require.Equal(t, n, total)
			}
		}
	}
}

// Every header is checked, whole or in pieces.
func TestRepliesWithAnotherHeader(t *testing.T) {
	tr := newTraffic(protoWS, 200, 3)
	for frame := range 3 {
		for i := range tr.header {
			bad := bytes.Clone(tr.scripts[0].replies)
			bad[frame*tr.reply+i] ^= 0x40
			for _, step := range []int{1, 2, len(bad)} {
				r := replies{traffic: tr}
				var err error
				for at := 0; at < len(bad) && err == nil; at += step {
					_, err = r.whole(bad[at:min(at+step, len(bad))])
				}
				require.ErrorContains(t, err, "header", "frame %d, byte %d, in steps of %d", frame, i, step)
			}
		}
	}
}

func TestUpgraded(t *testing.T) {
	// Another implementation answers.
	var answer bytes.Buffer
	_, err := ws.Upgrade(struct {
		io.Reader
		io.Writer
	}{bytes.NewReader(upgradeRequest("127.0.0.1:1")), &answer})
	require.NoError(t, err)
	good := answer.String()
	for i := range good {
		done, err := upgraded([]byte(good[:i]))
		require.NoError(t, err)
		require.False(t, done, "after %d bytes", i)
	}
	done, err := upgraded([]byte(good))
	require.NoError(t, err)
	require.True(t, done)

	for name, bad := range map[string]string{
		"has no end":                  strings.Repeat("x", maxResponse+1),
		"malformed":                   "hello\r\n\r\n",
		"refuses the upgrade: 403":    "HTTP/1.1 403 Forbidden\r\n\r\n",
		`accepts the upgrade with ""`: "HTTP/1.1 101 Switching Protocols\r\n\r\n",
		"2 bytes more":                good + "\x82\x00",
	} {
		done, err := upgraded([]byte(bad))
		require.ErrorContains(t, err, name)
		require.False(t, done)
	}
}

// Times come out in the order in which they went in, one for each message.
func TestTimes(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	const most = 16
	ts := times{made: make([]batch, most)}
	var away []int64
	for now := range int64(10_000) {
		if n := most - len(away); n > 0 {
			n = 1 + random.IntN(n)
			ts.add(now, n)
			for range n {
				away = append(away, now)
			}
		}
		for back := random.IntN(len(away) + 1); back > 0; {
			at, n := ts.take(back)
			require.Positive(t, n)
			for i := range n {
				require.Equal(t, away[i], at)
			}
			away = away[n:]
			back -= n
		}
	}
}

func TestDiffer(t *testing.T) {
	for _, tt := range []struct {
		p, due string
		at     int
	}{{"", "", -1}, {"ab", "abc", -1}, {"abc", "abc", -1}, {"abd", "abc", 2}, {"abcd", "abc", 3}, {"x", "", 0}} {
		require.Equal(t, tt.at, differ([]byte(tt.p), []byte(tt.due)), fmt.Sprint(tt))
	}
}
