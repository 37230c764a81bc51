// Package wake wakes a loop's thread from its wait in the kernel, for the backends on
// Linux. A Waker is an eventfd, which the backend has the kernel watch, and a state that
// makes Wake a system call only while the thread sleeps. On other systems the package is
// empty.
package wake
