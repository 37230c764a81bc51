package main

import "os"

// The tests run a program that TestMain builds, and go test takes their results from
// its cache while their own binary is the same. So the program is in that too, whatever
// it is made of: the linker leaves out only what nothing calls. Nobody sets the variable.
func init() {
	if os.Getenv("NORIA_TEST_IS_THE_PROGRAM") != "" {
		main()
	}
}
