package echobench

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	goruntime "runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// supported returns an error if this system cannot measure.
func supported() error { return nil }

// allowedCPUs returns the CPUs that this process may use.
func allowedCPUs() (cpus []int) {
	var set unix.CPUSet
	if unix.SchedGetaffinity(0, &set) != nil {
		return nil
	}
	for i := range 64 * len(set) {
		if set.IsSet(i) {
			cpus = append(cpus, i)
		}
	}
	return cpus
}

// startOn starts cmd pinned to a CPU, or unpinned if cpu is negative. A child
// inherits the affinity of the thread that forks it: sched_setaffinity(2).
func startOn(cmd *exec.Cmd, cpu int) (err error) {
	if cpu < 0 {
		return cmd.Start()
	}
	goruntime.LockOSThread()
	defer goruntime.UnlockOSThread()
	var before, only unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return fmt.Errorf("sched_getaffinity: %w", err)
	}
	only.Set(cpu)
	if err := unix.SchedSetaffinity(0, &only); err != nil {
		return fmt.Errorf("tie %s to CPU %d: %w", cmd.Path, cpu, err)
	}
	err = cmd.Start()
	if rerr := unix.SchedSetaffinity(0, &before); err == nil {
		err = rerr
	}
	return err
}

// ownGroup puts cmd into its own process group, so that a peer's children can be
// killed with it.
func ownGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true} }

func killGroup(pid int) { _ = unix.Kill(-pid, unix.SIGKILL) } // the group may have ended already

// processCPU returns the CPU time of a process in seconds, with nanosecond
// resolution. It includes all threads, also those that have ended. The clock's
// number is made as in clock_getcpuclockid(3).
func processCPU(pid int) float64 {
	const sched = 2
	var ts unix.Timespec
	if unix.ClockGettime(int32(^pid<<3|sched), &ts) != nil {
		return 0
	}
	return float64(ts.Nano()) / 1e9
}

// cpuTicks returns the idle and the total ticks of a CPU from /proc/stat: see
// proc_stat(5).
func cpuTicks(cpu int) (idle, total uint64) {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil || cpu < 0 {
		return 0, 0
	}
	for line := range strings.Lines(string(stat)) {
		fields := strings.Fields(line)
		if len(fields) < 9 || fields[0] != "cpu"+strconv.Itoa(cpu) {
			continue
		}
		for i, f := range fields[1:9] { // the later fields are included in these
			n, _ := strconv.ParseUint(f, 10, 64)
			total += n
			if i == 3 || i == 4 { // idle, iowait
				idle += n
			}
		}
	}
	return idle, total
}

// A callCounter counts the system calls of a process, like perf stat -e
// raw_syscalls:sys_enter: see perf_event_open(2).
type callCounter []int

// countCalls starts counting. Most often it fails because the process lacks the
// permission.
func countCalls(pid int) (c callCounter, err error) {
	id, err := tracepoint()
	if err != nil {
		return nil, err
	}
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return nil, err
	}
	attr := unix.PerfEventAttr{Type: unix.PERF_TYPE_TRACEPOINT, Config: id, Bits: unix.PerfBitInherit}
	attr.Size = uint32(binary.Size(attr))
	for _, t := range threads {
		tid, _ := strconv.Atoi(t.Name())
		fd, err := unix.PerfEventOpen(&attr, tid, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
		if err == unix.ESRCH {
			continue // the thread has ended
		}
		if err != nil {
			c.close()
			return nil, fmt.Errorf("perf_event_open: %w", err)
		}
		c = append(c, fd)
	}
	return c, nil
}

func tracepoint() (id uint64, err error) {
	for _, root := range []string{"/sys/kernel/tracing", "/sys/kernel/debug/tracing"} {
		var text []byte
		if text, err = os.ReadFile(root + "/events/raw_syscalls/sys_enter/id"); err == nil {
			return strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
		}
	}
	return 0, err
}

// read returns the count so far.
func (c callCounter) read() (n uint64, err error) {
	for _, fd := range c {
		var value [8]byte
		if _, err := unix.Read(fd, value[:]); err != nil {
			return 0, err
		}
		n += binary.NativeEndian.Uint64(value[:])
	}
	return n, nil
}

func (c callCounter) close() {
	for _, fd := range c {
		_ = unix.Close(fd)
	}
}

// machine returns the kernel's release and the processor's name.
func machine() (kernel, processor string) {
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		kernel = unix.ByteSliceToString(u.Release[:])
	}
	info, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(info)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return kernel, strings.TrimSpace(value)
		}
	}
	return kernel, goruntime.GOARCH
}
