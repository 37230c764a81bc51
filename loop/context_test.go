package loop

import (
	"context"
	goruntime "runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// newTask makes a task that never runs, for its context.
func newTask(parent *Task) *Task {
	if parent == nil {
		l := newLoop(nil, LoopOptions{})
		parent = &l.root
	}
	return parent.loop.spawn(parent, "test", nil, nil)
}

type testKey struct{}

func TestTaskIsAContext(t *testing.T) {
	task := newTask(nil)
	require.NoError(t, task.context().Err())
	_, ok := task.context().Deadline()
	require.False(t, ok)
	select {
	case <-task.context().Done():
		t.Fatal("done already")
	default:
	}
	require.Same(t, task, TaskOf(context.WithValue(task.context(), testKey{}, "v")))
	require.Nil(t, TaskOf(context.Background()))

	task.cancel(false)
	require.Equal(t, context.Canceled, task.context().Err())
	<-task.context().Done()
	require.False(t, task.killed)
	task.cancel(true)
	require.True(t, task.killed)
}

func TestTaskCancelsChildren(t *testing.T) {
	parent := newTask(nil)
	child := newTask(parent)
	other := newTask(&parent.loop.root)
	parent.cancel(true)
	require.Error(t, child.context().Err())
	require.True(t, child.killed)
	require.NoError(t, other.context().Err())
	late := newTask(parent)
	require.Error(t, late.context().Err(), "a child of a cancelled task is born cancelled")
}

// A context that the context package derives from a task's ends with the task's, and
// needs no goroutine.
func TestStandardContexts(t *testing.T) {
	before := goruntime.NumGoroutine()
	task := newTask(nil)
	c1, cancel1 := context.WithCancel(task.context())
	defer cancel1()
	c2, cancel2 := context.WithTimeout(c1, time.Hour)
	defer cancel2()
	c3, cancel3 := context.WithCancelCause(task.context())
	defer cancel3(nil)
	c4, cancel4 := context.WithCancel(task.context())
	require.Equal(t, before, goruntime.NumGoroutine())
	cancel4()
	require.Error(t, c4.Err())
	require.Len(t, task.afters, 2, "a cancelled child is forgotten")
	task.cancel(false)
	for _, c := range []context.Context{c1, c2, c3} {
		<-c.Done()
		require.Equal(t, context.Canceled, c.Err())
		require.Equal(t, context.Canceled, context.Cause(c))
	}
	c5, cancel5 := context.WithCancel(task.context())
	defer cancel5()
	require.Error(t, c5.Err(), "of a task that has ended")
}

// Goroutines may derive contexts while the task ends: the context package holds a lock
// then, which the end of the task's context must not wait for.
func TestContextsWhileTaskEnds(t *testing.T) {
	for range 2000 {
		task := newTask(nil)
		start := make(chan struct{})
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				<-start
				c, cancel := context.WithCancel(task.context())
				<-c.Done()
				cancel()
			})
		}
		close(start)
		task.cancel(false)
		wg.Wait()
	}
}

func TestAfterFunc(t *testing.T) {
	task := newTask(nil)
	called := 0
	stop := task.Friend(key).AfterFunc(func() { called++ })
	task.Friend(key).AfterFunc(func() { called += 10 })
	require.True(t, stop())
	require.False(t, stop())
	task.cancel(false)
	require.Equal(t, 10, called)
	// The context package calls AfterFunc while it holds a lock that f takes.
	var mu sync.Mutex
	done := make(chan struct{})
	mu.Lock()
	stop = task.Friend(key).AfterFunc(func() {
		mu.Lock()
		defer mu.Unlock()
		close(done)
	})
	mu.Unlock()
	<-done
	require.False(t, stop())
}

func TestTaskValues(t *testing.T) {
	task := newTask(nil)
	require.Nil(t, task.context().Value(testKey{}))
	task.values = context.WithValue(context.Background(), testKey{}, 7)
	child := newTask(task)
	require.Equal(t, 7, child.context().Value(testKey{}))
	require.Same(t, child, TaskOf(context.WithoutCancel(child.context())))
}
