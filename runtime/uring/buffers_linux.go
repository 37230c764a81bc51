//go:build !386 && !arm && !mips && !mipsle

package uring

import (
	"encoding/binary"
	"sync/atomic"
	"unsafe"
)

// A bufRing is a ring of provided buffers. The kernel takes a buffer from it at the
// moment it has bytes: IORING_REGISTER_PBUF_RING in io_uring_register(2). The ring
// is first in, first out, so every buffer passes through the CPU cache in turn.
type bufRing struct {
	fd      int
	group   uint16
	entries []bufEntry
	tail    uint16
	shown   uint16 // the published tail
}

// newBufRing registers a ring for count buffers in mem, which must be page aligned
// and stay mapped until unregister.
func newBufRing(fd int, group uint16, mem []byte, count int) (*bufRing, error) {
	n := ringEntries(count)
	b := &bufRing{fd: fd, group: group, entries: unsafe.Slice((*bufEntry)(unsafe.Pointer(&mem[0])), n)}
	clear(b.entries)
	reg := &bufReg{ringAddr: uint64(uintptr(unsafe.Pointer(&mem[0]))), ringEntries: uint32(n), group: group}
	if err := register(fd, registerPbufRing, unsafe.Pointer(reg), 1); err != nil {
		return nil, err
	}
	return b, nil
}

// ringEntries returns the length of a ring for count buffers, a power of two.
func ringEntries(count int) int {
	n := 1
	for n < count {
		n <<= 1
	}
	return n
}

// bufRingSize returns how many bytes of memory newBufRing needs for count buffers.
func bufRingSize(count int) int { return ringEntries(count) * int(unsafe.Sizeof(bufEntry{})) }

// unregister removes the ring from the kernel.
func (b *bufRing) unregister() error {
	return register(b.fd, registerUnregisterPbuf, unsafe.Pointer(&bufReg{group: b.group}), 1)
}

// add appends a buffer. publish makes it visible to the kernel.
func (b *bufRing) add(id uint32, mem []byte) {
	e := &b.entries[int(b.tail)&(len(b.entries)-1)]
	e.addr = uint64(uintptr(unsafe.Pointer(&mem[0])))
	e.len = uint32(len(mem))
	e.id = uint16(id)
	b.tail++
}

// publish stores the tail so that the kernel sees the entries before it. Go has no
// atomic store of 16 bits, so publish stores the tail together with its neighbour,
// the id of the first entry, which only this side writes.
func (b *bufRing) publish() {
	if b.shown == b.tail {
		return
	}
	b.shown = b.tail
	first := &b.entries[0]
	var word [4]byte
	binary.NativeEndian.PutUint16(word[:], first.id)
	binary.NativeEndian.PutUint16(word[2:], b.tail)
	atomic.StoreUint32((*uint32)(unsafe.Pointer(&first.id)), binary.NativeEndian.Uint32(word[:]))
}
