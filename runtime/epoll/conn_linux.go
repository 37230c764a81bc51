package epoll

import (
	"github.com/noria-go/noria/internal/list"
	"github.com/noria-go/noria/runtime"
)

// A conn is the state of a handle.
type conn struct {
	h          runtime.Handle
	fd         int
	file       bool // a file: the workers run its operations
	registered bool // with the epoll instance
	adopted    bool // another descriptor of the socket may be open
	unix       bool // a unix socket
	broken     bool // an event reported an end or an error: a try shows which
	urgent     bool // an event reported TCP's urgent data, and no read has found EAGAIN since
	news       bool // an event arrived that the OpPolls have not seen
	ops        int  // operations in flight, except closer
	in, out    direction
	polls      opQueue
	closer     *runtime.Op // the OpClose: once it is set, further operations are refused
	retryAt    int64       // when its connect is tried again; 0: it is not

	turn list.Node[conn] // of Runtime.turns
}

// A direction is the queue of the operations that receive on a handle, or of those that
// send.
type direction struct {
	opQueue
	ready  bool // the next try may succeed
	parked bool // waits for a hot buffer: see Runtime.parked
}

// runnable reports whether the first operation should be tried. A shutdown needs no
// readiness.
func (d *direction) runnable() bool {
	return d.head != nil && !d.parked && (d.ready || d.head.Code == runtime.OpShutdown)
}

func (c *conn) runnable() bool {
	return c.in.runnable() || c.out.runnable() || c.news && c.polls.head != nil
}

// The places of an operation: Op.Sys.State.
const (
	inLine    = iota + 1 // in the queue of a direction or of the polls
	inDone               // its result waits for Poll
	inWorkers            // queued for a worker
	inWork               // run by a worker
)

// An opQueue is a first-in-first-out queue of operations. Its links are in Op.Sys, which
// belongs to the backend, so it is not a list.List.
type opQueue struct {
	head, tail *runtime.Op
	n          int
}

func (q *opQueue) push(op *runtime.Op, state uint32) {
	s := &op.Sys
	s.State, s.Prev, s.Next = state, q.tail, nil
	if q.tail != nil {
		q.tail.Sys.Next = op
	} else {
		q.head = op
	}
	q.tail = op
	q.n++
}

func (q *opQueue) remove(op *runtime.Op) {
	s := &op.Sys
	if s.Prev != nil {
		s.Prev.Sys.Next = s.Next
	} else {
		q.head = s.Next
	}
	if s.Next != nil {
		s.Next.Sys.Prev = s.Prev
	} else {
		q.tail = s.Prev
	}
	s.State, s.Prev, s.Next = 0, nil, nil
	q.n--
}

func (q *opQueue) pop() *runtime.Op {
	op := q.head
	if op != nil {
		q.remove(op)
	}
	return op
}
