package ws

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Who finds room after all does not take the wake-up of who waits for it.
func TestBudgetWish(t *testing.T) {
	b := NewBudget(100)
	b.add(100)
	require.True(t, b.wantRoom(), "somebody begins to wait")
	b.add(-100) // and is woken, but has not looked yet
	require.False(t, b.wantRoom(), "somebody else wanted to wait")
	require.True(t, b.room.IsSet(), "the first one would wait on")
}
