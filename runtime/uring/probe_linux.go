//go:build !386 && !arm && !mips && !mipsle

package uring

import (
	"errors"
	"fmt"
	stdruntime "runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"unsafe"

	"github.com/godzie44/go-uring/uring"
	"golang.org/x/sys/unix"

	"github.com/noria-go/noria/runtime"
)

// A feature is something that only some kernels have. good says what it gains,
// since names the first kernel with it (for display only), and needs the feature
// that it depends on.
type feature struct {
	name, good, since string
	needs             string
	try               func(*prober) string // returns why it is unavailable, or ""
}

var features = []feature{
	{FeatureRDisabled, "the ring is set up anywhere and enabled on its loop's thread", "5.10", "",
		func(p *prober) string { return p.flag(setupRDisabled) }},
	{FeatureSingleIssuer, "the kernel needs fewer locks, because one thread submits", "6.0", "",
		func(p *prober) string { return p.flag(setupSingleIssuer) }},
	{FeatureDeferTaskrun, "completion work runs in batches when the loop asks for it", "6.1", FeatureSingleIssuer,
		func(p *prober) string { return p.flag(setupSingleIssuer | setupDeferTaskrun | setupTaskrunFlag) }},
	{FeatureCoopTaskrun, "completions do not interrupt the loop's thread", "5.19", "",
		func(p *prober) string { return p.flag(setupCoopTaskrun | setupTaskrunFlag) }},
	{FeatureSubmitAll, "an invalid submission does not delay those after it", "5.18", "",
		func(p *prober) string { return p.flag(setupSubmitAll) }},
	{FeatureExtArg, "one system call submits and waits with a timeout", "5.11", "",
		func(p *prober) string { return p.bit(featExtArg) }},
	{FeatureNoIowait, "an idle loop is not counted as waiting for a disk", "6.15", "",
		func(p *prober) string { return p.bit(featNoIowait) }},
	{FeatureBufferRing, "idle connections hold no memory and the kernel picks a buffer when bytes arrive", "5.19", "",
		(*prober).bufferRing},
	{FeatureMultishotRecv, "one submission receives repeatedly", "6.0", FeatureBufferRing,
		(*prober).multishotRecv},
	{FeatureMultishotAccept, "one submission accepts repeatedly", "5.19", "",
		(*prober).multishotAccept},
	{FeatureCancelAll, "one submission cancels everything in flight", "5.19", "",
		(*prober).cancelAll},
}

// required are the opcodes without which the backend cannot work. All are in kernel
// 5.6.
var required = []struct {
	code int
	name string
}{
	{opFsync, "fsync"}, {opPollAdd, "poll_add"}, {opSendmsg, "sendmsg"}, {opTimeout, "timeout"},
	{opTimeoutRemove, "timeout_remove"}, {opAccept, "accept"}, {opAsyncCancel, "async_cancel"}, {opConnect, "connect"},
	{opFallocate, "fallocate"}, {opOpenat, "openat"}, {opClose, "close"}, {opRead, "read"}, {opWrite, "write"},
	{opSend, "send"}, {opRecv, "recv"},
}

// abilities maps each feature to why it is unavailable, or "".
type abilities map[string]string

var (
	probeMu sync.Mutex
	kernel  abilities // what the kernel supports, once probed
)

// probe finds out what the kernel supports. It does so once, because the kernel
// does not change during a process. It does not remember a failure, because memory
// or descriptors that were short may be available the next time.
func probe() (abilities, error) {
	probeMu.Lock()
	defer probeMu.Unlock()
	if kernel != nil {
		return kernel, nil
	}
	stdruntime.LockOSThread() // a single-issuer ring belongs to the thread that made it
	defer stdruntime.UnlockOSThread()
	p := &prober{}
	if err := p.open(); err != nil {
		return nil, explain(err)
	}
	err := p.require()
	found := abilities{}
	for _, f := range features {
		if err != nil {
			break
		}
		if f.needs != "" && found[f.needs] != "" {
			found[f.name] = "needs " + f.needs
			continue
		}
		found[f.name] = f.try(p)
	}
	if e := p.close(); err == nil {
		err = e
	}
	if err != nil {
		return nil, fmt.Errorf("io_uring: %w", err)
	}
	kernel = found
	return found, nil
}

// without returns a without the features named in off and those that need them.
func (a abilities) without(off []string) (abilities, error) {
	left := abilities{}
	for _, name := range off {
		if !slices.ContainsFunc(features, func(f feature) bool { return f.name == name }) {
			return nil, fmt.Errorf("io_uring: no feature is called %q: there are %s", name, strings.Join(Features(), ", "))
		}
	}
	for _, f := range features {
		left[f.name] = a[f.name]
		switch {
		case slices.Contains(off, f.name):
			left[f.name] = "switched off"
		case left[f.name] == "" && f.needs != "" && left[f.needs] != "":
			left[f.name] = "needs " + f.needs
		}
	}
	return left, nil
}

