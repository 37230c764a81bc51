package deflate

import "sync"

// Parked is how many connections with context takeover, over all loops, keep their
// compressor between two messages: those that sent most recently.
const Parked = 32

// A lot is where writers are parked. A Compressor takes its own writer back with
// one atomic exchange. The lot keeps the Compressors in the order in which they
// parked, most recent first, so that the oldest loses its writer when there are too
// many.
type lot struct {
	mu         sync.Mutex
	count      int
	head, tail *Compressor
}

// A spot is a Compressor's place in the list of a lot, guarded by its lock.
type spot struct {
	younger, older *Compressor
	in             bool
}

var parked lot

// park leaves w with c until c takes it or Parked other Compressors have parked
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

// leave removes c from the list.
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
