// Package friend holds the key to methods that the packages of this module share with
// each other and not with users.
//
// Go has no friends: a method is either exported or private to its package. But the
// servers need more of a stream than a handler does, for example to write a frame in
// place, and a loop needs more of a buffer than its owner does. So each such type has
// one exported method, Friend, which takes a Key and returns the same value under a
// type with the additional methods. Only this module can import this package, so only
// this module can make a Key. A call through Friend is a direct call: it costs the same
// as a method of the type itself.
package friend

// A Key opens the Friend method of a type of this module.
type Key struct{ _ struct{} }
