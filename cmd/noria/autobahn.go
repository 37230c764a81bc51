package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"time"

	"github.com/noria-go/noria/loop"
	"github.com/noria-go/noria/runtime"
	"github.com/noria-go/noria/ws"
)

// caseTime limits a case. The slowest ones send a thousand large messages.
const caseTime = 5 * time.Minute

// An agent is the client of an Autobahn fuzzing server: it echoes each message, and the
// server judges. It requests three paths: /getCaseCount says how many cases there are,
// /runCase?case=N&agent=NAME runs one, and /updateReports?agent=NAME writes the report.
type agent struct {
	target
	name string
	out  io.Writer
}

// run runs every case and asks for the report. It is a task.
func (a *agent) run(ctx context.Context) error {
	n, err := a.count(ctx)
	if err != nil {
		return fmt.Errorf("asking for the number of cases: %w", err)
	}
	if err := a.say(ctx, "%d cases\n", n); err != nil {
		return err
	}
	for i := 1; i <= n; i++ {
		if err := a.runCase(ctx, i); err != nil {
			return fmt.Errorf("case %d of %d: %w", i, n, err)
		}
		if i%50 == 0 || i == n {
			if err := a.say(ctx, "%d of %d\n", i, n); err != nil {
				return err
			}
		}
	}
	if err := a.echo(ctx, "/updateReports?agent="+url.QueryEscape(a.name)); err != nil {
		return fmt.Errorf("asking for the report: %w", err)
	}
	return nil
}

// say writes to the terminal. That may block, so it does not run on the loop.
func (a *agent) say(ctx context.Context, format string, args ...any) error {
	return loop.Offload(ctx, func() { fmt.Fprintf(a.out, format, args...) })
}

func (a *agent) count(ctx context.Context) (int, error) {
	c, err := a.dial(ctx, "/getCaseCount")
	if err != nil {
		return 0, err
	}
	defer c.Close(ws.StatusNormalClosure, "")
	m, err := c.Receive(ctx)
	if err != nil {
		return 0, err
	}
	defer m.Release()
	n, err := strconv.Atoi(string(m.Bytes()))
	if err != nil || n < 0 {
		return 0, fmt.Errorf("the server said %.40q, want a number: is it a fuzzing server?", m.Bytes())
	}
	return n, nil
}

func (a *agent) runCase(ctx context.Context, i int) error {
	return a.echo(ctx, "/runCase?case="+strconv.Itoa(i)+"&agent="+url.QueryEscape(a.name))
}

// echo opens a connection and echoes until the connection ends. Any end is fine here:
// the server judges it.
func (a *agent) echo(ctx context.Context, path string) error {
	c, err := a.dial(ctx, path)
	if err != nil {
		if ctx.Err() == nil && connected(err) {
			return nil // a case about the handshake may want a refusal
		}
		return err
	}
	defer c.Close(ws.StatusNormalClosure, "")
	if err := c.SetReadDeadline(time.Now().Add(caseTime)); err != nil {
		return err
	}
	err = echoMessages(ctx, c)
	if cerr := ctx.Err(); cerr != nil {
		return cerr
	}
	var timeout interface{ Timeout() bool }
	if errors.As(err, &timeout) && timeout.Timeout() {
		return fmt.Errorf("the server did not end the case within %v", caseTime)
	}
	return nil
}

// connected reports whether a dial that failed got as far as a connection. If it did
// not, the server is gone and run stops.
func connected(err error) bool {
	var op *runtime.OpError
	return !errors.As(err, &op) || op.Op != "dial" && op.Op != "connect"
}
