// Package utf8check checks text that comes in pieces, and finds the first byte
// that cannot be part of UTF-8 as soon as it is there: RFC 6455, section 8.1.
package utf8check

import "unicode/utf8"

// A Checker remembers the first bytes of a character that is not complete, at
// most three. The zero value is at the beginning of a text.
type Checker struct {
	part [utf8.UTFMax]byte
	n    int
}

// Write reports whether the text may still be UTF-8 after p.
func (c *Checker) Write(p []byte) bool {
	for c.n > 0 && len(p) > 0 {
		c.part[c.n] = p[0]
		c.n++
		p = p[1:]
		if utf8.FullRune(c.part[:c.n]) { // complete, or wrong
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

// Complete reports whether the text may end here.
func (c *Checker) Complete() bool { return c.n == 0 }

// Reset begins a new text.
func (c *Checker) Reset() { c.n = 0 }

// incomplete returns how many bytes at the end of p begin a character that can
// still become one.
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
