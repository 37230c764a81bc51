//go:build !linux

package conformance

func loopLimitCases() []LoopCase { return nil }
