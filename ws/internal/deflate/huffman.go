package deflate

// A code is the entry of a Huffman table for the next bits of the input.
//
//	bits 0–4    length of the code word in bits; of a link: of its first part
//	bits 5–7    kind
//	bits 8–15   number of extra bits that follow; of a link: bits that index the subtable
//	bits 16–31  the literal, the base length or distance, or the index of the subtable
//
// The zero value marks bits that are not a word of the code.
type code uint32

const (
	kindLiteral code = 1 << 5 // also the symbol of a code length
	kindBase    code = 2 << 5 // a length or distance without its extra bits
	kindEnd     code = 3 << 5 // the end of the block
	kindLink    code = 4 << 5
	kindMask    code = 7 << 5
)

func (c code) kind() code   { return c & kindMask }
func (c code) length() uint { return uint(c & 31) }
func (c code) extra() uint  { return uint(c >> 8 & 0xff) }
func (c code) value() int   { return int(c >> 16) }

const (
	maxWord = 15 // length of the longest code word in bits

	literals  = 286 // number of valid literal and length symbols
	distances = 30
	endSymbol = 256

	// How many bits index each table directly, and how large the table gets with the
	// subtables for longer words. The sizes are the worst case over all complete
	// codes, as counted by zlib's enough.c.
	literalBits, literalTable   = 10, 1334
	distanceBits, distanceTable = 8, 402
	lengthBits, lengthTable     = 7, 128
)

// The symbols of RFC 1951 §3.2.5, without the lengths of their words.
var literalCodes = func() (list [288]code) {
	for i := range endSymbol {
		list[i] = kindLiteral | code(i)<<16
	}
	list[endSymbol] = kindEnd
	base := 3
	for i := range 28 {
		extra := max(0, i/4-1)
		list[257+i] = kindBase | code(extra)<<8 | code(base)<<16
		base += 1 << extra
	}
	list[285] = kindBase | 258<<16
	return list // 286 and 287 have words in the fixed code but are invalid
}()

var distanceCodes = func() (list [32]code) {
	base := 1
	for i := range distances {
		extra := max(0, i/2-1)
		list[i] = kindBase | code(extra)<<8 | code(base)<<16
		base += 1 << extra
	}
	return list
}()

var lengthCodes = func() (list [19]code) {
	for i := range list {
		list[i] = kindLiteral | code(i)<<16
	}
	return list
}()

// The fixed codes of RFC 1951 §3.2.6.
var fixedLiterals, fixedDistances = func() (lit [512]code, dist [32]code) {
	var lengths [288]uint8
	for i := range lengths {
		switch {
		case i < 144:
			lengths[i] = 8
		case i < 256:
			lengths[i] = 9
		case i < 280:
			lengths[i] = 7
		default:
			lengths[i] = 8
		}
	}
	if _, ok := buildTable(lit[:], 9, lengths[:], literalCodes[:]); !ok {
		panic("deflate: the fixed literals make no code")
	}
	for i := range 32 {
		lengths[i] = 5
	}
	if _, ok := buildTable(dist[:], 5, lengths[:32], distanceCodes[:]); !ok {
		panic("deflate: the fixed distances make no code")
	}
	return lit, dist
}()

// buildTable builds the table of the code in which symbols[i] has a word of
// lengths[i] bits (0: none). It returns how many bits index the table, at most
// root. It returns false if the lengths make no valid code: a word would be a
// prefix of another, or some bits would be no word. Two incomplete codes are valid:
// a single word of one bit, and no word at all, which makes any use of the code
// corrupt.
func buildTable(table []code, root uint, lengths []uint8, symbols []code) (uint, bool) {
	var count [maxWord + 1]int
	for _, n := range lengths {
		count[n]++
	}
	longest := maxWord
	for longest > 0 && count[longest] == 0 {
		longest--
	}
	count[0] = 0
	left := 1
	for n := 1; n <= maxWord; n++ {
		if left = left<<1 - count[n]; left < 0 {
			return 0, false
		}
	}
	root = min(root, max(1, uint(longest)))
	if left > 0 {
		if longest > 1 {
			return 0, false
		}
		clear(table[:2]) // no word, or one of one bit
	}
	// The symbols sorted by their words.
	var from [maxWord + 2]int
	for n := 1; n <= maxWord; n++ {
		from[n+1] = from[n] + count[n]
	}
	var sorted [len(literalCodes)]uint16
	for i, n := range lengths {
		if n > 0 {
			sorted[from[n]] = uint16(i)
			from[n]++
		}
	}
	used := 1 << root
	var sub []code
	subBits, subFor := uint(0), -1
	word := uint(0) // the next word, with its first bit lowest, as in the input
	for i := range from[longest] {
		symbol := sorted[i]
		n := uint(lengths[symbol])
		c := symbols[symbol]
		if c != 0 {
			c |= code(n)
		}
		if n <= root {
			for j := word; j < 1<<root; j += 1 << n {
				table[j] = c
			}
		} else {
			if start := int(word & (1<<root - 1)); start != subFor {
				// As many bits as the longest of the words with this prefix needs.
				subBits = n - root
				for open := 1 << subBits; ; open <<= 1 {
					if open -= count[root+subBits]; open <= 0 || root+subBits >= uint(longest) {
						break
					}
					subBits++
				}
				subFor = start
				sub = table[used : used+1<<subBits]
				table[start] = kindLink | code(root) | code(subBits)<<8 | code(used)<<16
				used += 1 << subBits
			}
			for j := word >> root; j < 1<<subBits; j += 1 << (n - root) {
				sub[j] = c
			}
		}
		count[n]--
		// Increment the word, with the carry going towards the high bits.
		carry := uint(1) << (n - 1)
		for word&carry != 0 {
			carry >>= 1
		}
		if word &= carry - 1; carry != 0 {
			word |= carry
		} else {
			word = 0
		}
	}
	return root, true
}

// mask returns a word whose lowest n bits are set.
func mask(n uint) uint64 { return 1<<(n&63) - 1 }
