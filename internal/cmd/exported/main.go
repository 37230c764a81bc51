// Command exported counts the exported names of the packages in the given directories,
// or of every public package of the module. With -v it prints each name. Run it in the
// repository's root:
//
//	go run ./internal/cmd/exported -v ./runtime
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	"github.com/noria-go/noria/internal/exported"
)

const module = "github.com/noria-go/noria"

func main() {
	verbose := flag.Bool("v", false, "print each name")
	flag.Parse()
	if err := run(os.Stdout, *verbose, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "exported:", err)
		os.Exit(1)
	}
}

func run(out io.Writer, verbose bool, dirs []string) error {
	if len(dirs) == 0 {
		all, err := exported.Dirs(".")
		if err != nil {
			return err
		}
		for _, dir := range all {
			if exported.Public(dir) {
				dirs = append(dirs, dir)
			}
		}
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(w, "types\tfuncs\tmethods\tof interfaces\tconsts\tvars\ttotal\t  in\n")
	total := 0
	for _, dir := range dirs {
		p, err := exported.Scan(module, dir)
		if err != nil {
			return err
		}
		if verbose {
			for _, n := range p.Names {
				fmt.Fprintf(out, "%s\t%s\t%s\n", dir, n.Kind, n.Name)
			}
		}
		for _, n := range p.Count() {
			fmt.Fprintf(w, "%d\t", n)
		}
		fmt.Fprintf(w, "%d\t  %s\n", len(p.Names), dir)
		total += len(p.Names)
	}
	fmt.Fprintf(w, "\t\t\t\t\t\t%d\t  in all\n", total)
	return w.Flush()
}
