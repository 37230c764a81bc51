//go:build !linux

package adapterbench

func cpuSeconds() float64 { return 0 }
func startPeak() int64    { return 0 }
func peak() int64         { return 0 }
