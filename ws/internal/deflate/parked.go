package deflate

import "sync"

// Parked is how many connections with context takeover keep their compressor
// between two messages, over all loops: those that sent last.
const Parked = 32

// A lot is where writers are parked. A Compressor takes its writer back by
// itself, with one exchange. The lot only remembers who came when, to take one
// away when there are too many: a list, the youngest first.
type lot struct {
	mu         sync.Mutex
	count      int
	head, tail *Compressor
}

// A spot is a Compressor's place in a lot's list, under the lot's lock.
type spot struct {
	younger, older *Compressor
	in             bool
}

var parked lot

// park leaves w with c until c wants it, or too many others have been parked
// since.
func (l *lot) park(c *Compressor, w *writer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c.parked.Store(w)
	if l.head == c {
		return
	}
	l.unlink(c)
	c.spot = spot{older: l.head, in: true}
	if l.head != nil {
		l.head.spot.younger = c
	} else {
		l.tail = c
	}
	l.head = c
	if l.count++; l.count > Parked {
		oldest := l.tail
		l.unlink(oldest)
		if w := oldest.parked.Swap(nil); w != nil {
			w.free()
		}
	}
}

// leave forgets c.
func (l *lot) leave(c *Compressor) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unlink(c)
}

func (l *lot) unlink(c *Compressor) {
	s := &c.spot
	if !s.in {
		return
	}
	if s.younger != nil {
		s.younger.spot.older = s.older
	} else {
		l.head = s.older
	}
	if s.older != nil {
		s.older.spot.younger = s.younger
	} else {
		l.tail = s.younger
	}
	*s = spot{}
	l.count--
}
