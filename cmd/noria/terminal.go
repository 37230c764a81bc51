package main

import (
	"io"
	"os"
	"strconv"
	"strings"
	"unicode"
)

// isTerminal reports whether w is a terminal or another character device.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// escape returns s with its control characters escaped as in Go source, except for
// those in keep: text from a peer must not control the terminal.
func escape(s, keep string) string {
	var b strings.Builder
	for _, r := range s { // invalid UTF-8 could be control characters too: range makes it U+FFFD
		if unicode.IsControl(r) && !strings.ContainsRune(keep, r) {
			q := strconv.QuoteRune(r)
			b.WriteString(q[1 : len(q)-1])
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}
