package cpus

import "golang.org/x/sys/unix"

// Allowed returns the CPUs that this process may use. If the system does not say, it
// returns none, and loops are not pinned.
func Allowed() (cpus []int) {
	var set unix.CPUSet
	if unix.SchedGetaffinity(0, &set) != nil {
		return nil
	}
	for i := range 8 * len(set) * 8 {
		if set.IsSet(i) {
			cpus = append(cpus, i)
		}
	}
	return cpus
}
