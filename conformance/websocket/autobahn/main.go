// Command autobahn compares the suite of conformance/websocket with Autobahn's own case
// files, which kosoku (a Python package) runs natively. It runs both against package ws
// and examples/gobwas on every backend, as server and client, and against the faulty
// servers of package brokenws, and compares each verdict.
//
//	make autobahn
//
// It exits with 1 if any two verdicts differ, except for the differences in known, or
// if either finds an endpoint less than perfect.
package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"time"

	"github.com/noria-go/noria/conformance/websocket"
)

// A runner has what every part needs.
type runner struct {
	python  string // a Python interpreter with kosoku
	short   bool
	only    string // prefix of the names of the parts to run
	differs int
	bad     int
}

func main() {
	r := &runner{}
	flag.StringVar(&r.python, "python", "python3", "the `interpreter` with kosoku installed")
	flag.BoolVar(&r.short, "short", false, "of groups 12 and 13, only the cases with short messages")
	flag.StringVar(&r.only, "only", "", "run parts whose names begin with this: faults, server, client, server/ws/epoll …")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := r.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "autobahn:", err)
		os.Exit(1)
	}
}

func (r *runner) run(ctx context.Context) error {
	for _, part := range []func(context.Context) error{r.faults, r.servers, r.clients} {
		if err := part(ctx); err != nil {
			return err
		}
	}
	if r.differs > 0 || r.bad > 0 {
		return fmt.Errorf("%d verdicts differ, %d are not as good as they can be", r.differs, r.bad)
	}
	fmt.Println("autobahn: all good")
	return nil
}

func (r *runner) wants(part string) bool {
	return strings.HasPrefix(part, r.only) || strings.HasPrefix(r.only, part)
}

// exclude returns the cases that -short leaves out.
func (r *runner) exclude() (list []string) {
	if r.short {
		for i := 5; i <= 18; i++ {
			list = append(list, fmt.Sprintf("12.*.%d", i), fmt.Sprintf("13.*.%d", i))
		}
	}
	return list
}

// A verdict is kosoku's.
type verdict struct {
	Behavior string `json:"behavior"`
	Closing  string `json:"behaviorClose"`
	Result   string `json:"result"`
}

// A job is a server for kosoku to test; verdicts.py reads it as JSON.
type job struct {
	Name    string   `json:"name"`
	URL     string   `json:"url"`
	Include []string `json:"include"`
	Exclude []string `json:"exclude"`
}

//go:embed verdicts.py
var clientScript string

//go:embed server.py
var serverScript string

// A process is a running script that writes lines of JSON.
type process struct {
	cmd *exec.Cmd
	out *json.Decoder
}

func startScript(cmd *exec.Cmd) (*process, error) {
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &process{cmd, json.NewDecoder(out)}, nil
}

// next reads a line into v.
func (p *process) next(v any) error {
	if err := p.out.Decode(v); err != nil {
		return fmt.Errorf("%s stopped: %w (is kosoku installed? make autobahn installs it)", p.cmd.Path, err)
	}
	return nil
}

func (p *process) stop() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

// kosokuServers tests servers with kosoku, several at once, and calls each for every
// server that is done.
func (r *runner) kosokuServers(ctx context.Context, atOnce int, jobs []job, each func(name string, theirs map[string]verdict) error) error {
	cmd := exec.CommandContext(ctx, r.python, "-c", clientScript, fmt.Sprint(atOnce))
	var in bytes.Buffer
	for _, j := range jobs {
		if err := json.NewEncoder(&in).Encode(j); err != nil {
			return err
		}
	}
	cmd.Stdin = &in
	p, err := startScript(cmd)
	if err != nil {
		return err
	}
	defer p.stop()
	for range jobs {
		var line struct {
			Name     string             `json:"name"`
			Verdicts map[string]verdict `json:"verdicts"`
			Error    string             `json:"error"`
		}
		if err := p.next(&line); err != nil {
			return err
		}
		if line.Error != "" {
			return fmt.Errorf("kosoku, %s: %s", line.Name, line.Error)
		}
		if err := each(line.Name, line.Verdicts); err != nil {
			return err
		}
	}
	return nil
}

// known returns why a difference is kosoku's mistake, or "".
func known(theirs verdict, ours *websocket.Result) (why string) {
	switch {
	case theirs.Behavior == "ERROR" && ours.Behavior == websocket.Failed && strings.Contains(ours.Why, "handshake"):
		return "kosoku calls a failed handshake ERROR"
	case theirs.Behavior == "ERROR" && ours.Behavior == websocket.Failed && strings.Contains(theirs.Result, "deflate"):
		return "kosoku calls data that does not inflate ERROR"
	case strings.Contains(theirs.Result, "Strings must be encoded before hashing"):
		return "kosoku fails on an uncompressed echo, which is allowed"
	}
	return ""
}

// compare prints and counts how far the two agree.
func (r *runner) compare(name string, theirs map[string]verdict, p *websocket.Report, mustBeGood bool) {
	ours := map[string]*websocket.Result{}
	for _, o := range p.Results {
		ours[o.ID] = o
	}
	same, asKnown := 0, 0
	kinds := map[string][]string{} // the cases of each kind of difference
	for id, v := range theirs {
		o := ours[id]
		switch {
		case o == nil:
			kinds["only kosoku ran them"] = append(kinds["only kosoku ran them"], id)
		case v.Behavior == string(o.Behavior) && v.Closing == string(o.Closing):
			same++
		case known(v, o) != "":
			asKnown++
		default:
			kind := fmt.Sprintf("kosoku says %s, close %s; the suite %s, close %s", v.Behavior, v.Closing, o.Behavior, o.Closing)
			if kinds[kind] = append(kinds[kind], id); len(kinds[kind]) == 1 {
				fmt.Printf("    %s: %s\n      kosoku: %.200s\n      ours:   %.200s; %.200s\n", id, kind, v.Result, o.Why, o.ClosingWhy)
			}
		}
	}
	for id := range ours {
		if _, ok := theirs[id]; !ok {
			kinds["only the suite ran them"] = append(kinds["only the suite ran them"], id)
		}
	}
	line := fmt.Sprintf("%-60s %3d of %3d verdicts agree", name, same, len(theirs))
	if asKnown > 0 {
		line += fmt.Sprintf(", %d differ as is known", asKnown)
	}
	if mustBeGood {
		line += "; " + p.Summary()
		r.bad += len(p.Imperfect())
	}
	fmt.Println(line)
	for kind, ids := range kinds {
		r.differs += len(ids)
		slices.Sort(ids)
		fmt.Printf("    %s: %.150s\n", kind, strings.Join(ids, " "))
	}
	if mustBeGood {
		for _, o := range p.Imperfect() {
			fmt.Printf("    not perfect: %.300s\n", o)
		}
	}
}

// patience is the suite's patience here; kosoku waits for a second too.
const patience = time.Second
