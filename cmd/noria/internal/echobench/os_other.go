//go:build !linux

package echobench

import (
	"errors"
	"os/exec"
	goruntime "runtime"
)

var errNotHere = errors.New("measuring needs Linux, for CPU affinity and the CPU clocks of other processes")

func supported() error { return errNotHere }

func allowedCPUs() []int                  { return nil }
func startOn(*exec.Cmd, int) error        { return errNotHere }
func ownGroup(*exec.Cmd)                  {}
func killGroup(int)                       {}
func processCPU(int) float64              { return 0 }
func cpuTicks(int) (idle, total uint64)   { return 0, 0 }
func machine() (kernel, processor string) { return goruntime.GOOS, goruntime.GOARCH }

type callCounter struct{}

func countCalls(int) (callCounter, error)       { return callCounter{}, errNotHere }
func (callCounter) read() (n uint64, err error) { return 0, errNotHere }
func (callCounter) close()                      {}
