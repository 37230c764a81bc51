package loop

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/noria-go/noria/runtime"
)

// abandoned reports whether a socket listens on the port or path of addr that no
// process is seen to have open. A ring holds the sockets of its operations, and the
// kernel tears it down some time after the process that had it was killed. The
// descriptors of other users' processes may be hidden, so the answer may be wrong.
func abandoned(addr runtime.Addr) bool {
	unowned := map[string]bool{} // as the links in /proc/PID/fd name them
	if addr.Path != "" {
		const listening = "00010000" // __SO_ACCEPTCON
		for _, f := range table("/proc/net/unix") {
			if len(f) == 8 && f[7] == addr.Path && f[3] == listening {
				unowned["socket:["+f[6]+"]"] = true
			}
		}
	} else {
		const listening = "0A"
		port := fmt.Sprintf(":%04X", addr.AddrPort.Port())
		for _, f := range append(table("/proc/net/tcp"), table("/proc/net/tcp6")...) {
			if len(f) >= 10 && strings.HasSuffix(f[1], port) && f[3] == listening {
				unowned["socket:["+f[9]+"]"] = true
			}
		}
	}
	if len(unowned) == 0 {
		return true // it has ended meanwhile
	}
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/*") // the pattern is good
	for _, fd := range fds {
		if link, err := os.Readlink(fd); err == nil {
			delete(unowned, link)
		}
	}
	return len(unowned) > 0
}

// table returns the fields of each line of a file; none if it cannot be read.
func table(path string) (lines [][]string) {
	data, _ := os.ReadFile(path)
	for line := range strings.Lines(string(data)) {
		lines = append(lines, strings.Fields(line))
	}
	return lines
}
