package echobench

// burners is how many goroutines the load runs.
const burners = 2

// startLoad starts goroutines that never wait and make garbage, and that keep
// enough memory alive for collections to have something to mark. They end with the
// process.
func startLoad() {
	for i := range burners {
		go burn(uint64(i + 1))
	}
}

// alive keeps the most recent garbage alive.
var alive [burners][4096][]byte

func burn(id uint64) {
	const work = 2000 // steps between two allocations, about a microsecond
	x := id * 0x9e3779b97f4a7c15
	mine := &alive[id-1]
	for {
		for range work {
			x ^= x << 13 // Marsaglia's xorshift
			x ^= x >> 7
			x ^= x << 17
		}
		b := make([]byte, 512+x%4096)
		b[0] = byte(x)
		mine[x>>8%uint64(len(mine))] = b
	}
}
