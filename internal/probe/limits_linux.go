package probe

import (
	"math"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// systemKernel returns the kernel's release, as uname -r prints it.
func systemKernel() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

// systemLimits returns the system's limits that matter to a server. It leaves out a
// limit that cannot be read.
func systemLimits() (limits []Limit) {
	for _, l := range []struct {
		name, means string
		resource    int
	}{
		{"memlock", "bytes of locked memory", unix.RLIMIT_MEMLOCK},
		{"nofile", "open files", unix.RLIMIT_NOFILE},
		{"nproc", "threads of this user", unix.RLIMIT_NPROC},
	} {
		var r unix.Rlimit
		if unix.Getrlimit(l.resource, &r) == nil {
			limits = append(limits, Limit{l.name + "_soft", limitValue(r.Cur), l.means}, Limit{l.name + "_hard", limitValue(r.Max), l.means + ", at most"})
		}
	}
	for _, l := range []struct{ name, means, path string }{
		{"kernel.io_uring_disabled", "0: allowed; 1: only for the group kernel.io_uring_group; 2: forbidden", "/proc/sys/kernel/io_uring_disabled"},
		{"kernel.pid_max", "threads and processes in all", "/proc/sys/kernel/pid_max"},
		{"cgroup.pids", "threads and processes of this container", cgroupPids()},
		{"net.core.somaxconn", "connections that may wait to be accepted", "/proc/sys/net/core/somaxconn"},
	} {
		if v, ok := readNumber(l.path); ok {
			limits = append(limits, Limit{l.name, v, l.means})
		}
	}
	return limits
}

func limitValue(v uint64) int64 {
	if v > math.MaxInt64 { // RLIM_INFINITY
		return Unlimited
	}
	return int64(v)
}

// cgroupPids returns the path of the cgroup's limit on processes, of version 2 or 1:
// see https://docs.kernel.org/admin-guide/cgroup-v2.html#pid
func cgroupPids() string {
	groups, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(groups)) {
		id, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		controllers, path, _ := strings.Cut(rest, ":")
		switch {
		case id == "0" && controllers == "":
			if p := "/sys/fs/cgroup" + path + "/pids.max"; exists(p) {
				return p
			}
		case controllers == "pids":
			if p := "/sys/fs/cgroup/pids" + path + "/pids.max"; exists(p) {
				return p
			}
		}
	}
	return ""
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// readNumber reads a file that holds a number, or "max".
func readNumber(path string) (int64, bool) {
	if path == "" {
		return 0, false
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, false
	}
	s := strings.TrimSpace(string(b))
	if s == "max" {
		return Unlimited, true
	}
	v, err := strconv.ParseInt(s, 10, 64)
	return v, err == nil
}
