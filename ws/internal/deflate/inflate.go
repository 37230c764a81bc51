package deflate

import "encoding/binary"

// A mode is what an inflater reads next.
type mode uint8

const (
	atBlock        mode = iota // a block's header
	atStoredLength             // a stored block's length, at a byte boundary
	inStored                   // stored bytes
	atCounts                   // how many lengths each of the three codes has
	atLengthCode               // the lengths of the code in which the lengths are written
	atLengths                  // the lengths of the literal and distance codes
	atSymbol                   // a literal or a length
	atDistance                 // the distance that follows a length
	inMatch                    // nothing: a match is copied
)

// An inflater is the state of inflating one message: RFC 1951 as a state machine
// that stops when it has no more input or output space, and continues from there.
type inflater struct {
	bits  uint64 // read but not used; the next one is lowest
	nbits uint   // how many of bits are valid
	mode  mode
	final bool // the current block is the last
	full  bool // inflate returned because dst is full

	length   int // what is left of the match or the stored block
	distance int

	literals, distances         []code // the tables of the block
	literalBits, distanceBits   uint
	nliteral, ndistance, nwords int // number of lengths in a dynamic block
	known                       int // how many of those have been read

	lengths  [literals + distances]uint8
	litTable [literalTable]code
	disTable [distanceTable]code
	lenTable [lengthTable]code
	lenBits  uint

	scratch history // the window of a connection without context takeover
}

// reset prepares z for a message. The tables need no clearing.
func (z *inflater) reset() {
	z.bits, z.nbits, z.mode, z.final = 0, 0, atBlock, false
	z.scratch.forget()
}

// between reports whether all input has been used and no block is open: a message
// may end here.
func (z *inflater) between() bool { return z.mode == atBlock && z.nbits == 0 }

// An input is the input of one call of inflate.
type input struct {
	src []byte
	at  int
}

// want reads until n bits are available, and reports whether they are. n is at most
// 32.
func (z *inflater) want(in *input, n uint) bool {
	for z.nbits < n {
		if in.at == len(in.src) {
			return false
		}
		z.bits |= uint64(in.src[in.at]) << (z.nbits & 63)
		in.at++
		z.nbits += 8
	}
	return true
}

// take consumes n bits, which must be available.
func (z *inflater) take(n uint) uint {
	v := uint(z.bits & mask(n))
	z.bits >>= n & 63
	z.nbits -= n
	return v
}

// peek returns the next code of a table once all bits of its word are available. It
// consumes none.
func (z *inflater) peek(in *input, table []code, root uint) (code, bool) {
	for {
		c := table[z.bits&mask(root)]
		if c.kind() == kindLink {
			c = table[c.value()+int(z.bits>>(c.length()&63)&mask(c.extra()))]
		}
		// Bits that are not available read as zero. A word that is longer than the
		// available bits is a wrong guess, but the input is not corrupt yet.
		if n := max(1, c.length()); n <= z.nbits && (c != 0 || z.nbits >= maxWord) {
			return c, true
		}
		if in.at == len(in.src) {
			return 0, false
		}
		z.want(in, z.nbits+1)
	}
}

