// Package list provides the linked lists of this module. They are intrusive: the links are
// fields of the values in the list. So adding a value allocates nothing, and removing it
// needs no search.
//
// A value has a Node for each List that it can be in at the same time, and a Link for each
// Stack. Node and Link have a pointer to their owner, the value that they are a field of.
// That costs a word, but a function that finds the value from its links could not be
// inlined.
//
// No list is safe for concurrent use. A List panics when a value is added that is in a
// List already, and when a value is removed that is not in this List.
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

// Len returns how many values the list holds.
func (l *List[T]) Len() int { return l.len }

// First returns the first value, or nil if the list is empty.
func (l *List[T]) First() *T {
	if l.first == nil {
		return nil
	}
	return l.first.owner
}

// PushBack adds owner, whose node is n, as the last value.
func (l *List[T]) PushBack(n *Node[T], owner *T) {
	if n.list != nil {
		panic("list: the value that is added is in a list already")
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

// PushFront adds owner, whose node is n, as the first value.
func (l *List[T]) PushFront(n *Node[T], owner *T) {
	if n.list != nil {
		panic("list: the value that is added is in a list already")
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

// PopFront removes and returns the first value, or returns nil if the list is empty.
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

// Remove removes the owner of n.
func (l *List[T]) Remove(n *Node[T]) {
	if n.list != l {
		panic("list: the value that is removed is not in the list")
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

// All iterates over the values, from first to last. The current value may be removed
// meanwhile.
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

// A Stack is a singly linked last-in-first-out list, such as a free list. The zero value
// is empty.
type Stack[T any] struct{ top *Link[T] }

// A Link links its owner into one Stack. It must not be copied while it does.
type Link[T any] struct {
	owner *T
	below *Link[T]
}

// Push adds owner, whose link is k.
func (s *Stack[T]) Push(k *Link[T], owner *T) {
	k.owner, k.below, s.top = owner, s.top, k
}

// Pop removes and returns the value that was pushed last, or returns nil if the stack is
// empty.
func (s *Stack[T]) Pop() *T {
	k := s.top
	if k == nil {
		return nil
	}
	s.top, k.below = k.below, nil
	return k.owner
}

// Empty reports whether the stack is empty.
func (s *Stack[T]) Empty() bool { return s.top == nil }
