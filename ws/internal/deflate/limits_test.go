package deflate_test

import (
	"bytes"
	stdflate "compress/flate"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/ws/internal/deflate"
)

func TestCorruptPayloads(t *testing.T) {
	for name, payload := range map[string]string{
		"reserved block type":           "\x06",
		"stored length and complement":  "\x00\x05\x00\x00\x00Hello",
		"the end is missing":            "\xf2\x48\xcd\xc9",
		"stored bytes are missing":      "\x00\xff\x00\x00\xffHello",
		"before the beginning":          "\xf2\x00\x11\x00\x00",
		"too many literals":             "\xfc\xff\xff\xff\xff\xff\xff",
		"lengths of no code":            "\x04\x00\xfe\xff\xff\xff\xff\xff\xff\xff\xff\xff",
		"no end of block":               "\x04\xc0\x81\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
		"literal 287 of the fixed code": "\x1b\x03\x00\x00\x00",
		"text":                          "Hello, this is not deflated at all",
	} {
		for _, size := range []int{1, 3, 100} {
			d := deflate.NewDecompressor(15, true)
			_, err := inflate(d, []byte(payload), size, 10, 0)
			require.ErrorIs(t, err, deflate.ErrCorrupt, name)
			d.Begin(0)
			_, _, _, err = d.Inflate(make([]byte, 9), []byte("\xf2\x48\xcd\xc9\xc9\x07\x00"), true)
			require.ErrorIs(t, err, deflate.ErrCorrupt, "%s: once corrupt, always", name)
			d.Close()
		}
	}
}

func TestWithoutTakeoverNothingIsKnown(t *testing.T) {
	d := deflate.NewDecompressor(15, false)
	require.Equal(t, "Hello", inflateAll(t, d, []byte("\xf2\x48\xcd\xc9\xc9\x07\x00")))
	_, err := inflate(d, []byte("\xf2\x00\x11\x00\x00"), 10, 10, 0)
	require.ErrorIs(t, err, deflate.ErrCorrupt)
}

// A decompression bomb writes exactly what the limit allows, in any pieces.
func TestTheLimitHoldsWhileInflating(t *testing.T) {
	var bomb bytes.Buffer
	w, err := stdflate.NewWriter(&bomb, 9)
	require.NoError(t, err)
	zeros := make([]byte, 1<<20)
	for range 4 {
		_, err = w.Write(zeros)
		require.NoError(t, err)
	}
	require.NoError(t, w.Flush())
	for _, takeover := range []bool{false, true} {
		for _, limit := range []int64{1, 100, 4096, 65536, 1 << 20} {
			for _, src := range []int{1, bomb.Len()} {
				for _, dst := range []int{999, 2 << 20} {
					d := deflate.NewDecompressor(15, takeover)
					out, err := inflate(d, bomb.Bytes(), src, dst, limit)
					require.ErrorIs(t, err, deflate.ErrTooLarge)
					require.Len(t, out, int(limit))
					require.True(t, d.Between(), "what inflating takes is given back")
				}
			}
		}
	}
}

func TestExactlyTheLimit(t *testing.T) {
	for _, m := range messages(9) {
		c := deflate.NewCompressor(15, false, 0)
		p := c.Message(nil, m)
		for _, dst := range []int{1 << 10, 1 << 20} {
			got, err := inflate(deflate.NewDecompressor(15, false), p, 1<<20, dst, max(1, int64(len(m))))
			require.NoError(t, err)
			require.True(t, bytes.Equal(m, got))
			if len(m) > 1 {
				got, err = inflate(deflate.NewDecompressor(15, false), p, 1<<20, dst, int64(len(m)-1))
				require.ErrorIs(t, err, deflate.ErrTooLarge)
				require.True(t, bytes.Equal(m[:len(m)-1], got))
			}
		}
	}
}

// The content of a fragment is returned before the next fragment arrives.
func TestInflatesAsItComes(t *testing.T) {
	text := bytes.Repeat([]byte("text that goes on, "), 100)
	p := deflate.NewCompressor(15, false, 0).Message(nil, text)
	d := deflate.NewDecompressor(15, false)
	d.Begin(0)
	dst := make([]byte, 2*len(text))
	half, read, done, err := d.Inflate(dst, p[:len(p)-8], false)
	require.NoError(t, err)
	require.Equal(t, len(p)-8, read)
	require.False(t, done)
	require.Greater(t, half, 18, "of %d", len(text))
	require.Equal(t, text[:half], dst[:half])
	rest, _, done, err := d.Inflate(dst[half:], p[len(p)-8:], true)
	require.NoError(t, err)
	require.True(t, done)
	require.Equal(t, text, dst[:half+rest])
}

