// Package wake gets a loop's thread out of its wait in the kernel, for backends on
// Linux: an eventfd, and a state that spares the system call unless the thread
// really sleeps. How the kernel watches the eventfd is the backend's business. On
// other systems the package is empty.
package wake
