package tcp

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestRoomForEverybody: when a connection has ended, every loop that waited for
// room goes on, whatever another one that comes to wait does meanwhile. Which of
// them gets the room is decided later.
func TestRoomForEverybody(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s := &Server{MaxConns: 1}
	const waiters = 2
	rounds := 500_000 // one of some 200,000 failed once
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
