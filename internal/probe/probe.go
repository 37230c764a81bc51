// Package probe finds out what Noria gets on this machine: which backends start and
// with which features, which one a server gets, and the system's limits that matter to
// a server. It advises on what is off. It asks by trying: it starts one loop on each
// backend of the build and stops it at once. "noria probe" prints its Report.
package probe

import (
	"errors"
	"fmt"
	"os"
	goruntime "runtime"
	"syscall"

	"github.com/noria-go/noria"
	"github.com/noria-go/noria/internal/backends"
	"github.com/noria-go/noria/internal/cpus"
	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
)

// A Report is the result of Run. Its JSON names are stable.
type Report struct {
	OS         string `json:"os"`
	Arch       string `json:"arch"`
	Kernel     string `json:"kernel"` // as uname -r prints it; empty if not known
	Go         string `json:"go"`
	CPUs       int    `json:"cpus"` // that this process may use
	GOMAXPROCS int    `json:"gomaxprocs"`
	Loops      int    `json:"default_loops"`

	// Backend is the backend that noria.Start would use, and Reason says why. If there
	// is none, Backend is empty and Reason is the error.
	Backend     string `json:"backend"`
	Reason      string `json:"reason"`
	Environment string `json:"environment"` // the value of NORIA_BACKEND

	Backends []BackendReport `json:"backends"` // those that this build contains
	Limits   []Limit         `json:"limits"`
	Advice   []Advice        `json:"advice"` // one for each thing that is off
}

// A BackendReport is one backend's part of a Report.
type BackendReport struct {
	Name     string          `json:"name"`
	Usable   bool            `json:"usable"`
	Why      string          `json:"why"` // when it is not usable
	Features []FeatureReport `json:"features"`
}

// A FeatureReport is one feature of a backend.
type FeatureReport struct {
	Name  string `json:"name"`
	On    bool   `json:"on"`
	Why   string `json:"why"`
	Since string `json:"since"`
}

// A Limit is a limit of the system. Value is Unlimited if there is none.
type Limit struct {
	Name  string `json:"name"`
	Value int64  `json:"value"`
	Means string `json:"means"`
}

// Unlimited is the Value of a Limit that is not set.
const Unlimited = int64(-1)

// An Advice says how to turn on something that is off, or how to raise a low limit.
type Advice struct {
	About string `json:"about"` // the name of a backend, feature or limit
	Do    string `json:"do"`
}

// Run starts and stops one loop on each backend of this build, and one as noria.Start
// would. It blocks for some milliseconds.
func Run() Report {
	r := Report{OS: goruntime.GOOS, Arch: goruntime.GOARCH, Go: goruntime.Version(), Kernel: systemKernel(), CPUs: goruntime.NumCPU(),
		GOMAXPROCS: goruntime.GOMAXPROCS(0), Loops: cpus.Loops(), Environment: os.Getenv(backends.Variable), Limits: systemLimits()}
	for _, b := range backends.All() {
		r.addBackend(b)
	}
	r.choose()
	r.adviseLimits()
	return r
}

// choose starts a loop as noria.Start would.
func (r *Report) choose() {
	g, err := noria.Start(noria.Options{Loops: 1})
	if err != nil {
		r.Reason = err.Error()
		return
	}
	info := g.Info()
	r.Backend, r.Reason = info.Backend, info.Reason
	_ = g.Stop() // no task ran on it
}

func (r *Report) addBackend(b backends.Backend) {
	report := BackendReport{Name: b.Name, Features: []FeatureReport{}}
	g, err := loop.StartGroup(loop.GroupOptions{Loops: 1, New: func(int) (runtime.Runtime, error) { return b.Open() }})
	if err != nil {
		report.Why = err.Error()
		r.advise(b.Name, adviseError(err))
	} else {
		report.Usable = true
		for _, f := range g.Info().Features {
			report.Features = append(report.Features, FeatureReport(f))
			if !f.On {
				r.advise(b.Name+" "+f.Name, adviseFeature(f))
			}
		}
		_ = g.Stop()
	}
	r.Backends = append(r.Backends, report)
}

func (r *Report) advise(about, do string) {
	r.Advice = append(r.Advice, Advice{About: about, Do: do})
}

func adviseFeature(f runtime.Feature) string {
	s := "nothing has to be done: its fallback is in use"
	if f.Since != "" {
		s += fmt.Sprintf("; to have it, run Linux %s or newer, or allow it where a seccomp filter or a sandbox takes it away", f.Since)
	}
	return s
}

// adviseError says how to get a backend that does not start. The error itself says why
// it does not.
func adviseError(err error) string {
	switch {
	case goruntime.GOOS != "linux":
		return "run it on Linux"
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EACCES):
		return "set sysctl kernel.io_uring_disabled to 0; in a container, allow the system calls io_uring_setup, io_uring_enter and " +
			"io_uring_register in its seccomp profile (docker run --security-opt seccomp=PROFILE.json); or use epoll"
	case errors.Is(err, syscall.ENOSYS):
		return "run Linux 5.19 or newer, built with CONFIG_IO_URING; or use epoll"
	case errors.Is(err, syscall.ENOMEM):
		return "raise the limit of locked memory: ulimit -l, LimitMEMLOCK= of systemd, --ulimit memlock of docker"
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return "raise the limit of open files: ulimit -n, LimitNOFILE= of systemd, --ulimit nofile of docker"
	case errors.Is(err, errors.ErrUnsupported):
		return "run a newer Linux; or use epoll"
	}
	return "see why; or choose another backend with " + backends.Variable
}

// Values that a server with many connections needs. Below them it works, with fewer
// connections.
const (
	goodFiles   = 65536
	goodMemlock = 8 << 20
	goodBacklog = 4096
)

func (r *Report) adviseLimits() {
	for _, l := range r.Limits {
		switch {
		case l.Name == "nofile_soft" && l.Value != Unlimited && l.Value < goodFiles:
			r.advise(l.Name, fmt.Sprintf("each connection is an open file: for more than about %d of them, raise it (ulimit -n, LimitNOFILE= of systemd)", l.Value))
		case l.Name == "memlock_soft" && l.Value != Unlimited && l.Value < goodMemlock:
			r.advise(l.Name, "many kernels count io_uring's rings against it, for all programs of a user together: if it cannot be started for lack of memory, raise it (ulimit -l, LimitMEMLOCK= of systemd)")
		case l.Name == "kernel.io_uring_disabled" && l.Value != 0:
			r.advise(l.Name, "sysctl -w kernel.io_uring_disabled=0 allows io_uring to every program")
		case l.Name == "net.core.somaxconn" && l.Value < goodBacklog:
			r.advise(l.Name, fmt.Sprintf("connections that arrive in a burst are refused beyond it: sysctl -w net.core.somaxconn=%d", goodBacklog))
		}
	}
}