func TestAMessageGivenUp(t *testing.T) {
	p := deflate.NewCompressor(15, false, 0).Message(nil, []byte("a message that is given up, message"))
	for _, takeover := range []bool{false, true} {
		d := deflate.NewDecompressor(15, takeover)
		d.Begin(0)
		_, _, done, err := d.Inflate(make([]byte, 100), p[:10], false)
		require.NoError(t, err)
		require.False(t, done)
		_, err = inflate(d, p, 100, 100, 0)
		if takeover {
			require.ErrorContains(t, err, "abandoned")
		} else {
			require.NoError(t, err)
		}
	}
}

func TestMessagesInParts(t *testing.T) {
	for _, takeover := range []bool{false, true} {
		c, d := deflate.NewCompressor(15, takeover, 0), deflate.NewDecompressor(15, takeover)
		for _, m := range messages(4) {
			var payload []byte
			for part := m; len(part) > 0; {
				n := min(len(part), 1+len(m)/7)
				payload = append(payload, c.Append(nil, part[:n])...)
				part = part[n:]
			}
			payload = append(payload, c.End(nil)...)
			require.True(t, bytes.Equal(m, []byte(inflateAll(t, d, payload))))
		}
		c.Close()
	}
}

// A broadcast is compressed once and sent among the messages of each connection.
func TestSent(t *testing.T) {
	once := deflate.NewCompressor(8, false, 0)
	c, d := deflate.NewCompressor(15, true, 0), deflate.NewDecompressor(15, true)
	defer c.Close()
	for i := range 20 {
		own := []byte(fmt.Sprintf("my own message %d, my own", i))
		news := []byte(fmt.Sprintf("news for everyone %d, everyone", i))
		require.Equal(t, string(own), inflateAll(t, d, c.Message(nil, own)))
		require.Equal(t, string(news), inflateAll(t, d, once.Message(nil, news)))
		c.Sent(news)
		repeated := c.Message(nil, news)
		require.Less(t, len(repeated), len(news)*2/3, "it refers to what everyone got")
		require.Equal(t, string(news), inflateAll(t, d, repeated))
	}
}

// More connections than Parked, on several goroutines, take compressors from each
// other. Every message still refers to the one before it.
func TestParkedAreTakenAway(t *testing.T) {
	const connections, goroutines, rounds = 3 * deflate.Parked, 4, 30
	var wg sync.WaitGroup
	errs := make(chan error, goroutines)
	for g := range goroutines {
		wg.Go(func() {
			errs <- func() error {
				var cs []*deflate.Compressor
				var ds []*deflate.Decompressor
				for range connections / goroutines {
					cs, ds = append(cs, deflate.NewCompressor(15, true, 0)), append(ds, deflate.NewDecompressor(15, true))
				}
				for r := range rounds {
					for i := range cs {
						m := fmt.Appendf(nil, "goroutine %d connection %d says what it always says", g, i)
						p := cs[i].Message(nil, m)
						if r > 0 && len(p) > 20 {
							return fmt.Errorf("message %d takes %d bytes: the window was forgotten", r, len(p))
						}
						got, err := inflate(ds[i], p, 100, 100, 0)
						if err != nil || !bytes.Equal(got, m) {
							return fmt.Errorf("round %d: %q, %w", r, got, err)
						}
						if r%7 == i%7 {
							cs[i].Close()
							cs[i], ds[i] = deflate.NewCompressor(15, true, 0), deflate.NewDecompressor(15, true)
							cs[i].Message(nil, m)
							ds[i] = deflate.NewDecompressor(15, true)
							cs[i].Close()
							cs[i] = deflate.NewCompressor(15, true, 0)
							p := cs[i].Message(nil, m)
							if got, err := inflate(ds[i], p, 100, 100, 0); err != nil || !bytes.Equal(got, m) {
								return fmt.Errorf("after a new start: %q, %w", got, err)
							}
						}
					}
				}
				for _, c := range cs {
					c.Close()
					c.Close()
				}
				return nil
			}()
		})
	}
	wg.Wait()
	for range goroutines {
		require.NoError(t, <-errs)
	}
}

func TestBadArguments(t *testing.T) {
	for name, f := range map[string]func(){
		"bits 7":       func() { deflate.NewCompressor(7, false, 0) },
		"bits 16":      func() { deflate.NewDecompressor(16, false) },
		"level":        func() { deflate.NewCompressor(15, false, 10) },
		"after Close":  func() { c := deflate.NewCompressor(15, false, 0); c.Close(); c.Message(nil, nil) },
		"Sent within":  func() { c := deflate.NewCompressor(15, true, 0); c.Append(nil, nil); c.Sent(nil) },
		"level below ": func() { deflate.NewCompressor(15, false, -1) },
	} {
		require.Panics(t, f, name)
	}
}
