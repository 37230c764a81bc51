// Package sys is what the Linux backends share: the clock, the table of handles,
// socket addresses in the kernel's form, and the creation of sockets. It knows
// nothing of rings or readiness. On other systems it has only the clock.
package sys
