package deflate_test

import (
	"bytes"
	stdflate "compress/flate"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/ws/internal/deflate"
)

// inflate inflates a message in pieces of srcPiece bytes into memory of dstPiece
// bytes at a time.
func inflate(d *deflate.Decompressor, payload []byte, srcPiece, dstPiece int, limit int64) (out []byte, err error) {
	d.Begin(limit)
	dst := make([]byte, dstPiece)
	for {
		src := payload[:min(srcPiece, len(payload))]
		payload = payload[len(src):]
		last := len(payload) == 0
		for {
			n, read, done, err := d.Inflate(dst, src, last)
			out = append(out, dst[:n]...)
			if err != nil {
				return out, err
			}
			src = src[read:]
			if done {
				if len(src) > 0 || !last {
					return out, errors.New("done before the end")
				}
				return out, nil
			}
			if n < len(dst) {
				if len(src) > 0 || last {
					return out, fmt.Errorf("stopped with %d bytes of input and %d of room left", len(src), len(dst)-n)
				}
				break
			}
		}
	}
}

func inflateAll(t *testing.T, d *deflate.Decompressor, payload []byte) string {
	t.Helper()
	out, err := inflate(d, payload, len(payload)+1, 1<<16, 0)
	require.NoError(t, err)
	require.True(t, d.Between())
	return string(out)
}

// messages returns messages of many sizes and kinds, the same for each seed.
func messages(seed uint64) (list [][]byte) {
	rnd := rand.New(rand.NewPCG(seed, 6))
	noise := make([]byte, 300_000)
	_, _ = rand.NewChaCha8([32]byte{byte(seed)}).Read(noise)
	var text bytes.Buffer
	for text.Len() < 300_000 {
		fmt.Fprintf(&text, `{"id":%d,"user":"user-%d","text":"noria turns the wheel"},`, rnd.IntN(1000), rnd.IntN(50))
	}
	for _, size := range []int{0, 1, 2, 5, 13, 64, 125, 126, 300, 1000, 4096, 32767, 32768, 32769, 65535, 65536, 100_000, 300_000} {
		switch rnd.IntN(4) {
		case 0:
			list = append(list, noise[:size])
		case 1:
			list = append(list, bytes.Repeat([]byte{byte(size)}, size))
		case 2:
			list = append(list, append(append([]byte{}, noise[:size/3]...), text.Bytes()[:size-size/3]...))
		default:
		}
		if testing.Short() && size > 100_000 {
			continue
		}
		list = append(list, text.Bytes()[:size])
	}
	rnd.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list
}

func TestRoundTrip(t *testing.T) {
	step := 1
	if testing.Short() {
		step = 7
	}
	for bits := deflate.MinWindowBits; bits <= deflate.MaxWindowBits; bits += step {
		for _, takeover := range []bool{false, true} {
			for level := 1; level <= 9; level += 4 {
				t.Run(fmt.Sprintf("bits %d takeover %v level %d", bits, takeover, level), func(t *testing.T) {
					c := deflate.NewCompressor(bits, takeover, level)
					defer c.Close()
					d := deflate.NewDecompressor(bits, takeover)
					defer d.Close()
					for i, m := range messages(uint64(bits)) {
						payload := c.Message(nil, m)
						src, dst := 1<<20, 1<<20
						if i%3 == 1 && len(m) < 5000 {
							src, dst = 1, 1
						} else if i%3 == 2 {
							src, dst = 1000, 777
						}
						got, err := inflate(d, payload, src, dst, int64(len(m)))
						require.NoError(t, err, "message %d", i)
						require.True(t, bytes.Equal(m, got), "message %d of %d bytes", i, len(m))
					}
					if !takeover {
						require.Zero(t, c.Held()+d.Held())
					}
					require.LessOrEqual(t, c.Held(), 1<<bits)
					require.LessOrEqual(t, d.Held(), 1<<bits)
				})
			}
		}
	}
}

// No reference goes further back than the window. An inflater with room for one
// byte at a time has only its window.
func TestTheWindowIsHonoured(t *testing.T) {
	for bits := deflate.MinWindowBits; bits < deflate.MaxWindowBits; bits++ {
		c := deflate.NewCompressor(bits, true, 0)
		d := deflate.NewDecompressor(bits, true)
		smaller := deflate.NewDecompressor(deflate.MinWindowBits, true)
		sawReach := false
		for _, m := range messages(3) {
			m = m[:min(len(m), 66_000)]
			payload := c.Message(nil, m)
			got, err := inflate(d, payload, len(payload)+1, 1, 0)
			require.NoError(t, err)
			require.True(t, bytes.Equal(m, got))
			if _, err := inflate(smaller, payload, len(payload)+1, 1, 0); err != nil {
				sawReach = true
			}
		}
		require.Equal(t, bits > deflate.MinWindowBits, sawReach, "the test sees a reach beyond 256 bytes, bits %d", bits)
		c.Close()
	}
}

// stdInflate inflates with the standard library.
func stdInflate(t *testing.T, payload, dict []byte) []byte {
	t.Helper()
	// The standard library needs a final block after the tail.
	r := stdflate.NewReaderDict(io.MultiReader(bytes.NewReader(payload), bytes.NewReader([]byte("\x00\x00\xff\xff\x01\x00\x00\xff\xff"))), dict)
	out, err := io.ReadAll(r)
	require.NoError(t, err)
	return out
}

