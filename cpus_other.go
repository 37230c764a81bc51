//go:build !linux

package noria

func allowedCPUs() []int { return nil }
