// Package friend holds the key to what the packages of this module share with
// each other and not with users.
//
// Go has no friends: a method is either for everybody or for its own package.
// The servers need more of a stream than a handler does (to write a frame in
// place, say), and a loop needs more of a buffer than its owner does. So each
// such type has one exported method, Friend, which takes a Key and returns the
// same value under a type with those methods. Only this module can import this
// package, so only this module can make a Key. A call through Friend is a direct
// call: it costs what a method of the type itself costs.
package friend

// A Key opens the Friend method of a type of this module.
type Key struct{ _ struct{} }
