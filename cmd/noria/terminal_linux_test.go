package main_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// terminal opens a pseudo-terminal: what is written to tty can be read from screen.
func terminal(t *testing.T) (screen, tty *os.File) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	require.NoError(t, err)
	t.Cleanup(func() { _ = screen.Close() })
	require.NoError(t, screen.SetDeadline(time.Now().Add(patience)))
	raw, err := screen.SyscallConn()
	require.NoError(t, err)
	var n int
	require.NoError(t, raw.Control(func(fd uintptr) {
		if err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); err == nil {
			n, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		}
	}))
	require.NoError(t, err)
	tty, err = os.OpenFile(fmt.Sprint("/dev/pts/", n), os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { _ = tty.Close() })
	return screen, tty
}

// Text from a server does not control the terminal. A program that reads the output
// gets the text unchanged.
func TestConnectTerminal(t *testing.T) {
	s := serve(t)
	const sent = "a\x1b]0;title\a\tb\nc\u009b31m größer"
	out, errs, status := connect(t, "", "--message", sent, "ws://"+s.ws)
	require.Zero(t, status, errs)
	require.Equal(t, sent+"\n", out)

	screen, tty := terminal(t)
	cmd := exec.Command(program, "connect", "--message", sent, "ws://"+s.ws)
	cmd.Stdout = tty
	require.NoError(t, cmd.Run())
	line, err := bufio.NewReader(screen).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, `a\x1b]0;title\a`+"\t"+`b\nc\u009b31m größer`+"\r\n", line)
}
