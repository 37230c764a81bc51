package brokenws

// A validator checks UTF-8 as it arrives. It fails at the first byte after which no
// continuation can be valid.
type validator struct {
	quirks *quirks
	value  uint32
	min    uint32 // the smallest code point that needs a sequence of this length
	left   int    // continuation bytes that are missing
}

func (v *validator) valid(p []byte) bool {
	for _, c := range p {
		if v.left > 0 {
			if c&0xc0 != 0x80 {
				return false
			}
			v.value = v.value<<6 | uint32(c&0x3f)
			v.left--
			if !v.possible() {
				return false
			}
			continue
		}
		switch {
		case c < 0x80:
			if c == 0 && v.quirks.refuseNUL {
				return false
			}
		case c < 0xc0:
			return false
		case c < 0xe0:
			v.value, v.min, v.left = uint32(c&0x1f), 0x80, 1
		case c < 0xf0:
			v.value, v.min, v.left = uint32(c&0x0f), 0x800, 2
		case c < 0xf8:
			v.value, v.min, v.left = uint32(c&0x07), 0x10000, 3
		case c < 0xfc && v.quirks.longUTF8:
			v.value, v.min, v.left = uint32(c&0x03), 0x200000, 4
		default:
			return false
		}
		if v.left > 0 && !v.possible() {
			return false
		}
	}
	return true
}

// possible reports whether the sequence can still become a character.
func (v *validator) possible() bool {
	low := v.value << (6 * v.left)
	high := low | 1<<(6*v.left) - 1
	switch {
	case high < v.min:
		return v.quirks.overlong
	case low > 0x10ffff:
		return v.quirks.beyond || v.quirks.longUTF8
	case low >= 0xd800 && high <= 0xdfff:
		return v.quirks.surrogates
	case v.left == 0 && low&0xfffe == 0xfffe:
		return !v.quirks.refuseNonCharacters
	}
	return true
}

// done reports whether the text may end here.
func (v *validator) done() bool { return v.left == 0 || v.quirks.unfinishedUTF8 }
