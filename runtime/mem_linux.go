package runtime

import "golang.org/x/sys/unix"

// hugePage is the size of one; see adviseHuge.
const hugePage = 2 << 20

// adviseHuge asks for huge pages beneath a large mapping, where the kernel has
// them (transparent_hugepage is madvise or always): one fault in place of 512, and
// fewer misses of the TLB. That they are not had is no error.
func adviseHuge(mem []byte) {
	if len(mem) >= hugePage {
		_ = unix.Madvise(mem, unix.MADV_HUGEPAGE)
	}
}
