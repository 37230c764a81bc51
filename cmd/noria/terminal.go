package main

import (
	"io"
	"os"
	"strconv"
	"strings"
	"unicode"
)

// isTerminal reports whether w is a terminal, or a device of a similar kind.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// escape returns s with its control characters as Go's source has them, but for
// those of keep: what others have written is not to command a terminal.
func escape(s, keep string) string {
	var b strings.Builder
	for _, r := range s { // bytes that are no UTF-8 could be controls too: they become U+FFFD
		if unicode.IsControl(r) && !strings.ContainsRune(keep, r) {
			q := strconv.QuoteRune(r)
			b.WriteString(q[1 : len(q)-1])
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}
