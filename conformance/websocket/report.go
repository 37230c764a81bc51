package websocket

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// groups are the names of the groups of cases.
var groups = map[string]string{
	"1": "Framing", "2": "Pings and pongs", "3": "Reserved bits", "4": "Opcodes", "5": "Fragmentation", "6": "UTF-8",
	"7": "Closing", "9": "Limits and performance", "10": "Miscellaneous", "12": "Compression: data", "13": "Compression: parameters",
	"trap": "What a server or a client meets",
}

// groupOf returns the part of a case's number that is its group.
func groupOf(id string) string {
	g, _, _ := strings.Cut(id, ".")
	if strings.HasPrefix(g, "trap") {
		return "trap"
	}
	return g
}

// WriteText writes the report as text: the counts of each group, then the cases that
// are not perfect. With verbose, every case has a line.
func (p *Report) WriteText(w io.Writer, verbose bool) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s under test: %s (%s)\n", p.Role, p.Agent, p.Address)
	var order []string
	total, good := map[string]int{}, map[string]int{}
	for _, r := range p.Results {
		g := groupOf(r.ID)
		if total[g]++; total[g] == 1 {
			order = append(order, g)
		}
		if r.Perfect() {
			good[g]++
		}
	}
	for _, g := range order {
		fmt.Fprintf(&b, "  %-4s %-32s %4d of %d\n", g, groups[g], good[g], total[g])
	}
	fmt.Fprintln(&b, p.Summary())
	for _, r := range p.Results {
		if !verbose && r.Perfect() {
			continue
		}
		fmt.Fprintf(&b, "\n%s  %s, close %s", r.ID, r.Behavior, r.Closing)
		if r.RemoteCode != nil {
			fmt.Fprintf(&b, " (%d)", *r.RemoteCode)
		}
		fmt.Fprintf(&b, ", %d ms\n  what:     %s\n  expected: %s\n", r.Millis, r.Description, r.Expectation)
		if !r.Perfect() {
			fmt.Fprintf(&b, "  found:    %s; %s\n", r.Why, r.ClosingWhy)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// WriteJSON writes the whole report.
func (p *Report) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(p)
}

var notInNames = regexp.MustCompile(`[^a-z0-9]+`)

// fileName makes part of a file's name out of s, different from those taken.
func fileName(s string, taken []string) string {
	base := strings.Trim(notInNames.ReplaceAllString(strings.ToLower(s), "_"), "_")
	name := base
	for i := 2; slices.Contains(taken, name); i++ {
		name = fmt.Sprint(base, "_", i)
	}
	return name
}

// WriteIndex writes index.json and a file for each case to a directory, with the names
// and fields that tools for Autobahn's reports expect.
func (p *Report) WriteIndex(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	type entry struct {
		Behavior   Behavior `json:"behavior"`
		Closing    Closing  `json:"behaviorClose"`
		RemoteCode *uint16  `json:"remoteCloseCode"`
		Millis     int64    `json:"duration"`
		File       string   `json:"reportfile"`
	}
	index := map[string]map[string]entry{}
	var errs []error
	write := func(name string, v any) {
		b, err := json.MarshalIndent(v, "", "  ")
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), append(b, '\n'), 0o644)
		}
		errs = append(errs, err)
	}
	files := map[string]string{} // the prefix of each agent's files
	for _, r := range p.Results {
		if index[r.Agent] == nil {
			index[r.Agent] = map[string]entry{}
			files[r.Agent] = fileName(r.Agent, slices.Collect(maps.Values(files)))
		}
		file := fmt.Sprintf("%s_case_%s.json", files[r.Agent], fileName(r.ID, nil))
		index[r.Agent][r.ID] = entry{r.Behavior, r.Closing, r.RemoteCode, r.Millis, file}
		write(file, r)
	}
	write("index.json", index)
	return errors.Join(errs...)
}
