package websocket

import (
	"bytes"
	"compress/flate"
	"errors"
	"fmt"
	"io"
)

// flushTail is the end of a flush, which is not sent (RFC 7692 section 7.2.1), followed
// by an empty last block so that the reader sees an end.
var flushTail = []byte{0x00, 0x00, 0xff, 0xff, 0x01, 0x00, 0x00, 0xff, 0xff}

// A deflater compresses messages for one direction.
type deflater struct {
	takeover bool
	window   int // bytes; below 32 KiB the compressor starts afresh after so many
	w        *flate.Writer
	out      bytes.Buffer
	used     int // bytes since the last fresh start
}

func newDeflater(takeover bool, bits int) *deflater {
	if bits <= 0 {
		bits = 15
	}
	d := &deflater{takeover: takeover, window: 1 << bits}
	w, err := flate.NewWriter(&d.out, flate.BestSpeed)
	if err != nil {
		panic(err) // cannot happen: the level is a constant
	}
	d.w = w
	return d
}

// compress returns the compressed form of a message, valid until the next call.
// The standard library's window is always 32 KiB. A smaller window is kept by starting
// afresh, so that no distance reaches further back than the last start.
func (d *deflater) compress(p []byte) []byte {
	d.out.Reset()
	if !d.takeover {
		d.restart()
	}
	for {
		n := len(p)
		if d.window < 1<<15 {
			if d.used == d.window {
				d.restart()
			}
			n = min(n, d.window-d.used)
		}
		_, _ = d.w.Write(p[:n]) // writing to memory cannot fail
		_ = d.w.Flush()
		d.used += n
		if p = p[n:]; len(p) == 0 {
			break
		}
	}
	b := d.out.Bytes()
	return b[:len(b)-4] // without the end of the flush
}

func (d *deflater) restart() {
	d.w.Reset(&d.out)
	d.used = 0
}

// An inflater decompresses messages of one direction.
type inflater struct {
	takeover bool
	window   int
	r        io.ReadCloser
	dict     []byte
	checked  int // bytes of output whose distances are checked
}

func newInflater(takeover bool, bits int) *inflater {
	if bits <= 0 {
		bits = 15
	}
	return &inflater{takeover: takeover, window: 1 << bits, r: flate.NewReader(bytes.NewReader(nil))}
}

// maxChecked is how many bytes of output have their distances checked, which is slow.
const maxChecked = 1 << 20

// inflate decompresses the message p, which may have up to limit bytes.
func (d *inflater) inflate(p []byte, limit int) ([]byte, error) {
	if d.window < 1<<15 && d.checked < maxChecked {
		far, n, err := farthest(p, len(d.dict))
		d.checked += n
		if err != nil {
			return nil, &violation{1007, err.Error()}
		}
		if far > d.window {
			return nil, protocolError("a compressed message looks back %d bytes: the window is %d", far, d.window)
		}
	}
	if err := d.r.(flate.Resetter).Reset(io.MultiReader(bytes.NewReader(p), bytes.NewReader(flushTail)), d.dict); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	out.Grow(2 * len(p))
	n, err := io.Copy(&out, io.LimitReader(d.r, int64(limit)+1))
	if err != nil {
		return nil, &violation{1007, fmt.Sprintf("a compressed message: %v", err)}
	}
	if n > int64(limit) {
		return nil, &violation{1009, fmt.Sprintf("a compressed message of more than %d bytes", limit)}
	}
	if d.takeover {
		d.dict = append(d.dict, out.Bytes()...)
		if over := len(d.dict) - d.window; over > 0 {
			d.dict = append(d.dict[:0], d.dict[over:]...)
		}
	}
	return out.Bytes(), nil
}

// farthest walks through the blocks of a compressed message (RFC 1951). It returns the
// largest distance to before the message, and how many bytes the message has; have is
// how many bytes precede it. The standard library's reader accepts any distance up to
// 32 KiB, whatever was negotiated.
func farthest(p []byte, have int) (far, n int, err error) {
	b := bits{p: append(append([]byte(nil), p...), flushTail...)}
	for {
		last, kind := b.take(1), b.take(2)
		switch kind {
		case 0:
			b.align()
			length := int(b.take(16))
			if complement := int(b.take(16)); complement != length^0xffff {
				return 0, 0, errors.New("a stored block whose lengths differ")
			}
			b.at += length
			n += length
		case 1, 2:
			lit, dist := fixedLit, fixedDist
			if kind == 2 {
				if lit, dist, err = b.tables(); err != nil {
					return 0, 0, err
				}
			}
			for !b.over() {
				s := b.symbol(lit)
				if s == 256 {
					break
				}
				if s < 256 {
					n++
					continue
				}
				if s -= 257; s >= len(lengthBase) {
					return 0, 0, errors.New("a length that does not exist")
				}
				length := lengthBase[s] + int(b.take(lengthExtra[s]))
				d := b.symbol(dist)
				if d >= len(distBase) {
					return 0, 0, errors.New("a distance that does not exist")
				}
				far = max(far, distBase[d]+int(b.take(distExtra[d])))
				if far > have+n {
					return 0, 0, errors.New("a distance to before the beginning")
				}
				n += length
			}
		default:
			return 0, 0, errors.New("a block of an unknown kind")
		}
		if b.over() {
			return 0, 0, errors.New("a compressed message that breaks off")
		}
		if last == 1 {
			return far, n, nil
		}
	}
}

