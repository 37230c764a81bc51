package loop_test

import (
	"context"
	"fmt"
	"log"

	"github.com/noria-go/noria"
	"github.com/noria-go/noria/loop"
)

func ExampleGroup() {
	g, err := noria.Start(noria.Options{Loops: 2})
	if err != nil {
		log.Fatal(err)
	}
	// Any goroutine may run a function as a task of a loop.
	err = g.Loop().Call(context.Background(), "greet", func(ctx context.Context) error {
		fmt.Println("hello from a task")
		return loop.Yield(ctx) // the loop runs other tasks meanwhile
	})
	fmt.Println(err, g.Stop())
	// Output:
	// hello from a task
	// <nil> <nil>
}

func ExampleQueue() {
	g, err := noria.Start(noria.Options{Loops: 1})
	if err != nil {
		log.Fatal(err)
	}
	q := loop.NewQueue[string](16)
	go func() { // goroutines and tasks may put
		for _, word := range []string{"full", "buckets"} {
			if err := q.Put(context.Background(), word); err != nil {
				log.Fatal(err)
			}
		}
		q.Close()
	}()
	_ = g.Loop().Call(context.Background(), "take", func(ctx context.Context) error {
		for {
			word, err := q.Get(ctx) // suspends the task, not the loop
			if err != nil {
				fmt.Println(err)
				return nil
			}
			fmt.Println(word)
		}
	})
	fmt.Println(g.Stop())
	// Output:
	// full
	// buckets
	// get: use of closed connection, file or loop
	// <nil>
}

func ExampleOffload() {
	g, err := noria.Start(noria.Options{Loops: 1})
	if err != nil {
		log.Fatal(err)
	}
	err = g.Loop().Call(context.Background(), "compute", func(ctx context.Context) error {
		sum := 0
		if err := loop.Offload(ctx, func() { // on a goroutine: the function may block or compute
			for i := range 1000 {
				sum += i
			}
		}); err != nil {
			return err
		}
		fmt.Println(sum)
		return nil
	})
	fmt.Println(err, g.Stop())
	// Output:
	// 499500
	// <nil> <nil>
}
