// Package sys is what Linux backends share: the clock, the table of handles, socket
// addresses as the kernel has them, and the making of sockets. It knows nothing
// of rings or readiness. On other systems only the clock is left.
package sys
