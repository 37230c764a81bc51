//go:build !linux

package cpus

// Allowed returns none: loops are pinned only on Linux.
func Allowed() []int { return nil }
