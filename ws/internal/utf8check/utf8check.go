// Package utf8check validates UTF-8 text that arrives in pieces, and finds the
// first byte that cannot be valid as soon as it arrives (RFC 6455 §8.1).
package utf8check

import "unicode/utf8"

// A Checker keeps the bytes of an incomplete character, at most three. The zero
// value is ready for a text.
type Checker struct {
	part [utf8.UTFMax]byte
	n    int
}

// Write reports whether the text can still be valid UTF-8 after p.
func (c *Checker) Write(p []byte) bool {
	for c.n > 0 && len(p) > 0 {
		c.part[c.n] = p[0]
		c.n++
		p = p[1:]
		if utf8.FullRune(c.part[:c.n]) { // complete or invalid
			if !utf8.Valid(c.part[:c.n]) {
				return false
			}
			c.n = 0
		}
	}
	cut := len(p) - incomplete(p)
	if !utf8.Valid(p[:cut]) {
		return false
	}
	if cut < len(p) {
		c.n = copy(c.part[:], p[cut:])
	}
	return true
}

// Complete reports whether the text may end here: no character is incomplete.
func (c *Checker) Complete() bool { return c.n == 0 }

// Reset prepares the Checker for a new text.
func (c *Checker) Reset() { c.n = 0 }

// incomplete returns how many bytes at the end of p are the start of a character
// that more bytes can complete.
func incomplete(p []byte) int {
	if n := len(p); n == 0 || p[n-1] < utf8.RuneSelf {
		return 0
	}
	for n := 1; n <= 3 && n <= len(p); n++ {
		if end := p[len(p)-n:]; utf8.RuneStart(end[0]) {
			if utf8.FullRune(end) {
				return 0
			}
			return n
		}
	}
	return 0
}
