package ws_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/internal/backendtest"
	"github.com/noria-go/noria/internal/friend"
	"github.com/noria-go/noria/ws"
	"github.com/noria-go/noria/ws/internal/frame"
)

// A Budget holds back messages of other threads too: none moves into the stream's queue
// while something waits there and the Budget is used up, and no further one is accepted.
func TestBudgetHoldsOthersBack(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		const limit, size = 200_000, 20_000
		srv := echoServer()
		srv.Budget, srv.SendQueue, srv.WriteTimeout = ws.NewBudget(limit), 10<<20, -1
		var sent atomic.Int64
		failed := make(chan error, 1)
		srv.Handler = func(ctx context.Context, c *ws.Conn) error {
			go func() {
				for {
					if err := c.SendBinary(context.Background(), make([]byte, size)); err != nil {
						failed <- err
						return
					}
					sent.Add(1)
				}
			}()
			return receiveOne(ctx, c)
		}
		p := connect(t, serve(t, backendtest.Group(t, v, 1), srv))
		settled(t, &sent) // the kernel is full, and the Budget used up
		// One message over may be in the stream, and one may wait behind it.
		require.Less(t, srv.Budget.Used(), int64(limit+2*size+1000))
		// When the peer reads, all messages that were held back arrive in order.
		for range sent.Load() {
			p.want(frame.Binary, string(make([]byte, size)))
		}
		p.Close()
		require.Error(t, <-failed)
	})
}

// A Budget that other connections have used up does not keep a connection from sending to
// a peer that reads, whatever the policy and however fast messages follow each other:
// bytes that were queued in one turn of the loop cannot leave before the next.
func TestBudgetWaitsATurn(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		const messages = 100
		for _, policy := range []ws.Policy{ws.PolicyDrop, ws.PolicyDisconnect} {
			for _, from := range []string{"the task", "a goroutine"} {
				t.Run(fmt.Sprintf("policy %d from %s", policy, from), func(t *testing.T) {
					g := backendtest.Group(t, v, 1)
					usedUp := make(chan struct{})
					others, srv := echoServer(), echoServer()
					others.Budget, others.SendQueue, others.Policy = ws.NewBudget(100_000), 10<<20, ws.PolicyDrop
					others.Handler = func(ctx context.Context, c *ws.Conn) error {
						if err := flood(ctx, c); !errors.Is(err, ws.ErrDropped) {
							return err
						}
						close(usedUp)
						return receiveOne(ctx, c)
					}
					srv.Budget, srv.Policy = others.Budget, policy
					result := make(chan error, 1)
					srv.Handler = func(ctx context.Context, c *ws.Conn) error {
						send := func() error {
							for i := range messages {
								if err := c.SendText(ctx, fmt.Sprint(i)); err != nil {
									return fmt.Errorf("message %d: %w", i, err)
								}
							}
							return nil
						}
						if from == "the task" {
							result <- send()
						} else {
							go func() { result <- send() }()
						}
						return receiveOne(ctx, c)
					}
					stalled := connect(t, serve(t, g, others))
					<-usedUp
					p := connect(t, serve(t, g, srv))
					require.NoError(t, <-result)
					for i := range messages {
						p.want(frame.Text, fmt.Sprint(i))
					}
					stalled.Close()
				})
			}
		}
	})
}

// If a loop ends before it takes messages of other threads, the Budget is not charged for
// them any more.
func TestLoopEndUnchargesQueued(t *testing.T) {
	backendtest.Each(t, func(t *testing.T, v backendtest.Variant) {
		g := backendtest.Group(t, v, 1)
		addr, accepted := serverPeer(t, switching)
		budget := ws.NewBudget(1 << 20)
		var c *ws.Conn
		require.NoError(t, backendtest.Run(t, g, func(ctx context.Context) (err error) {
			c, err = ws.Dial(ctx, "ws://"+addr, ws.DialOptions{Options: ws.Options{Budget: budget}})
			return err
		}))
		defer (<-accepted).Close()
		queued := make(chan error, 1)
		require.NoError(t, c.Loop().Post(func() { // the loop does nothing meanwhile
			done := make(chan struct{})
			go func() {
				defer close(done)
				queued <- errors.Join(c.SendText(context.Background(), "one"), c.SendText(context.Background(), "two"))
			}()
			<-done
			c.Loop().Friend(friend.Key{}).Stop()
		}))
		require.NoError(t, <-queued)
		<-c.Loop().Friend(friend.Key{}).Stopped()
		require.Zero(t, budget.Used())
		require.ErrorIs(t, c.SendText(context.Background(), "late"), net.ErrClosed)
		require.Zero(t, budget.Used())
	})
}
