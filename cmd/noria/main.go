// Command noria serves echoes, reports what this machine supports, measures, tests
// WebSocket endpoints, and is a WebSocket client.
//
//	noria serve --tcp 127.0.0.1:7000 --ws 127.0.0.1:7001
//	noria connect ws://127.0.0.1:7001/
//	noria probe
//	noria bench echo --proto tcp
//	noria conform ws://127.0.0.1:7001/
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/noria-go/noria/cmd/noria/internal/adapterbench"
	"github.com/noria-go/noria/cmd/noria/internal/echobench"
)

// A command is a word that may follow noria. It returns the exit status.
type command struct {
	name, does string
	run        func(args []string) int
}

func commands() []command {
	return []command{
		{"serve", "serve TCP and WebSocket echoes", serve},
		{"connect", "be a WebSocket client: lines or bytes, pings, frames, an agent for a fuzzing server", connect},
		{"probe", "say which backend this machine gets and why, and how to turn on what is off", probeMachine},
		{"conform", "test any WebSocket server or client for conformance", conform},
		{"bench", "measure io_uring, epoll and the net package against each other", bench},
	}
}

// hidden are the commands that bench starts its child processes with.
var hidden = map[string]func(args []string) int{
	echobench.ServerCommand: echobench.ServerMain,
	echobench.ClientCommand: echobench.ClientMain,
	adapterbench.Command:    adapterbench.ProcessMain,
}

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	if len(args) == 0 {
		usage(os.Stderr)
		return 2
	}
	for _, c := range commands() {
		if c.name == args[0] {
			return c.run(args[1:])
		}
	}
	if f := hidden[args[0]]; f != nil {
		return f(args[1:])
	}
	switch args[0] {
	case "help", "-h", "-help", "--help":
		usage(os.Stdout)
		return 0
	}
	fmt.Fprintf(os.Stderr, "noria: there is no command %q\n\n", args[0])
	usage(os.Stderr)
	return 2
}

func usage(w io.Writer) {
	fmt.Fprint(w, "Noria: completion-based I/O for Go.\n\nUsage: noria COMMAND [FLAGS]\n\n")
	for _, c := range commands() {
		fmt.Fprintf(w, "  %-8s %s\n", c.name, c.does)
	}
	fmt.Fprint(w, "\nnoria COMMAND --help says more.\n")
}

// newFlags returns a flag set whose help begins with the command's description.
func newFlags(name, text string) *flag.FlagSet {
	fs := flag.NewFlagSet("noria "+name, flag.ContinueOnError)
	fs.Usage = func() {
		fmt.Fprintf(fs.Output(), "%s\n\nFlags:\n", text)
		fs.PrintDefaults()
	}
	return fs
}

// parse parses args and refuses arguments that are not flags. The second result says
// whether to continue; if not, the first is the exit status.
func parse(fs *flag.FlagSet, args []string) (status int, ok bool) {
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0, false
		}
		return 2, false
	}
	if fs.NArg() > 0 {
		fmt.Fprintf(fs.Output(), "%s: unexpected %q\n", fs.Name(), fs.Arg(0))
		return 2, false
	}
	return 0, true
}

// splitURL takes the one argument that is not a flag out of args, wherever it stands.
func splitURL(fs *flag.FlagSet, args []string) (flags []string, url string) {
	for i := 0; i < len(args); i++ {
		a := args[i]
		if !strings.HasPrefix(a, "-") && url == "" {
			url = a
			continue
		}
		flags = append(flags, a)
		name := strings.TrimLeft(a, "-")
		f := fs.Lookup(name)
		if f == nil || i+1 == len(args) {
			continue // an unknown flag, --name=value, or the last argument
		}
		if b, ok := f.Value.(interface{ IsBoolFlag() bool }); ok && b.IsBoolFlag() {
			continue
		}
		i++
		flags = append(flags, args[i])
	}
	return flags, url
}

// fail reports err and returns the exit status for it.
func fail(err error) int {
	fmt.Fprintln(os.Stderr, "noria:", escape(err.Error(), "\t\n")) // the message may quote a peer
	return 1
}
