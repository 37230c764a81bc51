// Package list has the lists of this module. They are intrusive: what is in a list
// has the list's links inside, so that to list it allocates nothing, and to take it
// out needs no search.
//
// A value that is to be in a List has a Node for it, one for each List that it is in
// at the same time; for a Stack it has a Link. Both remember their owner, the value
// that they are part of: that costs a word, and spares an interface or a function
// that would find the value from its links, which could not be inlined.
//
// No list is safe for concurrent use. Mistakes (to add what is in a list already, to
// remove what is in none or in another one) panic.
package list

import "iter"

// A List is a doubly linked list. The zero value is empty.
type List[T any] struct {
	first, last *Node[T]
	len         int
}

// A Node links its owner into one List. It must not be copied while it does.
type Node[T any] struct {
	owner      *T
	list       *List[T] // nil: none
	prev, next *Node[T]
}

// List returns the list that n is in, or nil.
func (n *Node[T]) List() *List[T] { return n.list }

// Len returns how many there are.
func (l *List[T]) Len() int { return l.len }

// First returns the first, or nil.
func (l *List[T]) First() *T {
	if l.first == nil {
		return nil
	}
	return l.first.owner
}

// PushBack adds owner, by its node n, behind all others.
func (l *List[T]) PushBack(n *Node[T], owner *T) {
	if n.list != nil {
		panic("list: what is added is in a list already")
	}
	n.owner, n.list, n.prev = owner, l, l.last
	if l.last != nil {
		l.last.next = n
	} else {
		l.first = n
	}
	l.last = n
	l.len++
}

// PushFront adds owner, by its node n, before all others.
func (l *List[T]) PushFront(n *Node[T], owner *T) {
	if n.list != nil {
		panic("list: what is added is in a list already")
	}
	n.owner, n.list, n.next = owner, l, l.first
	if l.first != nil {
		l.first.prev = n
	} else {
		l.last = n
	}
	l.first = n
	l.len++
}

// PopFront removes the first and returns it, or nil if there is none.
func (l *List[T]) PopFront() *T {
	n := l.first
	if n == nil {
		return nil
	}
	l.first = n.next
	if l.first != nil {
		l.first.prev = nil
	} else {
		l.last = nil
	}
	n.list, n.next = nil, nil
	l.len--
	return n.owner
}

// Remove removes n's owner.
func (l *List[T]) Remove(n *Node[T]) {
	if n.list != l {
		panic("list: what is removed is not in the list")
	}
	if n.prev != nil {
		n.prev.next = n.next
	} else {
		l.first = n.next
	}
	if n.next != nil {
		n.next.prev = n.prev
	} else {
		l.last = n.prev
	}
	n.list, n.prev, n.next = nil, nil, nil
	l.len--
}

// All ranges over the list, from the first to the last. The one that the loop is at
// may be removed meanwhile.
func (l *List[T]) All() iter.Seq[*T] {
	return func(yield func(*T) bool) {
		for n := l.first; n != nil; {
			next := n.next
			if !yield(n.owner) {
				return
			}
			n = next
		}
	}
}

// A Stack is a singly linked list whose last in is the first out, such as a free
// list. The zero value is empty.
type Stack[T any] struct{ top *Link[T] }

// A Link links its owner into one Stack. It must not be copied while it does.
type Link[T any] struct {
	owner *T
	below *Link[T]
}

// Push adds owner, by its link k.
func (s *Stack[T]) Push(k *Link[T], owner *T) {
	k.owner, k.below, s.top = owner, s.top, k
}

// Pop removes the last that was pushed and returns it, or nil if there is none.
func (s *Stack[T]) Pop() *T {
	k := s.top
	if k == nil {
		return nil
	}
	s.top, k.below = k.below, nil
	return k.owner
}

// Empty reports whether there is none.
func (s *Stack[T]) Empty() bool { return s.top == nil }
