package list_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/internal/list"
)

type item struct {
	id   int
	node list.Node[item]
	link list.Link[item]
}

func ids(l *list.List[item]) (all []int) {
	for it := range l.All() {
		all = append(all, it.id)
	}
	return all
}

// A List does what a slice does, in random order.
func FuzzList(f *testing.F) {
	random := rand.NewChaCha8([32]byte{})
	for range 10 {
		ops := make([]byte, 500)
		_, _ = random.Read(ops) // it never fails
		f.Add(ops)
	}
	f.Fuzz(func(t *testing.T, ops []byte) {
		var l list.List[item]
		var want []int
		items := make([]item, 64)
		for _, op := range ops {
			it := &items[op&63]
			it.id = int(op & 63)
			in := slices.Index(want, it.id)
			require.Equal(t, in >= 0, it.node.List() == &l)
			switch {
			case op < 16: // whatever it is
				got := l.PopFront()
				if len(want) == 0 {
					require.Nil(t, got)
					continue
				}
				require.Equal(t, want[0], got.id)
				want = want[1:]
			case in >= 0:
				l.Remove(&it.node)
				want = slices.Delete(want, in, in+1)
			case op < 128:
				l.PushFront(&it.node, it)
				want = slices.Insert(want, 0, it.id)
			default:
				l.PushBack(&it.node, it)
				want = append(want, it.id)
			}
			require.Equal(t, len(want), l.Len())
			require.True(t, slices.Equal(want, ids(&l)), "%v, want %v", ids(&l), want)
			if len(want) > 0 {
				require.Equal(t, want[0], l.First().id)
			} else {
				require.Nil(t, l.First())
			}
		}
	})
}

// The one that a range is at may be removed.
func TestRemoveInRange(t *testing.T) {
	var l list.List[item]
	items := make([]item, 4)
	for i := range items {
		items[i].id = i
		l.PushBack(&items[i].node, &items[i])
	}
	for it := range l.All() {
		if it.id%2 == 0 {
			l.Remove(&it.node)
		}
	}
	require.Equal(t, []int{1, 3}, ids(&l))
	for it := range l.All() {
		require.Equal(t, 1, it.id)
		break
	}
}

func TestMistakesPanic(t *testing.T) {
	var l, other list.List[item]
	var a, b item
	l.PushBack(&a.node, &a)
	require.Panics(t, func() { l.PushBack(&a.node, &a) })
	require.Panics(t, func() { other.PushFront(&a.node, &a) })
	require.Panics(t, func() { other.Remove(&a.node) })
	require.Panics(t, func() { l.Remove(&b.node) })
	require.Equal(t, 1, l.Len())
}

func TestStack(t *testing.T) {
	var s list.Stack[item]
	require.True(t, s.Empty())
	require.Nil(t, s.Pop())
	items := make([]item, 3)
	for i := range items {
		s.Push(&items[i].link, &items[i])
	}
	all := s // moves all values to another stack
	s = list.Stack[item]{}
	require.True(t, s.Empty())
	for i := 2; i >= 0; i-- {
		require.Same(t, &items[i], all.Pop())
	}
	require.True(t, all.Empty())
}

func TestNothingIsAllocated(t *testing.T) {
	var l list.List[item]
	var s list.Stack[item]
	items := make([]item, 4)
	sum := 0
	require.Zero(t, testing.AllocsPerRun(100, func() {
		for i := range items {
			l.PushFront(&items[i].node, &items[i])
			s.Push(&items[i].link, &items[i])
		}
		for it := range l.All() {
			sum += it.id
		}
		for l.Len() > 0 {
			l.PopFront()
			s.Pop()
		}
	}))
}
