package runtime

// Runtime is one backend: it takes operations, hands them to the kernel (or
// to a simulated world) and gives each back with its result.
//
// A Runtime belongs to one thread. Every method may be called only from the
// thread that called Start, except Wake, Now and Info, which are safe from
// any goroutine. Before Start only Info, Now, Wake and Close may be called.
//
// The rules that every implementation keeps are in the package comment of
// conformance, which is also the program that decides whether they are kept.
type Runtime interface {
	// Start makes the calling thread, which must be locked to its goroutine
	// and must stay so, the owner of the runtime. Memory that the runtime
	// itself provides (see OpRecvMany) comes from pool.
	Start(pool *Pool) error

	// Submit takes op and its buffers. It never blocks, never calls op.Done
	// and never fails: whatever is wrong becomes the op's result.
	Submit(op *Op)

	// Cancel asks that op end soon. It is a request: op still completes
	// exactly once, with its real result if that came first and otherwise
	// with ErrCanceled. Cancelling an op that is not in flight does nothing.
	Cancel(op *Op)

	// Poll hands over what was submitted, waits until there is a completion,
	// a Wake, or Now reaches deadline, and calls Done for the completions
	// that are there, up to a budget. A deadline that has passed (0, say)
	// means: do not wait. Forever means: no deadline. A Wake that came since
	// the last Poll returned counts.
	Poll(deadline int64) error

	// Wake makes the current or the next Poll return. Any goroutine may call
	// it, also before Start and after Close.
	Wake()

	// Now is the runtime's clock, in nanoseconds from an arbitrary start. It
	// never goes backwards. Any goroutine may call it.
	Now() int64

	// Listen opens a listening socket; it does not block.
	Listen(addr Addr, opts ListenOptions) (Handle, error)

	// Adopt makes a file descriptor, which from now on is the runtime's own,
	// into a handle. When it fails, the descriptor still is the caller's.
	Adopt(fd int) (Handle, error)

	// Detach is the reverse of Adopt: the handle is gone, the descriptor is
	// the caller's. It fails with ErrBusy while operations are in flight.
	Detach(h Handle) (fd int, err error)

	// SetOption sets a socket option; see Option for what value means.
	SetOption(h Handle, opt Option, value int) error

	// LocalAddr and PeerAddr ask the socket for its two addresses.
	LocalAddr(h Handle) (Addr, error)
	PeerAddr(h Handle) (Addr, error)

	// Info describes the backend: its name, the kernel, the features in use
	// and why others are not.
	Info() Info

	// Close stops intake, cancels everything, waits until the last operation
	// has come back (calling its Done), closes what handles are left and
	// only then frees the memory that the kernel could see. It is called on
	// the owning thread, or from anywhere if Start was never called.
	Close() error
}

// Forever is a deadline that never comes.
const Forever = int64(1<<63 - 1)

// A Handle names an open socket or file of one Runtime. It is a slot and a
// generation, never a descriptor: the generation changes whenever the slot is
// given to something else, so a handle that was kept too long is refused with
// ErrClosed and never reaches a stranger. The zero Handle is never valid.
type Handle uint64

// MakeHandle is for backends: it puts a handle together. gen is never 0.
func MakeHandle(slot, gen uint32) Handle { return Handle(gen)<<32 | Handle(slot) }

// Slot and Gen are for backends: they take a handle apart.
func (h Handle) Slot() uint32 { return uint32(h) }

// Gen returns the generation; see Slot.
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
	OptUserTimeout                    // TCP_USER_TIMEOUT in milliseconds; 0 is the system's default
	OptSendBuffer                     // SO_SNDBUF in bytes
	OptRecvBuffer                     // SO_RCVBUF in bytes
	OptResetOnClose                   // SO_LINGER with zero seconds: closing sends RST and drops what was not sent. 0 or 1
	OptDeferAccept                    // TCP_DEFER_ACCEPT in seconds
	OptQuickAck                       // TCP_QUICKACK: 0 or 1
)

// Info describes a Runtime.
type Info struct {
	Backend  string    // "io_uring", "epoll", …
	Kernel   string    // as uname -r says, if there is one
	Reason   string    // why this backend and not another, filled in by who chose
	Features []Feature // in a fixed order
}

// Feature is one optional ability of a backend.
type Feature struct {
	Name  string // stable, lower case, as the switch that turns it off is called
	On    bool
	Why   string // when off: why. When on: what it is good for
	Since string // the kernel that has it, for people only: nothing is decided by it
}
