package sys

import "time"

var processStart = time.Now()

// Now is the clock of the backends that live in real time: nanoseconds since the
// process started, monotonic and never 0.
func Now() int64 { return int64(time.Since(processStart)) + 1 }