// inflate reads src and writes to dst from dst[n] on. The window is h followed by
// dst[:n]. It returns the new n and how many bytes of src it used. When it returns,
// src is used up, or dst is full and there is more to write: z.full.
func (z *inflater) inflate(dst []byte, n int, src []byte, h *history) (written, read int, err error) {
	in := input{src: src}
	z.full = false
	for {
		switch z.mode {
		case atBlock:
			if z.final {
				// RFC 7692 §7.2.3.4: the block after a final one begins at a byte
				// boundary.
				z.take(z.nbits & 7)
				z.final = false
			}
			if !z.want(&in, 3) {
				return n, in.at, nil
			}
			z.final = z.take(1) == 1
			switch z.take(2) {
			case 0:
				z.take(z.nbits & 7)
				z.mode = atStoredLength
			case 1:
				z.literals, z.literalBits = fixedLiterals[:], 9
				z.distances, z.distanceBits = fixedDistances[:], 5
				z.mode = atSymbol
			case 2:
				z.mode = atCounts
			default:
				return n, in.at, ErrCorrupt
			}

		case atStoredLength:
			if !z.want(&in, 32) {
				return n, in.at, nil
			}
			length, complement := z.take(16), z.take(16)
			if length != complement^0xffff {
				return n, in.at, ErrCorrupt
			}
			z.length, z.mode = int(length), inStored

		case inStored:
			for z.nbits > 0 && z.length > 0 && n < len(dst) {
				dst[n] = byte(z.take(8))
				n++
				z.length--
			}
			if z.nbits == 0 && z.length > 0 {
				c := copy(dst[n:], in.src[in.at:min(len(in.src), in.at+z.length)])
				n, in.at, z.length = n+c, in.at+c, z.length-c
			}
			if z.length > 0 {
				z.full = z.nbits > 0 || in.at < len(in.src)
				return n, in.at, nil
			}
			z.mode = atBlock

		case atCounts:
			if !z.want(&in, 14) {
				return n, in.at, nil
			}
			z.nliteral, z.ndistance, z.nwords = int(z.take(5))+257, int(z.take(5))+1, int(z.take(4))+4
			if z.nliteral > literals || z.ndistance > distances {
				return n, in.at, ErrCorrupt
			}
			clear(z.lengths[:len(lengthCodes)])
			z.known, z.mode = 0, atLengthCode

		case atLengthCode:
			for ; z.known < z.nwords; z.known++ {
				if !z.want(&in, 3) {
					return n, in.at, nil
				}
				z.lengths[lengthOrder[z.known]] = uint8(z.take(3))
			}
			var ok bool
			if z.lenBits, ok = buildTable(z.lenTable[:], lengthBits, z.lengths[:len(lengthCodes)], lengthCodes[:]); !ok {
				return n, in.at, ErrCorrupt
			}
			z.known, z.mode = 0, atLengths

		case atLengths:
			if done, err := z.readLengths(&in); err != nil || !done {
				return n, in.at, err
			}
			if err := z.buildTables(); err != nil {
				return n, in.at, err
			}
			z.mode = atSymbol

		case atSymbol:
			n = z.fast(dst, n, &in, h)
			if z.mode != atSymbol {
				continue
			}
			c, ok := z.peek(&in, z.literals, z.literalBits)
			if !ok {
				return n, in.at, nil
			}
			switch c.kind() {
			case kindLiteral:
				if n == len(dst) {
					z.full = true
					return n, in.at, nil
				}
				z.take(c.length())
				dst[n] = byte(c.value())
				n++
			case kindEnd:
				z.take(c.length())
				z.mode = atBlock
			case kindBase:
				if !z.want(&in, c.length()+c.extra()) {
					return n, in.at, nil
				}
				z.take(c.length())
				z.length = c.value() + int(z.take(c.extra()))
				z.mode = atDistance
			default:
				return n, in.at, ErrCorrupt
			}

		case atDistance:
			c, ok := z.peek(&in, z.distances, z.distanceBits)
			if !ok || c != 0 && !z.want(&in, c.length()+c.extra()) {
				return n, in.at, nil
			}
			if c == 0 {
				return n, in.at, ErrCorrupt
			}
			z.take(c.length())
			z.distance = c.value() + int(z.take(c.extra()))
			z.mode = inMatch

		case inMatch:
			if z.distance > n+h.len() {
				return n, in.at, ErrCorrupt // before the start of the window
			}
			c := copyMatch(dst, n, z.distance, z.length, h)
			n += c
			if z.length -= c; z.length > 0 {
				z.full = true
				return n, in.at, nil
			}
			z.mode = atSymbol
		}
	}
}

// lengthOrder is the order in which a block lists the lengths of the code in which
// its other lengths are written.
var lengthOrder = [...]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

// readLengths reads the word lengths of a block's two codes, and reports whether it
// has all of them.
func (z *inflater) readLengths(in *input) (bool, error) {
	for all := z.nliteral + z.ndistance; z.known < all; {
		c, ok := z.peek(in, z.lenTable[:], z.lenBits)
		if !ok {
			return false, nil
		}
		if c == 0 {
			return false, ErrCorrupt
		}
		symbol := c.value()
		if symbol < 16 {
			z.take(c.length())
			z.lengths[z.known] = uint8(symbol)
			z.known++
			continue
		}
		// 16 repeats the last length 3 to 6 times; 17 and 18 stand for 3 to 10 and 11
		// to 138 zeros.
		extra, times, value := uint(2), 3, uint8(0)
		switch symbol {
		case 16:
			if z.known == 0 {
				return false, ErrCorrupt
			}
			value = z.lengths[z.known-1]
		case 17:
			extra = 3
		case 18:
			extra, times = 7, 11
		}
		if !z.want(in, c.length()+extra) {
			return false, nil
		}
		z.take(c.length())
		if times += int(z.take(extra)); z.known+times > all {
			return false, ErrCorrupt
		}
		for range times {
			z.lengths[z.known] = value
			z.known++
		}
	}
	return true, nil
}