func TestTheStandardLibraryInflatesIt(t *testing.T) {
	for _, bits := range []int{8, 11, 15} {
		for level := 1; level <= 9; level += levelStep() {
			for _, takeover := range []bool{false, true} {
				c := deflate.NewCompressor(bits, takeover, level)
				var dict []byte
				for _, m := range messages(uint64(level)) {
					require.True(t, bytes.Equal(m, stdInflate(t, c.Message(nil, m), dict)), "bits %d level %d takeover %v", bits, level, takeover)
					if takeover {
						dict = append(dict, m...)
						dict = dict[max(0, len(dict)-1<<15):]
					}
				}
				c.Close()
			}
		}
	}
}

func levelStep() int {
	if testing.Short() {
		return 4
	}
	return 1
}

func TestItInflatesTheStandardLibrarys(t *testing.T) {
	for level := stdflate.HuffmanOnly; level <= 9; level += levelStep() {
		var out bytes.Buffer
		w, err := stdflate.NewWriter(&out, level)
		require.NoError(t, err)
		keep, fresh := deflate.NewDecompressor(15, true), deflate.NewDecompressor(15, false)
		for i, m := range messages(uint64(level + 5)) {
			out.Reset()
			_, err := w.Write(m)
			require.NoError(t, err)
			require.NoError(t, w.Flush())
			got, err := inflate(keep, bytes.TrimSuffix(out.Bytes(), []byte("\x00\x00\xff\xff")), 1+i*100, 1+i*50, 0)
			require.NoError(t, err)
			require.True(t, bytes.Equal(m, got))

			// An independent message that ends with a final block.
			var own bytes.Buffer
			w2, err := stdflate.NewWriter(&own, level)
			require.NoError(t, err)
			_, err = w2.Write(m)
			require.NoError(t, err)
			require.NoError(t, w2.Close())
			got, err = inflate(fresh, append(own.Bytes(), 0), 1+i*100, 1+i*50, 0)
			require.NoError(t, err)
			require.True(t, bytes.Equal(m, got))
		}
	}
}

// The examples of RFC 7692 §7.2.3, and other valid payloads.
func TestPayloads(t *testing.T) {
	hello := "\xf2\x48\xcd\xc9\xc9\x07\x00"
	stored := "\x00\x05\x00\xfa\xffHello"
	for name, tt := range map[string]struct {
		payloads []string
		takeover bool
		want     []string
	}{
		"one block (§7.2.3.1)":               {payloads: []string{hello}, want: []string{"Hello"}},
		"takeover (§7.2.3.2)":                {payloads: []string{hello, "\xf2\x00\x11\x00\x00"}, takeover: true, want: []string{"Hello", "Hello"}},
		"no takeover":                        {payloads: []string{hello, hello}, want: []string{"Hello", "Hello"}},
		"stored block (§7.2.3.3)":            {payloads: []string{stored + "\x00"}, want: []string{"Hello"}},
		"final block (§7.2.3.4)":             {payloads: []string{"\xf3\x48\xcd\xc9\xc9\x07\x00\x00"}, want: []string{"Hello"}},
		"final block, nothing behind":        {payloads: []string{"\xf3\x48\xcd\xc9\xc9\x07\x00"}, want: []string{"Hello"}},
		"final block, then another message":  {payloads: []string{"\xf3\x48\xcd\xc9\xc9\x07\x00\x00", "\xf2\x00\x11\x00\x00"}, takeover: true, want: []string{"Hello", "Hello"}},
		"final block in the middle":          {payloads: []string{"\xf3\x48\xcd\xc9\xc9\x07\x00" + hello}, want: []string{"HelloHello"}},
		"final block, then back into it":     {payloads: []string{"\xf3\x48\xcd\xc9\xc9\x07\x00\xf2\x00\x11\x00\x00"}, want: []string{"HelloHello"}},
		"two blocks (§7.2.3.5)":              {payloads: []string{"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00"}, want: []string{"Hello"}},
		"empty (§7.2.3.6)":                   {payloads: []string{"\x00"}, want: []string{""}},
		"empty, a fixed block":               {payloads: []string{"\x02\x00"}, want: []string{""}},
		"no byte at all":                     {payloads: []string{"", hello, ""}, takeover: true, want: []string{"", "Hello", ""}},
		"the tail was left":                  {payloads: []string{hello + "\x00\x00\xff\xff", hello}, takeover: true, want: []string{"Hello", "Hello"}},
		"many empty blocks":                  {payloads: []string{"\x00\x00\x00\xff\xff\x00\x00\x00\xff\xff" + hello}, want: []string{"Hello"}},
		"stored blocks and a match into one": {payloads: []string{stored + "\xf2\x00\x11\x00\x00"}, want: []string{"HelloHello"}},
	} {
		for _, size := range []int{1, 2, 3, 100} {
			d := deflate.NewDecompressor(15, tt.takeover)
			for i, p := range tt.payloads {
				got, err := inflate(d, []byte(p), size, size, 0)
				require.NoError(t, err, "%s, message %d", name, i)
				require.Equal(t, tt.want[i], string(got), "%s, message %d", name, i)
			}
		}
	}
}
