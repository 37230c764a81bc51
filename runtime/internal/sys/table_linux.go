package sys

import (
	"iter"

	"github.com/noria-go/noria/runtime"
)

const pageSlots = 256

// A Slot is an open descriptor and the data that its backend keeps for it.
type Slot[T any] struct {
	FD   int
	Data T
	gen  uint32 // incremented by Add and Remove, so odd while the slot is in use
}

// A Table maps handles to descriptors. A handle is a slot and a generation, so an
// outdated one finds nothing, even if its slot or descriptor number is in use
// again. Pointers to slots stay valid. The zero Table is empty.
type Table[T any] struct {
	pages [][]Slot[T] // of pageSlots each: growing moves nothing
	free  []uint32
	n     int
}

// Add puts fd into a slot and returns its handle and the slot.
func (t *Table[T]) Add(fd int) (runtime.Handle, *Slot[T]) {
	if len(t.free) == 0 {
		base := uint32(len(t.pages) * pageSlots)
		t.pages = append(t.pages, make([]Slot[T], pageSlots))
		for i := uint32(pageSlots); i > 0; i-- {
			t.free = append(t.free, base+i-1)
		}
	}
	i := t.free[len(t.free)-1]
	t.free = t.free[:len(t.free)-1]
	s := t.slot(i)
	s.gen++
	s.FD = fd
	t.n++
	return runtime.MakeHandle(i, s.gen), s
}

func (t *Table[T]) slot(i uint32) *Slot[T] { return &t.pages[i/pageSlots][i%pageSlots] }

// Get returns the slot of h, or nil if h was never a handle or has been removed.
func (t *Table[T]) Get(h runtime.Handle) *Slot[T] {
	i := h.Slot()
	if int(i) >= len(t.pages)*pageSlots {
		return nil
	}
	s := t.slot(i)
	if s.gen != h.Gen() || s.gen&1 == 0 {
		return nil
	}
	return s
}

// Remove frees the slot of h. The caller owns the descriptor.
func (t *Table[T]) Remove(h runtime.Handle) {
	s := t.Get(h)
	if s == nil {
		return
	}
	var zero T
	s.FD, s.Data = -1, zero
	s.gen++
	t.n--
	t.free = append(t.free, h.Slot())
}

// Len returns the number of slots in use.
func (t *Table[T]) Len() int { return t.n }

// All yields the slots in use. The table may be changed during the iteration.
func (t *Table[T]) All() iter.Seq2[runtime.Handle, *Slot[T]] {
	return func(yield func(runtime.Handle, *Slot[T]) bool) {
		for p := 0; p < len(t.pages); p++ {
			for i := range t.pages[p] {
				s := &t.pages[p][i]
				if s.gen&1 == 1 && !yield(runtime.MakeHandle(uint32(p*pageSlots+i), s.gen), s) {
					return
				}
			}
		}
	}
}
