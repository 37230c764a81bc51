package runtime

import (
	"fmt"
	"io"
)

// An OpCode says what an Op does. The comment of each names the fields that the
// operation reads, and behind the arrow the fields that it sets.
type OpCode uint8

const (
	opInvalid OpCode = iota // the zero Op's

	// OpNop completes at the next Poll with N = 0.
	OpNop

	// OpAccept: Handle (a listener) → Got.
	OpAccept

	// OpAcceptMany is OpAccept again and again: a completion with More set and a new
	// Got each time, and a last one without More when it was cancelled, the listener
	// was closed, or accept failed. EMFILE and its like do end it: the submitter
	// decides when to go on.
	OpAcceptMany

	// OpConnect: Addr → Got, a new connected stream socket.
	OpConnect

	// OpRecv: Handle, Buf → Buf extended by the N bytes that arrived after
	// those it held. N == 0 comes with io.EOF. Buf must have room.
	OpRecv

	// OpRecvMany receives into memory of the runtime, again and again: each
	// completion with More set has a Buf of N bytes, which belongs to the receiver
	// from then on. The last one has no More and no Buf; its Err is io.EOF,
	// ErrCanceled, or the error that ended the connection. While nothing arrives
	// the operation holds no memory.
	OpRecvMany

	// OpSend: Handle, and Buf without its first Skip bytes → N, the bytes that the
	// kernel took, which may be fewer than there are. Buf comes back with the
	// completion, unchanged.
	OpSend

	// OpSendVec is OpSend of up to MaxVec Bufs at once; Skip counts from the
	// first.
	OpSendVec

	// OpShutdown: Handle, Flags (DirRead, DirWrite or both). It is no error if the
	// peer is gone already.
	OpShutdown

	// OpClose: Handle. From now on operations on the handle are refused with
	// ErrClosed. Those in flight are cancelled and come back first; then the
	// descriptor is closed.
	OpClose

	// OpOpen: Path, Flags (os.O_…), Mode → Got, a file. Whether opening a named pipe
	// waits for its other end is up to the backend; a cancel ends such a wait.
	OpOpen

	// OpReadAt: Handle, Buf, Off → Buf extended by N. N == 0 comes with io.EOF.
	OpReadAt

	// OpWriteAt: Handle, Buf without its first Skip bytes, Off → N.
	OpWriteAt

	// OpFsync and OpFdatasync: Handle.
	OpFsync
	OpFdatasync

	// OpAllocate: Handle, Off, Len. It makes sure that the file has this space; the
	// file grows to it.
	OpAllocate

	// OpPoll: Handle, Flags (DirRead, DirWrite) → N, those of the flags that are
	// ready. An error or a hang-up makes both ready. It completes once.
	OpPoll

	opCount
)

var opNames = [opCount]string{"invalid", "nop", "accept", "accept-many", "connect", "recv", "recv-many", "send",
	"sendv", "shutdown", "close", "open", "read-at", "write-at", "fsync", "fdatasync", "allocate", "poll"}

func (c OpCode) String() string {
	if c < opCount {
		return opNames[c]
	}
	return fmt.Sprintf("op(%d)", uint8(c))
}

// Directions of a connection, for Op.Flags and the result of OpPoll.
const (
	DirRead  = 1
	DirWrite = 2
)

// Limits of one operation.
const (
	MaxVec   = 64         // buffers in one OpSendVec
	MaxBytes = 0x7ffff000 // bytes in one operation, as in the kernel; more is cut, not refused
)

// An Op is one operation. Until Submit it belongs to the code that fills it in;
// then it belongs to the runtime until its terminal completion, and after that to
// its first owner again, which may use it for the next operation. Between Submit
// and the terminal completion only Done may look at it.
//
// The fields that a receive or a send touches come first: a loop with a thousand
// connections pays for each cache line of an Op.
type Op struct {
	Code     OpCode
	More     bool // this is not the last completion
	inFlight bool
	claimed  bool // by the stream that submits it: its buffers are not lent
	Mode     uint32
	Handle   Handle
	Buf      *Buffer
	Skip     int

	// Done is called from Poll or Close, on the runtime's thread, for each
	// completion. When it is called for the terminal one, More is false and the Op
	// is its owner's again: Done may submit it anew.
	Done func(*Op)

	N    int    // bytes, unless the code's comment says otherwise
	Err  error  // nil, io.EOF, or an *OpError
	Got  Handle // the new handle that accept, connect and open made
	Bufs []*Buffer
	Off  int64
	Len  int64

	Flags int

	// Sys is for the backend that has the Op.
	Sys OpSys

	Addr Addr
	Path string
}

// OpSys is the part of an Op that belongs to the backend: room to keep the Op in a
// table and in a list, with its result, without allocating. For backends.
type OpSys struct {
	Slot       uint32 // in the backend's table
	State      uint32
	Next, Prev *Op // in a list of the handle, or of one of its directions
	N          int
	Got        Handle
	Err        error
	Mem        any // kept reachable until the terminal completion
}

// InFlight reports whether the runtime has the Op.
func (op *Op) InFlight() bool { return op.inFlight }

