package utf8check

import (
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// The first invalid byte is found when it arrives, not when its character would
// have been complete.
func TestFirstBadByte(t *testing.T) {
	for _, c := range []struct {
		text string
		at   int // the index of the first bad byte; -1: none
	}{
		{"", -1},
		{"hello", -1},
		{"κόσμε", -1},
		{"\U0010ffff", -1},
		{"\xff", 0},
		{"a\x80", 1},
		{"\xc0\xaf", 0},         // overlong
		{"\xc1", 0},             // always overlong
		{"\xe0\x80\x80", 1},     // overlong
		{"\xf0\x80\x80\x80", 1}, // overlong
		{"\xed\xa0\x80", 1},     // a surrogate
		{"\xf4\x90\x80\x80", 1}, // beyond U+10FFFF
		{"\xf5", 0},             // likewise
		{"κόσμε\xf4\x90", 11},   // as in Autobahn's 6.4
		{"\xe2\x82", -1},        // not complete, not wrong
		{"\xe2\x28\xa1", 1},     // a new character in the middle of one
		{"\xf0\x9f\x98\x41", 3}, // likewise
		{strings.Repeat("a", 40) + "\xfe", 40},
	} {
		for size := 1; size <= max(1, len(c.text)); size++ {
			var k Checker
			bad := -1
			for i := 0; i < len(c.text) && bad < 0; i += size {
				end := min(i+size, len(c.text))
				if !k.Write([]byte(c.text[i:end])) {
					bad = end
				}
			}
			if c.at < 0 {
				require.Equal(t, -1, bad, "%q in pieces of %d", c.text, size)
				require.Equal(t, utf8.ValidString(c.text), k.Complete())
			} else { // in the piece that has the byte
				require.Equal(t, min((c.at/size+1)*size, len(c.text)), bad, "%q in pieces of %d", c.text, size)
			}
		}
	}
}

func TestReset(t *testing.T) {
	var c Checker
	require.True(t, c.Write([]byte("\xe2\x82")))
	require.False(t, c.Complete())
	c.Reset()
	require.True(t, c.Complete())
	require.True(t, c.Write([]byte("a")))
}

func FuzzChecker(f *testing.F) {
	f.Add([]byte("κόσμε \xf0\x9f\x98\x80"), uint64(1))
	f.Add([]byte("\xed\xa0\x80"), uint64(2))
	f.Fuzz(func(t *testing.T, p []byte, seed uint64) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		var c Checker
		ok := true
		for rest := p; len(rest) > 0 && ok; {
			n := 1 + rnd.IntN(min(len(rest), 7))
			ok = c.Write(rest[:n])
			rest = rest[n:]
		}
		require.Equal(t, utf8.Valid(p), ok && c.Complete())
	})
}
