// Package loop runs the code of connections: loops, the tasks on them, and the streams,
// listeners, files, timers, events and queues that tasks use. A handler imports this
// package, and tcp or ws; it needs package runtime for values only, such as a Buffer or
// an error.
//
// # Loops
//
// A Loop owns one OS thread, one backend (a runtime.Runtime, such as io_uring), one
// pool of buffers, and its connections. All code that serves a connection runs on the
// thread of its loop. So tasks and streams need no locks, and no message is handed from
// thread to thread. Only calls from other threads go through a queue with a mutex. A Group
// is several loops; they share no connections, tasks or buffers.
//
// A turn of the loop runs the functions that were posted to it, fires the timers that
// are due, and resumes each task that is ready. Then it gives the kernel all that those
// tasks have written, and waits for completions in Runtime.Poll. The completions make
// tasks ready for the next turn.
//
// # Tasks
//
// A Task is a coroutine: straight-line code that runs until it calls something that has
// to wait, such as Stream.Read, Sleep or Queue.Get. That call suspends the task, and the
// loop resumes other tasks meanwhile. Between two such calls no other task of the loop
// runs, so the tasks of one loop need no mutex for what they share.
//
// A task must not block its thread: no channel operation, no time.Sleep, no I/O other
// than this package's, no mutex that its holder keeps while it waits. Code that blocks
// or computes for long goes to Offload. The watchdog reports a task that holds the loop.
//
// The context that a task's function gets is the task itself. A task is cancelled in
// two steps. A drain ends the context: calls that take the context fail, but the task can
// still read and write, to end its conversation. A kill makes every call fail that would
// have to wait. When a task's function returns, its children are killed, and the task has
// ended only when they have.
//
// # Streams
//
// A Stream is a connection: a blocking net.Conn for the tasks of its loop. Between the
// socket and the tasks are two queues. The loop receives ahead of the reader into the
// inbox, up to InboxLimit. Writes put bytes into the outbox, and the loop sends them at the
// end of the turn; a write waits only while QueueLimit bytes are queued. ReadBuf and
// WriteBuf move buffers through the queues and copy nothing. TLS, if there is any, is a
// layer between the queues and the socket.
//
// # Services
//
// A Service, such as a tcp.Server, serves the connections of a Listener. Group.Listen
// opens an address on all loops. Group.Serve runs a service on each loop, and the end of
// its context drains the service. Group.Stop kills the tasks that are left.
//
// # What may be called from where
//
// A method's comment says it:
//
//   - "from anywhere" means from a task of any loop, from a function that a loop calls,
//     and from any goroutine;
//   - "on the loop" means on its thread: in one of its tasks, or in a function that the
//     loop calls, such as one given to Post, a Timer's, or a callback;
//   - "a task of the loop" means that the call may wait. A function that the loop calls
//     must not wait, and gets ErrOffLoop from it, as a goroutine does.
//
// Loop.Go and Loop.Call start a task from another thread, and Loop.Post calls a function.
// MaxPosts of these may wait for a loop; beyond it they fail with ErrBusy. MaxPosts binds
// nothing else: calls on a connection, listener or group always reach the loop.
//
// # Where things are
//
//	loop.go post.go thread.go stop.go stats.go        a loop: its turn, what others post to it, its thread, its end
//	group.go listen.go serve.go                       groups of loops; options of Listen; services
//	task.go worker.go context.go                      tasks, the coroutines that run them, tasks as contexts
//	wait.go operation.go sleep.go offload.go          what a task waits for
//	timer.go event.go queue.go                        timers, events, queues
//	stream.go stream_read.go stream_write.go          streams
//	stream_deadline.go stream_close.go stream_layer.go
//	listener.go dial.go adopt.go                      where streams come from
//	file.go                                           files
//	friend.go stream_friend.go                        what only the packages of this module may call
//	watchdog.go                                       reports of tasks that hold their loop
package loop
