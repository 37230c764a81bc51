//go:build race

package compat_test

// raceEnabled: memory is not what it is otherwise.
const raceEnabled = true
