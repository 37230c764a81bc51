package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	"github.com/noria-go/noria/internal/probe"
)

const probeText = `Usage: noria probe [--json]

Tries the backends that this build contains. Prints which one a server gets and
why, which features work and why others do not, the limits that matter, and how
to turn on what is off. The exit status is 1 if no backend can be started.`

func probeMachine(args []string) int {
	fs := newFlags("probe", probeText)
	asJSON := fs.Bool("json", false, "print JSON")
	if status, ok := parse(fs, args); !ok {
		return status
	}
	r := probe.Run()
	if *asJSON {
		enc := json.NewEncoder(os.Stdout)
		enc.SetIndent("", "  ")
		if err := enc.Encode(r); err != nil {
			return fail(err)
		}
	} else if err := printProbe(os.Stdout, r); err != nil {
		return fail(err)
	}
	if r.Backend == "" {
		return 1
	}
	return 0
}

func printProbe(out io.Writer, r probe.Report) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	backend := r.Backend
	if backend == "" {
		backend = "none"
	}
	kernel := ""
	if r.Kernel != "" {
		kernel = "kernel " + r.Kernel + ", "
	}
	fmt.Fprintf(w, "system\t%s/%s, %s%s\n", r.OS, r.Arch, kernel, r.Go)
	fmt.Fprintf(w, "CPUs\t%d, GOMAXPROCS %d, so loops: %d\n", r.CPUs, r.GOMAXPROCS, r.Loops)
	fmt.Fprintf(w, "backend\t%s (%s)\n", backend, r.Reason)
	for _, b := range r.Backends {
		fmt.Fprintf(w, "\n%s\t%s\t%s\n", b.Name, yes(b.Usable), b.Why)
		for _, f := range b.Features {
			fmt.Fprintf(w, "  %s\t%s\t%s (Linux %s)\n", f.Name, yes(f.On), f.Why, f.Since)
		}
	}
	fmt.Fprint(w, "\nlimits\n")
	for _, l := range r.Limits {
		value := fmt.Sprint(l.Value)
		if l.Value == probe.Unlimited {
			value = "none"
		}
		fmt.Fprintf(w, "  %s\t%s\t%s\n", l.Name, value, l.Means)
	}
	if len(r.Advice) > 0 {
		fmt.Fprint(w, "\nwhat to do\n")
	}
	for _, a := range r.Advice {
		fmt.Fprintf(w, "  %s\t%s\n", a.About, a.Do)
	}
	return w.Flush()
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
