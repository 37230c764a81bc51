//go:build race

package websocket_test

// raceEnabled: everything takes some ten times as long.
const raceEnabled = true