func (a abilities) has(name string) bool { return a[name] == "" }

// setupFlags are the features that are flags of io_uring_setup.
var setupFlags = map[string]uint32{
	FeatureRDisabled:    setupRDisabled,
	FeatureSubmitAll:    setupSubmitAll,
	FeatureSingleIssuer: setupSingleIssuer,
	FeatureCoopTaskrun:  setupCoopTaskrun,
	FeatureDeferTaskrun: setupDeferTaskrun,
}

// flags returns the flags for io_uring_setup.
func (a abilities) flags() (flags uint32) {
	for name, flag := range setupFlags {
		if a.has(name) {
			flags |= flag
		}
	}
	if flags&(setupCoopTaskrun|setupDeferTaskrun) != 0 {
		flags |= setupTaskrunFlag // both use it, and it is invalid without them
	}
	return flags
}

// list returns the abilities as Info.Features.
func (a abilities) list() []runtime.Feature {
	var out []runtime.Feature
	for _, f := range features {
		why, on := a[f.name], a.has(f.name)
		if on {
			why = f.good
		}
		out = append(out, runtime.Feature{Name: f.name, On: on, Why: why, Since: f.since})
	}
	return out
}

// A prober tries features on a small ring without flags. On such a ring everything
// that can complete at once has completed when enter returns.
type prober struct {
	ring     *ring
	features uint32
	last     uint64 // user_data of the last submission
	mem      []byte // a page: a buffer ring and, in its second half, a buffer
}

const (
	probeEntries = 8
	probeGroup   = 7
	probeBuffer  = 64
	enterTrials  = 100 // of a call that a signal may interrupt
)

