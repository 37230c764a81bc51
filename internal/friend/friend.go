// Package friend holds the key to what the packages of this module share with each
// other but not with users.
//
// In Go a method is accessible either to all packages or to its own. But the
// servers need more of a stream than a handler does, for example to write a frame
// in place, and a loop needs more of a buffer than its owner does. So each such
// type has one exported method, Friend, which takes a Key and returns the same
// value as a type with the further methods. Only this module can import this
// package, so only this module can make a Key. A call through Friend is a direct
// call and costs the same as a method of the type itself.
package friend

// A Key is the argument of a type's Friend method.
type Key struct{ _ struct{} }
