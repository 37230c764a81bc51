package tcp

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// When a connection has ended, every loop that waits for room wakes up, whatever a loop
// does that begins to wait at the same time. Only then do they compete for the room.
func TestRoomForEachLoop(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s := &Server{MaxConns: 1}
	const waiters = 2
	rounds := 500_000 // the mistake shows in one of some 200,000
	if testing.Short() {
		rounds = 20_000
	}
	for round := range rounds {
		require.True(t, s.Admit())
		errs := make(chan error, waiters)
		for range waiters {
			go func() { errs <- s.waitRoom(ctx) }()
		}
		go s.leave()
		for range waiters {
			require.NoError(t, <-errs, "round %d: there is room, and one is left waiting", round)
		}
	}
}