func (z *inflater) buildTables() error {
	if z.lengths[endSymbol] == 0 {
		return ErrCorrupt // without a word for its end the block could not end
	}
	var ok1, ok2 bool
	z.literalBits, ok1 = buildTable(z.litTable[:], literalBits, z.lengths[:z.nliteral], literalCodes[:])
	z.distanceBits, ok2 = buildTable(z.disTable[:], distanceBits, z.lengths[z.nliteral:z.nliteral+z.ndistance], distanceCodes[:])
	if !ok1 || !ok2 {
		return ErrCorrupt
	}
	z.literals, z.distances = z.litTable[:], z.disTable[:]
	return nil
}

const (
	maxMatch = 258
	// A literal or length takes 15 + 5 bits, a distance 15 + 13.
	maxSymbolBits = 48
)

// fast reads symbols while there is so much input and space that no step needs to
// check for either. It leaves rare cases to the caller; the mode says where it
// stopped.
func (z *inflater) fast(dst []byte, n int, in *input, h *history) int {
	src, at := in.src, in.at
	bits, nbits := z.bits, z.nbits
	literals, literalMask := z.literals, mask(z.literalBits)
	distances, distanceMask := z.distances, mask(z.distanceBits)
	for at+8 <= len(src) && n+maxMatch <= len(dst) {
		if nbits < maxSymbolBits {
			// Add as many whole bytes as fit. Bits above nbits may be set: they equal
			// the bits that are read again later.
			bits |= binary.LittleEndian.Uint64(src[at:]) << (nbits & 63)
			at += int((63 - nbits) >> 3)
			nbits |= 56
		}
		c := literals[bits&literalMask]
		if c&kindMask == kindLink {
			c = literals[c.value()+int(bits>>(c.length()&63)&mask(c.extra()))]
		}
		if c&kindMask == kindLiteral {
			bits >>= c & 31
			nbits -= c.length()
			dst[n] = byte(c >> 16)
			n++
			continue
		}
		if c&kindMask != kindBase { // the end of the block or a bad code: left to the caller
			break
		}
		bits >>= c & 31
		nbits -= c.length()
		length := c.value() + int(bits&mask(c.extra()))
		bits >>= c.extra() & 63
		nbits -= c.extra()

		c = distances[bits&distanceMask]
		if c&kindMask == kindLink {
			c = distances[c.value()+int(bits>>(c.length()&63)&mask(c.extra()))]
		}
		if c == 0 {
			z.length, z.mode = length, atDistance
			break
		}
		bits >>= c & 31
		nbits -= c.length()
		distance := c.value() + int(bits&mask(c.extra()))
		bits >>= c.extra() & 63
		nbits -= c.extra()
		// All of the match fits into dst.
		if distance > n {
			if distance > n+h.len() {
				z.length, z.distance, z.mode = length, distance, inMatch
				break
			}
			copyMatch(dst, n, distance, length, h)
		} else if from := n - distance; distance >= length {
			copy(dst[n:n+length], dst[from:from+length])
		} else if distance == 1 {
			b := dst[from]
			for i := n; i < n+length; i++ {
				dst[i] = b
			}
		} else {
			for i := range length {
				dst[n+i] = dst[from+i]
			}
		}
		n += length
	}
	z.bits, z.nbits = bits&mask(nbits), nbits
	in.at = at
	return n
}

// copyMatch copies length bytes from distance before dst[n], some of which may be
// in h, as far as dst has room. It returns how many it copied.
func copyMatch(dst []byte, n, distance, length int, h *history) int {
	length = min(length, len(dst)-n)
	at, end := n, n+length
	for at < end && distance > at {
		at += h.read(dst[at:end], distance-at)
	}
	// A match may overlap itself: each copy doubles the bytes available.
	for from := at - distance; at < end; {
		at += copy(dst[at:end], dst[from:at])
	}
	return length
}
