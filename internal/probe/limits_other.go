//go:build !linux

package probe

func systemKernel() string { return "" }

func systemLimits() []Limit { return nil }
