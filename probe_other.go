//go:build !linux

package noria

func systemKernel() string { return "" }

func systemLimits() []Limit { return nil }
