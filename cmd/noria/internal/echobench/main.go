package echobench

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/noria-go/noria/internal/backends"
)

const text = `Usage: noria bench echo --proto tcp|ws|tcp,ws [FLAGS]
       noria bench tasks [FLAGS]
       noria bench adapters [FLAGS]   (see its own -h)

echo compares io_uring, epoll and the net package with each other and with any
--peer. Each server is a process of its own on one CPU, and the client is on
another. Over WebSocket it compares package ws with, as -adapter, a ported library
(examples/gobwas); --proto tcp,ws also shows what WebSocket costs.
tasks compares a task per connection with bare callbacks on the same backend, and
prints the confidence interval. Close other programs first: both CPUs are needed.
docs/performance.md describes the method.

Flags:
`

// settings are the flags that a report repeats.
type settings struct {
	Protocols   []string      `json:"protocols"`
	Sizes       []int         `json:"sizes"`
	Conns       []int         `json:"conns"`
	Outstanding []int         `json:"outstanding"`
	Rounds      int           `json:"rounds"`
	Window      time.Duration `json:"window_ns"`
	Warm        time.Duration `json:"warm_ns"`
	Garbage     bool          `json:"garbage"`

	contenders []contender
}

// options are all flags.
type options struct {
	settings
	proto    string
	json     bool
	quick    bool
	backends string
	names    string
	peers    []contender
}

// Main runs noria bench and returns its exit status.
func Main(args []string) int {
	if len(args) == 0 || args[0] != "echo" && args[0] != "tasks" {
		newFlags("bench", &options{}, os.Stderr).Usage()
		if len(args) > 0 && strings.Contains(args[0], "help") {
			return 0
		}
		return 2
	}
	o := &options{}
	fs := newFlags(args[0], o, os.Stderr)
	if err := fs.Parse(args[1:]); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := o.main(ctx, args[0], fs); err != nil {
		if ctx.Err() != nil {
			err = errors.New("interrupted")
		}
		fmt.Fprintln(os.Stderr, "noria bench:", err)
		return 1
	}
	return 0
}

func newFlags(name string, o *options, out io.Writer) *flag.FlagSet {
	fs := flag.NewFlagSet("noria bench "+name, flag.ContinueOnError)
	fs.SetOutput(out)
	fs.Usage = func() {
		fmt.Fprint(fs.Output(), text)
		fs.PrintDefaults()
	}
	o.Sizes, o.Conns, o.Outstanding = []int{64, 1024, 16384}, []int{1, 10, 100, 1000}, []int{1}
	o.Rounds, o.Window, o.Warm = 5, time.Second, 300*time.Millisecond
	if name == "tasks" {
		o.Sizes, o.Conns = []int{64}, []int{100}
		o.Rounds, o.Window, o.Warm = 30, 500*time.Millisecond, 200*time.Millisecond
	}
	fs.Func("sizes", "`bytes` of a message, separated by commas (default "+join(o.Sizes)+")", numbers(&o.Sizes))
	fs.Func("conns", "`numbers` of connections (default "+join(o.Conns)+")", numbers(&o.Conns))
	fs.IntVar(&o.Rounds, "rounds", o.Rounds, "`number` of measurements of each contender in each row")
	fs.Func("seconds", "`seconds` of each measurement (default "+fmt.Sprint(o.Window.Seconds())+")", seconds(&o.Window))
	fs.Func("warm", "`seconds` of warm-up before each measurement (default "+fmt.Sprint(o.Warm.Seconds())+")", seconds(&o.Warm))
	fs.BoolVar(&o.quick, "quick", false, "one short round of one row, to check that it works; the results mean nothing")
	fs.BoolVar(&o.json, "json", false, "print JSON")
	if name == "tasks" {
		fs.StringVar(&o.backends, "backends", strings.Join(backends.Names(), ","), "`names` of backends")
		return fs
	}
	fs.StringVar(&o.proto, "proto", protoTCP, "`protocols`: tcp, ws, or both in the same rounds: tcp,ws")
	fs.Func("outstanding", "`numbers` of messages in flight on each connection (default "+join(o.Outstanding)+")", numbers(&o.Outstanding))
	fs.BoolVar(&o.Garbage, "garbage", false, "one more row, for tcp: "+garbageRow.String())
	fs.StringVar(&o.names, "contenders", "", "`names`, of "+strings.Join(contenderNames(known()), ", ")+
		" (default all of --proto, less the callbacks on "+strings.Join(backends.Names()[1:], " and ")+")")
	fs.Func("peer", "another server: `name=command`, with {port} where its port goes; with --proto tcp,ws it speaks ws unless it is called tcp:name; may be given again", func(s string) error {
		p, err := parsePeer(s)
		o.peers = append(o.peers, p)
		return err
	})
	return fs
}

// main measures and prints the report.
func (o *options) main(ctx context.Context, what string, fs *flag.FlagSet) error {
	if fs.NArg() > 0 {
		return fmt.Errorf("unexpected %q", fs.Arg(0))
	}
	if err := supported(); err != nil {
		return err
	}
	if o.quick {
		o.Sizes, o.Conns, o.Rounds, o.Window, o.Warm = []int{64}, []int{10}, 1, 100*time.Millisecond, 20*time.Millisecond
	}
	if o.Rounds < 1 {
		return fmt.Errorf("--rounds %d: want at least 1", o.Rounds)
	}
	b := &bench{settings: o.settings}
	var report *Report
	var err error
	if what == "tasks" {
		report, err = b.runTasks(ctx, strings.Split(o.backends, ","), os.Stderr)
	} else if b.contenders, err = o.chosen(); err == nil {
		b.settings.Protocols = o.Protocols
		report, err = b.run(ctx, os.Stderr)
	}
	if err != nil {
		return err
	}
	if o.json {
		enc := json.NewEncoder(os.Stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(report)
	}
	return report.print(os.Stdout)
}

// chosen returns the contenders of noria bench echo, peers included.
func (o *options) chosen() (list []contender, err error) {
	if o.Protocols, err = parseProtocols(o.proto); err != nil {
		return nil, err
	}
	if list = defaultContenders(o.Protocols); o.names != "" {
		if list, err = choose(o.Protocols, strings.Split(o.names, ",")); err != nil {
			return nil, err
		}
	}
	for _, p := range o.peers {
		if p.proto == "" {
			p.proto = slices.Max(o.Protocols) // ws if it is one of them
		}
		if !slices.Contains(o.Protocols, p.proto) {
			return nil, fmt.Errorf("peer %s speaks %s, which --proto %s does not have", p.name, p.proto, o.proto)
		}
		list = append(list, p)
	}
	return list, nil
}

// numbers returns a parser for positive numbers separated by commas.
func numbers(to *[]int) func(string) error {
	return func(s string) error {
		var list []int
		for f := range strings.SplitSeq(s, ",") {
			n, err := strconv.Atoi(strings.TrimSpace(f))
			if err != nil || n < 1 {
				return fmt.Errorf("%q is not a positive number", f)
			}
			list = append(list, n)
		}
		*to = list
		return nil
	}
}

func join(list []int) string {
	return strings.Trim(strings.ReplaceAll(fmt.Sprint(list), " ", ","), "[]")
}

func seconds(to *time.Duration) func(string) error {
	return func(s string) error {
		v, err := strconv.ParseFloat(s, 64)
		if err != nil || !(v > 0) {
			return fmt.Errorf("%q is not a positive number", s)
		}
		*to = time.Duration(v * float64(time.Second))
		return nil
	}
}
