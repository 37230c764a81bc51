package broken

import (
	"bytes"
	"compress/flate"
	"io"
	"strconv"
	"strings"
)

// A compression is both directions of permessage-deflate. It is as simple as
// can be: a compressor that begins anew with every message, and stays within a
// small window by beginning anew whenever that is full.
type compression struct {
	quirks    *quirks
	bits      int  // of the server's window
	noContext bool // the client does not remember earlier messages
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
		panic(err) // the level is a constant
	}
	if d.quirks.stale != nil { // looks back at what the client was told to forget
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
	src := io.MultiReader(bytes.NewReader(p), strings.NewReader("\x00\x00\xff\xff\x01\x00\x00\xff\xff"))
	past := d.past
	if d.quirks.forgets {
		past = nil
	}
	limit := int64(64 << 20)
	if d.quirks.maxMessage > 0 {
		limit = int64(d.quirks.maxMessage)
	}
	out, err := io.ReadAll(io.LimitReader(flate.NewReaderDict(src, past), limit+1))
	if err != nil {
		return nil, notUTF8 // 1007: not what it should be
	}
	if int64(len(out)) > limit {
		return nil, tooLarge
	}
	if !d.noContext {
		d.past = append(d.past, out...)
		if over := len(d.past) - 1<<15; over > 0 {
			d.past = append([]byte(nil), d.past[over:]...)
		}
	}
	return out, nil
}

// negotiate answers the first good offer, or returns nil.
func negotiate(value string, q *quirks) (d *compression, answer string) {
	for offer := range strings.SplitSeq(value, ",") {
		parts := strings.Split(offer, ";")
		if strings.TrimSpace(parts[0]) != "permessage-deflate" {
			continue
		}
		d, answer = &compression{quirks: q, bits: 15}, "permessage-deflate"
		seen, good := map[string]bool{}, true
		for _, s := range parts[1:] {
			name, v, has := strings.Cut(strings.TrimSpace(s), "=")
			bits, err := strconv.Atoi(v)
			inRange := err == nil && bits >= 8 && bits <= 15 && v == strconv.Itoa(bits)
			good = good && !seen[name]
			seen[name] = true
			switch name {
			case "server_no_context_takeover":
				if good = good && !has; !q.forgetsNoContext {
					answer += "; " + name
				}
			case "client_no_context_takeover":
				good = good && !has // a hint
			case "client_max_window_bits":
				good = good && (!has || inRange)
			case "server_max_window_bits":
				good = good && inRange
				d.bits = bits
				answer += "; " + name + "=" + v
			default:
				good = false
			}
		}
		if good || q.takesBadOffers {
			return d, answer
		}
	}
	return nil, ""
}
