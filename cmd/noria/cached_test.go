package main

import "os"

// TestMain builds the program that the tests run, so go test does not know what it is
// made of and would return cached results after a change. So the test binary contains
// the program too; this call keeps the linker from dropping it. The variable is never
// set.
func init() {
	if os.Getenv("NORIA_TEST_IS_THE_PROGRAM") != "" {
		main()
	}
}
