// Package program tests an example as a program: the test binary runs the example's
// main.
package program

import (
	"bufio"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// variable tells a test binary to run the example.
const variable = "NORIA_TEST_EXAMPLE"

// Main is an example's TestMain: it runs the tests or, as the child process, main.
func Main(m *testing.M, main func()) {
	if os.Getenv(variable) != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// RequireDrains starts the example, waits until it prints its address, and requires
// that each signal to end makes it drain and exit with 0.
func RequireDrains(t *testing.T) {
	t.Helper()
	for _, s := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		t.Run(s.String(), func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-addr", "127.0.0.1:0")
			cmd.Env = append(cmd.Environ(), variable+"=1")
			out, err := cmd.StdoutPipe()
			require.NoError(t, err)
			cmd.Stderr = cmd.Stdout
			require.NoError(t, cmd.Start())
			lines := bufio.NewScanner(out)
			require.True(t, lines.Scan(), lines.Err())
			require.NoError(t, cmd.Process.Signal(s))
			for said := lines.Text(); ; said = lines.Text() {
				t.Log(said)
				if !lines.Scan() {
					break
				}
			}
			require.NoError(t, cmd.Wait())
		})
	}
}