func (p *prober) open() (err error) {
	if p.ring, err = newRing(probeEntries, 0, 0); err != nil {
		return err
	}
	p.features = (*params)(unsafe.Pointer(p.ring.lib.Params)).features
	p.mem, err = syscall.Mmap(-1, 0, syscall.Getpagesize(), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	if err != nil {
		_ = p.ring.close()
	}
	return err
}

func (p *prober) close() error {
	err := p.ring.close()
	if e := syscall.Munmap(p.mem); err == nil {
		err = e
	}
	return err
}

// require fails if the kernel lacks something that has no fallback.
func (p *prober) require() error {
	if p.features&featNodrop == 0 {
		return fmt.Errorf("%w: the kernel drops completions that do not fit into the queue (no IORING_FEAT_NODROP)", errors.ErrUnsupported)
	}
	ops, err := p.ring.lib.Probe()
	if err != nil {
		return fmt.Errorf("%w: the kernel cannot say which operations it has: %w", errors.ErrUnsupported, err)
	}
	var missing []string
	for _, r := range required {
		if ops.GetOP(r.code).Flags&uring.OpSupportedFlag == 0 {
			missing = append(missing, r.name)
		}
	}
	if missing != nil {
		return fmt.Errorf("%w: the kernel lacks the operations %s", errors.ErrUnsupported, strings.Join(missing, ", "))
	}
	return p.enter()
}

// enter tries an operation that does nothing. A seccomp filter may allow the set-up of
// a ring and deny its use.
func (p *prober) enter() error {
	p.last++
	sqe := p.ring.next()
	sqe.OpCode, sqe.UserData = opNop, p.last
	var errno syscall.Errno
	for range enterTrials {
		if errno = p.ring.turn(); errno == 0 {
			if _, ok := p.completion(p.last); !ok {
				return fmt.Errorf("%w: io_uring_enter succeeds, and an operation that does nothing does not complete", errors.ErrUnsupported)
			}
			return nil
		}
		if errno != syscall.EINTR && errno != syscall.EAGAIN && errno != syscall.EBUSY {
			break
		}
	}
	return fmt.Errorf("%w: io_uring_enter fails although io_uring_setup succeeds: a seccomp filter or security module denies it: %w", errors.ErrUnsupported, errno)
}

func (p *prober) flag(flags uint32) string {
	lib, _, err := setup(probeEntries, 0, flags)
	if err != nil {
		return "io_uring_setup refuses it: " + err.Error()
	}
	// Nothing was submitted, so only the mapping of the entries is left to free.
	first, err := lib.NextSQE()
	_ = lib.Close()
	if err == nil {
		n := probeEntries * int(unsafe.Sizeof(*first))
		_ = syscall.Munmap(unsafe.Slice((*byte)(unsafe.Pointer(first)), n))
	}
	return ""
}

func (p *prober) bit(bit uint32) string {
	if p.features&bit == 0 {
		return "the kernel does not announce it"
	}
	return ""
}

func (p *prober) register() (*bufRing, error) {
	return newBufRing(p.ring.fd, probeGroup, p.mem[:len(p.mem)/2], 1)
}

func (p *prober) bufferRing() string {
	ring, err := p.register()
	if err != nil {
		return "io_uring_register refuses it: " + err.Error()
	}
	_ = ring.unregister()
	return ""
}

// do submits one operation. It returns the completion, if there is one at once, and
// the operation's user_data.
func (p *prober) do(fill func(*uring.SQEntry)) (cqe uring.CQEvent, id uint64, ok bool) {
	p.last++
	id = p.last
	sqe := p.ring.next()
	fill(sqe)
	sqe.UserData = id
	if p.ring.turn() != 0 {
		return uring.CQEvent{}, id, false
	}
	cqe, ok = p.completion(id)
	return cqe, id, ok
}

// completion returns the next completion of id and drops the others.
func (p *prober) completion(id uint64) (uring.CQEvent, bool) {
	var events [1]uring.CQEvent
	var scratch [1]*uring.CQEvent
	for p.ring.peek(events[:], scratch[:]) == 1 {
		if events[0].UserData == id {
			return events[0], true
		}
	}
	return uring.CQEvent{}, false
}

// multishot submits an operation that should complete at once and stay armed, and
// then cancels it.
func (p *prober) multishot(fill func(*uring.SQEntry)) (uring.CQEvent, string) {
	cqe, id, ok := p.do(fill)
	switch {
	case !ok:
		return cqe, "the trial did not complete"
	case cqe.Res < 0:
		return cqe, "the trial failed: " + syscall.Errno(-cqe.Res).Error()
	case cqe.Flags&cqeMore == 0:
		return cqe, "the trial completed only once"
	}
	sqe := p.ring.next()
	sqe.OpCode, sqe.Addr = opAsyncCancel, id
	for range probeEntries {
		if p.ring.wait(-1) != 0 {
			break
		}
		if end, ok := p.completion(id); ok && end.Flags&cqeMore == 0 {
			return cqe, ""
		}
	}
	return cqe, "the trial could not be cancelled"
}

func (p *prober) multishotRecv() string {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return "could not be tried: " + err.Error()
	}
	defer closeAll(pair[:]...)
	ring, err := p.register()
	if err != nil {
		return "could not be tried: " + err.Error()
	}
	defer func() { _ = ring.unregister() }()
	ring.add(0, p.mem[len(p.mem)/2:][:probeBuffer])
	ring.publish()
	if _, err := unix.Write(pair[1], []byte("x")); err != nil {
		return "could not be tried: " + err.Error()
	}
	cqe, why := p.multishot(func(sqe *uring.SQEntry) {
		sqe.OpCode, sqe.Fd, sqe.IoPrio = opRecv, int32(pair[0]), recvMultishot
		sqe.Flags, sqe.BufIG = sqeBufferSelect, probeGroup
	})
	if why == "" && (cqe.Res != 1 || cqe.Flags&cqeBuffer == 0) {
		return "the trial used no provided buffer"
	}
	return why
}

func (p *prober) multishotAccept() string {
	var fds [2]int
	for i := range fds {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return "could not be tried: " + err.Error()
		}
		defer closeAll(fd)
		fds[i] = fd
	}
	// An empty name is bound to a free name in the abstract namespace: unix(7).
	err := unix.Bind(fds[0], &unix.SockaddrUnix{})
	if err == nil {
		err = unix.Listen(fds[0], 1)
	}
	var addr unix.Sockaddr
	if err == nil {
		addr, err = unix.Getsockname(fds[0])
	}
	if err == nil {
		err = unix.Connect(fds[1], addr)
	}
	if err != nil {
		return "could not be tried: " + err.Error()
	}
	cqe, why := p.multishot(func(sqe *uring.SQEntry) {
		sqe.OpCode, sqe.Fd, sqe.IoPrio, sqe.OpcodeFlags = opAccept, int32(fds[0]), acceptMultishot, unix.SOCK_CLOEXEC
	})
	if cqe.Res > 0 {
		closeAll(int(cqe.Res))
	}
	return why
}

// cancelAll tries to cancel everything in flight, which is nothing.
func (p *prober) cancelAll() string {
	cqe, _, ok := p.do(func(sqe *uring.SQEntry) {
		sqe.OpCode, sqe.OpcodeFlags = opAsyncCancel, cancelAll|cancelAny
	})
	if !ok {
		return "the trial did not complete"
	}
	if cqe.Res < 0 && syscall.Errno(-cqe.Res) != syscall.ENOENT {
		return "the trial failed: " + syscall.Errno(-cqe.Res).Error()
	}
	return ""
}

func closeAll(fds ...int) {
	for _, fd := range fds {
		_ = syscall.Close(fd)
	}
}
