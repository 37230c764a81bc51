package brokenws

import (
	"bytes"
	"compress/flate"
	"io"
	"strconv"
	"strings"
)

// A compression is both directions of permessage-deflate. It is as simple as possible:
// the compressor starts afresh with every message. It stays within a small window by
// starting afresh whenever the window is full.
type compression struct {
	quirks    *quirks
	bits      int  // of its own window
	noContext bool // the peer starts afresh with every message
	past      []byte
}

func (d *compression) compress(p []byte) []byte {
	var out bytes.Buffer
	step := 1 << d.bits
	if d.quirks.wideWindow {
		step = 1 << 15
	}
	w, err := flate.NewWriter(&out, flate.BestSpeed)
	if err != nil {
		panic(err) // cannot happen: the level is a constant
	}
	if d.quirks.stale != nil { // refers to bytes that the client was told to forget
		w, _ = flate.NewWriterDict(&out, 6, d.quirks.stale)
	}
	for first := true; first || len(p) > 0; first = false {
		if !first && step < 1<<15 {
			w.Reset(&out)
		}
		n := min(step, len(p))
		if step == 1<<15 {
			n = len(p)
		}
		_, _ = w.Write(p[:n])
		_ = w.Flush()
		p = p[n:]
	}
	if d.quirks.keepsTail {
		return out.Bytes()
	}
	return out.Bytes()[:out.Len()-4]
}

func (d *compression) inflate(p []byte) ([]byte, error) {
	if d.quirks.data != nil {
		var err error
		if p, err = d.quirks.data(p); err != nil {
			return nil, err
		}
	}
	src := io.MultiReader(bytes.NewReader(p), strings.NewReader("\x00\x00\xff\xff\x01\x00\x00\xff\xff"))
	if d.quirks.noTail {
		src = bytes.NewReader(p)
	}
	past := d.past
	if d.quirks.forgets {
		past = nil
	}
	if d.quirks.zeroWindow {
		past = append(make([]byte, 1<<15), past...)
	}
	limit := int64(64 << 20)
	if d.quirks.maxMessage > 0 && !d.quirks.inflatesAll {
		limit = int64(d.quirks.maxMessage)
	}
	out, err := io.ReadAll(io.LimitReader(flate.NewReaderDict(src, past), limit+1))
	if err != nil && !d.quirks.takesAnyData {
		return nil, notUTF8 // 1007, the code for data that does not fit its type
	}
	if int64(len(out)) > limit {
		return nil, tooLarge
	}
	if !d.noContext {
		d.past = append(d.past, out...)
		if over := len(d.past) - d.quirks.remembers; over > 0 {
			d.past = append([]byte(nil), d.past[over:]...)
		}
	}
	return out, nil
}

// parameters calls f with each parameter: whether it has a value, and the value if it
// is a valid window size, else 0. It reports whether the parameters are valid, which
// means that f accepts each and none is repeated.
func parameters(list []string, f func(name string, has bool, bits int) bool) bool {
	seen, good := map[string]bool{}, true
	for _, s := range list {
		name, v, has := strings.Cut(strings.TrimSpace(s), "=")
		bits, err := strconv.Atoi(v)
		if err != nil || bits < 8 || bits > 15 || v != strconv.Itoa(bits) {
			bits = 0
		}
		good = f(name, has, bits) && good && !seen[name]
		seen[name] = true
	}
	return good
}

// negotiate answers the first valid offer, or returns nil.
func negotiate(value string, q *quirks) (d *compression, answer string) {
	for offer := range strings.SplitSeq(value, ",") {
		parts := strings.Split(offer, ";")
		if strings.TrimSpace(parts[0]) != "permessage-deflate" {
			continue
		}
		d, answer = &compression{quirks: q, bits: 15}, "permessage-deflate"
		good := parameters(parts[1:], func(name string, has bool, bits int) bool {
			switch name {
			case "server_no_context_takeover":
				answer += "; " + name
				return !has
			case "client_no_context_takeover":
				return !has // the value is only a hint
			case "client_max_window_bits":
				return !has || bits > 0
			case "server_max_window_bits":
				d.bits = bits
				answer += "; " + name + "=" + strconv.Itoa(bits)
				return bits > 0
			}
			return false
		})
		if good || q.takesBadOffers {
			return d, answer
		}
	}
	return nil, ""
}

// offer is what a client offers. It does whatever the answer asks for.
const offer = "permessage-deflate; client_no_context_takeover; client_max_window_bits"

// agree parses the answer to offer, and reports whether it is valid.
func agree(value string, q *quirks) (d *compression, ok bool) {
	if value == "" {
		return nil, true
	}
	parts := strings.Split(value, ";")
	d = &compression{quirks: q, bits: 15}
	good := parameters(parts[1:], func(name string, has bool, bits int) bool {
		switch name {
		case "server_no_context_takeover":
			d.noContext = true
			return !has
		case "client_no_context_takeover":
			return !has // this compressor never refers to earlier messages
		case "client_max_window_bits":
			if bits > 0 {
				d.bits = bits
			}
			return bits > 0
		case "server_max_window_bits":
			return bits > 0 // this inflater has a larger window
		}
		return false
	})
	if good = good && strings.TrimSpace(parts[0]) == "permessage-deflate" && !strings.Contains(value, ","); !good {
		d = nil
	}
	return d, good || q.takesBadOffers
}
