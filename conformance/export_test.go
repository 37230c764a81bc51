package conformance

// For the suite's own tests.
type (
	Case   = testCase
	Limits = limits
)

var (
	Check        = check
	RuntimeCases = runtimeCases
	LoopCases    = loopCases
)
