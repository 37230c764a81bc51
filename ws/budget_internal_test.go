package ws

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A caller of wantRoom that finds room does not take the wake-up of another that waits.
func TestBudgetWantRoom(t *testing.T) {
	b := NewBudget(100)
	b.add(100)
	require.True(t, b.wantRoom(), "a connection begins to wait")
	b.add(-100) // wakes the other one, which has not run yet
	require.False(t, b.wantRoom(), "another connection wanted to wait")
	require.True(t, b.room.IsSet(), "the first one would wait on")
}
