//go:build !linux

package conformance

func loopLimitCases() []testCase { return nil }
