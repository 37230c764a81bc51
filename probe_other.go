//go:build !linux

package noria

func systemLimits() []Limit { return nil }