// bits reads bits, the lowest first. After the end it returns zeros.
type bits struct {
	p    []byte
	at   int
	acc  uint32
	have uint
}

func (b *bits) take(n uint) (v uint32) {
	for b.have < n {
		if b.at < len(b.p) {
			b.acc |= uint32(b.p[b.at]) << b.have
		}
		b.at++
		b.have += 8
	}
	v = b.acc & (1<<n - 1)
	b.acc >>= n
	b.have -= n
	return v
}

func (b *bits) align()     { b.acc, b.have = 0, 0 }
func (b *bits) over() bool { return b.at > len(b.p) }

// A huffman is a Huffman code: how many codes there are of each length, and the symbols
// in the order of their codes.
type huffman struct {
	count   [16]int
	symbols []int
}

func newHuffman(lengths []int) *huffman {
	h := &huffman{symbols: make([]int, 0, len(lengths))}
	for length := 1; length < 16; length++ {
		for s, l := range lengths {
			if l == length {
				h.count[length]++
				h.symbols = append(h.symbols, s)
			}
		}
	}
	return h
}

// symbol decodes one symbol, or returns a number that is not a symbol.
func (b *bits) symbol(h *huffman) int {
	code, first, index := 0, 0, 0
	for length := 1; length < 16; length++ {
		code |= int(b.take(1))
		if n := h.count[length]; code-first < n {
			return h.symbols[index+code-first]
		} else {
			index += n
			first = (first + n) << 1
		}
		code <<= 1
	}
	return 1 << 16
}

var codeLengthOrder = [19]int{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

// tables reads the codes of a dynamic block.
func (b *bits) tables() (lit, dist *huffman, err error) {
	nlit, ndist, ncode := int(b.take(5))+257, int(b.take(5))+1, int(b.take(4))+4
	order := make([]int, 19)
	for i := range ncode {
		order[codeLengthOrder[i]] = int(b.take(3))
	}
	h := newHuffman(order)
	lengths := make([]int, 0, nlit+ndist)
	for len(lengths) < nlit+ndist {
		s := b.symbol(h)
		value, times := 0, 0
		switch {
		case s < 16:
			value, times = s, 1
		case s == 16:
			if len(lengths) == 0 {
				return nil, nil, errors.New("a table that repeats nothing")
			}
			value, times = lengths[len(lengths)-1], 3+int(b.take(2))
		case s == 17:
			times = 3 + int(b.take(3))
		case s == 18:
			times = 11 + int(b.take(7))
		default:
			return nil, nil, errors.New("a table with an unknown code")
		}
		for range times {
			lengths = append(lengths, value)
		}
	}
	if len(lengths) > nlit+ndist {
		return nil, nil, errors.New("a table that is too long")
	}
	return newHuffman(lengths[:nlit]), newHuffman(lengths[nlit:]), nil
}

// Lengths and distances (RFC 1951 section 3.2.5): base values and extra bits.
var (
	lengthBase, lengthExtra = lengthCodes()
	distBase, distExtra     = distCodes()
	fixedLit, fixedDist     = fixedCodes()
)

func lengthCodes() (base []int, extra []uint) {
	next := 3
	for i := range 28 {
		e := uint(max(0, i/4-1))
		base, extra = append(base, next), append(extra, e)
		next += 1 << e
	}
	return append(base, 258), append(extra, 0)
}

func distCodes() (base []int, extra []uint) {
	next := 1
	for i := range 30 {
		e := uint(max(0, i/2-1))
		base, extra = append(base, next), append(extra, e)
		next += 1 << e
	}
	return base, extra
}

func fixedCodes() (lit, dist *huffman) {
	l := make([]int, 288)
	for i := range l {
		switch {
		case i < 144, i > 279:
			l[i] = 8
		case i < 256:
			l[i] = 9
		default:
			l[i] = 7
		}
	}
	d := make([]int, 30)
	for i := range d {
		d[i] = 5
	}
	return newHuffman(l), newHuffman(d)
}
