package conformance

// What the suite's own tests need of it.
type (
	Case   = testCase
	Limits = limits
)

var (
	Check        = check
	RuntimeCases = runtimeCases
	LoopCases    = loopCases
)
