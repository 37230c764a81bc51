// Package sys is what Linux backends share: the table of handles, socket
// addresses as the kernel has them, and the making of sockets. It knows nothing
// of rings or readiness. On other systems it is empty.
package sys