// Begin marks the Op as in flight. A backend's Submit calls it first. It clears the
// results and lends the buffers, so that touching them panics until they are back.
// It returns what is wrong with the arguments on any backend (no room to read into,
// no buffer, a skip past the end, too many buffers): the backend completes the Op
// with that error. For backends.
func (op *Op) Begin() error {
	if op.inFlight {
		panic("runtime: " + op.Code.String() + " submitted while it is in flight")
	}
	op.N, op.Err, op.More, op.Got = 0, nil, false, 0
	if !op.claimed && op.Buf != nil {
		op.Buf.lend(op.Code)
	}
	if !op.claimed && len(op.Bufs) > 0 {
		op.lendAll()
	}
	op.inFlight = true // last: an op whose buffer cannot be lent was not submitted
	return op.check()
}

// lendAll lends all of Bufs or, if that panics, none.
func (op *Op) lendAll() {
	lent := 0
	defer func() {
		if lent < len(op.Bufs) {
			for _, b := range op.Bufs[:lent] {
				b.unlend()
			}
		}
	}()
	for _, b := range op.Bufs {
		b.lend(op.Code)
		lent++
	}
}

// Complete makes the terminal completion. It gives the buffers back, extends Buf
// by n where the operation reads, turns n == 0 of a read into io.EOF, wraps err and
// calls Done. It drops an err that comes with n > 0 bytes: the bytes count, and the
// next operation meets the error again. For backends.
func (op *Op) Complete(n int, got Handle, err error) {
	if !op.inFlight {
		panic("runtime: " + op.Code.String() + " completed twice")
	}
	op.inFlight = false
	if !op.claimed {
		if op.Buf != nil {
			op.Buf.unlend()
		}
		for _, b := range op.Bufs {
			b.unlend()
		}
	}
	op.Sys = OpSys{}
	if n > 0 {
		err = nil
	}
	switch op.Code {
	case OpRecv, OpReadAt:
		if n > 0 {
			op.Buf.received(n)
		} else if err == nil {
			err = io.EOF
		}
	case OpRecvMany:
		op.Buf = nil
		if err == nil {
			err = io.EOF
		}
	}
	op.N, op.Got, op.More = n, got, false
	op.Err = wrapErr(op.Code.String(), op.Handle, err)
	op.Done(op)
}

// Deliver makes a completion that is not the last one: of OpAcceptMany with got, of
// OpRecvMany with buf, which holds the bytes that arrived and is the receiver's from
// now on. For backends.
func (op *Op) Deliver(buf *Buffer, got Handle) {
	if !op.inFlight {
		panic("runtime: " + op.Code.String() + " delivers after its terminal completion")
	}
	op.Buf, op.Got, op.More, op.Err, op.N = buf, got, true, nil, 0
	if buf != nil {
		op.N = buf.Len()
	}
	op.Done(op)
	op.Buf, op.Got = nil, 0
}

// Unsent returns the bytes of the i-th buffer that are to be written: without the
// first Skip ones, and at most MaxBytes. For backends.
func (op *Op) Unsent(i int) []byte {
	b, skip := op.Buf, op.Skip
	if op.Code == OpSendVec {
		b = op.Bufs[i]
		if i > 0 {
			skip = 0
		}
	}
	p := b.mem[b.start+skip : b.end]
	return p[:min(len(p), MaxBytes)]
}

// Target returns the room of Buf that is to be filled, at most MaxBytes. For
// backends.
func (op *Op) Target() []byte {
	p := op.Buf.mem[op.Buf.end:]
	return p[:min(len(p), MaxBytes)]
}

// check returns what is wrong with the op's arguments.
func (op *Op) check() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("bad %s: "+format, append([]any{op.Code}, args...)...)
	}
	switch op.Code {
	case opInvalid:
		return bad("no operation code")
	case OpRecv, OpReadAt:
		if op.Buf == nil || op.Buf.end == len(op.Buf.mem) {
			return bad("the buffer has no room")
		}
	case OpSend, OpWriteAt:
		if op.Buf == nil {
			return bad("no buffer")
		}
		if op.Skip < 0 || op.Skip > op.Buf.end-op.Buf.start {
			return bad("skip %d of a buffer of %d bytes", op.Skip, op.Buf.end-op.Buf.start)
		}
	case OpSendVec:
		if len(op.Bufs) == 0 || len(op.Bufs) > MaxVec {
			return bad("%d buffers, want 1 to %d", len(op.Bufs), MaxVec)
		}
		if first := op.Bufs[0]; op.Skip < 0 || op.Skip > first.end-first.start {
			return bad("skip %d of a first buffer of %d bytes", op.Skip, first.end-first.start)
		}
	case OpConnect:
		if op.Addr == (Addr{}) {
			return bad("no address")
		}
	case OpOpen:
		if op.Path == "" {
			return bad("no path")
		}
	}
	if op.Code >= opCount {
		return bad("unknown operation code")
	}
	if op.Off < 0 || op.Len < 0 {
		return bad("negative offset or length")
	}
	return nil
}
