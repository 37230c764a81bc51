//go:build !386 && !arm && !mips && !mipsle

package uring

import (
	"syscall"
	"unsafe"
)

// Definitions of the kernel's include/uapi/linux/io_uring.h that go-uring does not
// export or does not know.
const (
	sysSetup    = 425
	sysEnter    = 426
	sysRegister = 427

	// io_uring_setup flags. NO_SQARRAY, CQE32 and SQE128 must never be set:
	// they change the layout of what go-uring maps.
	setupCQSize       = 1 << 3
	setupClamp        = 1 << 4
	setupRDisabled    = 1 << 6
	setupSubmitAll    = 1 << 7
	setupCoopTaskrun  = 1 << 8
	setupTaskrunFlag  = 1 << 9
	setupSingleIssuer = 1 << 12
	setupDeferTaskrun = 1 << 13

	// io_uring_params.features
	featNodrop   = 1 << 1
	featExtArg   = 1 << 8
	featNoIowait = 1 << 17

	// io_uring_enter flags
	enterGetEvents = 1 << 0
	enterExtArg    = 1 << 3
	enterNoIowait  = 1 << 7

	// flags that the kernel sets in the submission ring
	sqCQOverflow = 1 << 1
	sqTaskrun    = 1 << 2

	// io_uring_register opcodes
	registerEnableRings    = 12
	registerPbufRing       = 22
	registerUnregisterPbuf = 23

	// flags of a submission and of a completion
	sqeAsync        = 1 << 4
	sqeBufferSelect = 1 << 5
	cqeBuffer       = 1 << 0
	cqeMore         = 1 << 1
	cqeBufferShift  = 16

	// per-opcode flags
	recvMultishot   = 1 << 1
	acceptMultishot = 1 << 0
	cancelAll       = 1 << 0
	cancelAny       = 1 << 2
	fsyncDatasync   = 1 << 0

	offSQRing = 0
)

// Opcodes.
const (
	opNop           = 0
	opFsync         = 3
	opPollAdd       = 6
	opSendmsg       = 9
	opTimeout       = 11
	opTimeoutRemove = 12
	opAccept        = 13
	opAsyncCancel   = 14
	opConnect       = 16
	opFallocate     = 17
	opOpenat        = 18
	opClose         = 19
	opRead          = 22
	opWrite         = 23
	opSend          = 26
	opRecv          = 27
)

// params is struct io_uring_params. go-uring's own type has this layout but is
// unexported: see opt.
type params struct {
	sqEntries, cqEntries      uint32
	flags                     uint32
	sqThreadCPU, sqThreadIdle uint32
	features                  uint32
	wqFD                      uint32
	_                         [3]uint32
	sq                        struct {
		head, tail, mask, entries, flags, dropped, array, _ uint32
		_                                                   uint64
	}
	cq struct {
		head, tail, mask, entries, overflow, cqes, flags, _ uint32
		_                                                   uint64
	}
}

// getEventsArg is struct io_uring_getevents_arg.
type getEventsArg struct {
	sigmask     uint64
	sigmaskSize uint32
	minWaitUsec uint32
	ts          uint64
}

// timespec is struct __kernel_timespec: 64 bits on every architecture.
type timespec struct{ sec, nsec int64 }

// bufReg is struct io_uring_buf_reg.
type bufReg struct {
	ringAddr    uint64
	ringEntries uint32
	group       uint16
	flags       uint16
	_           [3]uint64
}

// bufEntry is struct io_uring_buf. The ring's tail is the last field of the
// first entry.
type bufEntry struct {
	addr uint64
	len  uint32
	id   uint16
	tail uint16
}

// register is io_uring_register(2).
func register(fd int, opcode uintptr, arg unsafe.Pointer, n uintptr) error {
	_, _, errno := syscall.Syscall6(sysRegister, uintptr(fd), opcode, uintptr(arg), n, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}
