package main

import (
	"context"
	"fmt"
	"net"
	"strings"

	"github.com/noria-go/noria/conformance/websocket"
	"github.com/noria-go/noria/internal/brokenws"
)

// faultCases returns the cases that both run against a faulty server: the quick ones of
// the group of the case that must notice the fault.
func faultCases(id string) []string {
	parts := strings.Split(id, ".")
	switch parts[0] {
	case "6", "7":
		return []string{parts[0] + "." + parts[1] + ".*"}
	case "9", "12", "13":
		return []string{id}
	}
	return []string{parts[0] + ".*"}
}

// faults runs both against each server of package brokenws and against the one without
// a fault.
func (r *runner) faults(ctx context.Context) error {
	if !r.wants("faults") {
		return nil
	}
	faults := map[string]*brokenws.Fault{}
	servers := map[string]*brokenws.Server{}
	jobs := []job{{Name: "faults/none", Include: []string{"1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*", "12.*.1", "12.*.2", "13.*.1", "13.*.2"}}}
	for _, f := range brokenws.All() {
		if !f.Only {
			faults["faults/"+f.Name] = &f
			jobs = append(jobs, job{Name: "faults/" + f.Name, Include: faultCases(f.Case)})
		}
	}
	for i, j := range jobs {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		s := brokenws.Serve(ln, faults[j.Name])
		defer s.Close()
		servers[j.Name], jobs[i].URL = s, s.URL()
	}
	caught := 0
	err := r.kosokuServers(ctx, 4, jobs, func(name string, theirs map[string]verdict) error {
		f := faults[name]
		var cases []string
		for id := range theirs {
			cases = append(cases, id)
		}
		ours, err := websocket.RunServer(ctx, servers[name].URL(), websocket.Options{Include: cases, Patience: patience})
		if err != nil {
			return err
		}
		r.compare(name, theirs, ours, f == nil)
		if f != nil && r.notices(f.Case, theirs, ours) {
			caught++
		}
		return nil
	})
	fmt.Printf("faults: %d of %d are caught by the case that names them, by both\n", caught, len(faults))
	return err
}

// notices reports whether both find the case less than perfect.
func (r *runner) notices(id string, theirs map[string]verdict, ours *websocket.Report) bool {
	v := theirs[id]
	noticed := v.Behavior != "OK" || v.Closing != "OK"
	for _, o := range ours.Results {
		if o.ID == id && o.Perfect() {
			noticed = false
		}
	}
	if !noticed {
		fmt.Printf("    %s does not notice (kosoku: %s, close %s)\n", id, v.Behavior, v.Closing)
		r.bad++
	}
	return noticed
}
