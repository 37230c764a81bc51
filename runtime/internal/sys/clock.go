package sys

import "time"

var processStart = time.Now()

// Now returns the nanoseconds since the process started, the clock of the backends
// on real time. It is monotonic and never 0.
func Now() int64 { return int64(time.Since(processStart)) + 1 }
