package echobench

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"
)

// portMark stands for the port in a peer's command.
const portMark = "{port}"

// parsePeer parses name=command or protocol:name=command.
func parsePeer(s string) (contender, error) {
	name, command, ok := strings.Cut(s, "=")
	if !ok || name == "" || !strings.Contains(command, portMark) {
		return contender{}, fmt.Errorf("peer %q: want name=command, with %s where its port goes", s, portMark)
	}
	if proto, rest, ok := strings.Cut(name, ":"); ok && slices.Contains(protocols, proto) {
		return contender{name: rest, proto: proto, command: command}, nil
	}
	return contender{name: name, command: command}, nil
}

// startPeer runs a peer's command, as exec in a shell, and waits until it accepts
// connections.
func startPeer(ctx context.Context, cpu int, c contender) (*target, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("sh", "-c", "exec "+strings.ReplaceAll(c.command, portMark, strconv.Itoa(port)))
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	ownGroup(cmd)
	if err := startOn(cmd, cpu); err != nil {
		return nil, fmt.Errorf("peer %s: %w", c.name, err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	t := &target{address: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), detail: c.command, pid: cmd.Process.Pid}
	t.stop = func() {
		killGroup(t.pid)
		<-ended
	}
	if err := awaitPeer(ctx, t.address, ended); err != nil {
		t.stop()
		return nil, fmt.Errorf("peer %s: %w: %s", c.name, err, strings.TrimSpace(out.String()))
	}
	return t, nil
}

// freePort returns a port that no process is listening on at the moment.
func freePort() (int, error) {
	ln, err := net.Listen("tcp", listenAddress)
	if err != nil {
		return 0, err
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port, nil
}

func awaitPeer(ctx context.Context, address string, ended <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err == nil {
			return c.Close()
		}
		select {
		case <-ended:
			return fmt.Errorf("the process ended before it listened")
		case <-ctx.Done():
			return fmt.Errorf("the process does not listen: %w", err)
		case <-again.C:
		}
	}
}
