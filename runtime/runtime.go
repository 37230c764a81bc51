package runtime

// A Runtime is one backend: it takes operations, hands them to the kernel (or
// to a simulated world) and gives each back with its result.
//
// A Runtime belongs to the thread that called Start, and only that thread may call
// its methods. Wake, Now and Info are the exceptions: any goroutine may call them.
// Before Start only Info, Now, Wake and Close may be called.
//
// The package comment of conformance has the rules that every Runtime keeps.
type Runtime interface {
	// Start makes the calling thread the owner of the runtime. The thread must be
	// locked to its goroutine and stay locked. Memory that the runtime itself
	// provides (see OpRecvMany) comes from pool.
	Start(pool *Pool) error

	// Submit takes op and its buffers. It never blocks, never calls op.Done and
	// never fails: an error becomes the op's result.
	Submit(op *Op)

	// Cancel asks that op end soon. It is a request: op still completes
	// exactly once, with its real result if that came first and otherwise
	// with ErrCanceled. Cancelling an op that is not in flight does nothing.
	Cancel(op *Op)

	// Poll hands over the operations that were submitted, waits until there is a
	// completion or a Wake or Now reaches deadline, and calls Done for the
	// completions that are there, up to a budget. With a deadline in the past, such
	// as 0, Poll does not wait; with Forever only a completion or a Wake ends the
	// wait. A Wake since the last Poll returned counts.
	Poll(deadline int64) error

	// Wake makes the current or the next Poll return. Any goroutine may call it,
	// before Start and after Close too.
	Wake()

	// Now returns the time on the runtime's clock, in nanoseconds from an arbitrary
	// start. It never goes backwards. Any goroutine may call it.
	Now() int64

	// Listen opens a listening socket; it does not block.
	Listen(addr Addr, opts ListenOptions) (Handle, error)

	// Adopt takes over a file descriptor and returns a handle for it. When it
	// fails, the descriptor is still the caller's.
	Adopt(fd int) (Handle, error)

	// Detach is the reverse of Adopt: the handle is gone and the descriptor is the
	// caller's. It fails with ErrBusy while operations on the handle are in flight.
	Detach(h Handle) (fd int, err error)

	// SetOption sets a socket option. See Option for the meaning of value.
	SetOption(h Handle, opt Option, value int) error

	// LocalAddr returns the address of this end of a socket, and PeerAddr that of
	// the other end.
	LocalAddr(h Handle) (Addr, error)
	PeerAddr(h Handle) (Addr, error)

	// Info describes the backend. Any goroutine may call it.
	Info() Info

	// Close refuses further operations, cancels those in flight, waits until the
	// last one has come back (calling its Done), closes the handles that are left,
	// and only then frees the memory that the kernel could see. The owning thread
	// calls it; if Start was never called, any goroutine may.
	Close() error
}

// Forever is a deadline that never comes.
const Forever = int64(1<<63 - 1)

// A Handle names an open socket or file of one Runtime. It is a slot and a
// generation, never a descriptor: the generation changes whenever the slot is used
// again, so a handle that was kept too long is refused with ErrClosed and never
// reaches another connection. The zero Handle is never valid.
type Handle uint64

// MakeHandle returns the handle of a slot and a generation, which is never 0. For
// backends.
func MakeHandle(slot, gen uint32) Handle { return Handle(gen)<<32 | Handle(slot) }

// Slot returns the slot of a handle. For backends.
func (h Handle) Slot() uint32 { return uint32(h) }

// Gen returns the generation of a handle. For backends.
func (h Handle) Gen() uint32 { return uint32(h >> 32) }

// ListenOptions says how Runtime.Listen opens its socket. The zero value is
// an ordinary listener: another one on its address gets EADDRINUSE.
type ListenOptions struct {
	// Backlog is the length of the accept queue; 0 means the system's maximum.
	Backlog int

	// Joinable claims the address as an ordinary listener does, and then lets
	// listeners with Join in. So the first loop of a program refuses to start
	// beside a second program. SO_REUSEPORT alone would not: a second program of
	// the same user would bind silently and take half of the connections.
	Joinable bool

	// Join listens beside a listener that is Joinable or was opened with Join.
	Join bool
}

// Option is a socket option that means the same on every backend.
type Option uint8

const (
	OptNoDelay      Option = iota + 1 // TCP_NODELAY: 0 or 1
	OptKeepAlive                      // SO_KEEPALIVE with this idle time in seconds; 0 switches it off
	OptUserTimeout                    // TCP_USER_TIMEOUT in milliseconds; 0 means the system's default
	OptSendBuffer                     // SO_SNDBUF in bytes
	OptRecvBuffer                     // SO_RCVBUF in bytes
	OptResetOnClose                   // SO_LINGER with zero seconds, 0 or 1: closing sends RST and drops unsent bytes
)

// Info describes a Runtime.
type Info struct {
	Backend  string    // "io_uring", "epoll", …
	Kernel   string    // as uname -r says, if there is one
	Reason   string    // why this backend was chosen; the loop fills it in
	Features []Feature // in a fixed order
}

// Feature is one optional ability of a backend.
type Feature struct {
	Name  string // stable, in lower case; the backend's option that switches it off uses it
	On    bool
	Why   string // why it is off, or what it is good for
	Since string // the first kernel that has it. For people: a probe decides, not a version
}
