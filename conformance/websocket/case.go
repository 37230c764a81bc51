package websocket

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// A Case is one of the suite's cases. ID is Autobahn's number.
type Case struct {
	ID          string
	Description string
	Expectation string

	expect expectation
	run    func(s *session)
	offers []deflateParams // the suite's offers as a client; nil: no compression
	accept []deflateParams // the suite's answers as a server, the preferred one first
	big    bool            // does not run beside another big case
	strict bool            // nothing may follow the endpoint's close frame; Autobahn does not check this
}

func newCase(id, description, expectationText string, expect expectation, run func(s *session)) Case {
	return Case{ID: id, Description: description, Expectation: expectationText, expect: expect, run: run}
}

// Cases returns Autobahn's 517 cases in their order.
var Cases = sync.OnceValue(func() []Case {
	all := slices.Concat(framingCases(), pingCases(), reservedCases(), opcodeCases(), fragmentationCases(),
		utf8Cases(), closeCases(), limitCases(), miscCases(), compressionCases())
	slices.SortStableFunc(all, func(a, b Case) int { return compareIDs(a.ID, b.ID) })
	return all
})

// compareIDs orders 1.2.10 after 1.2.9.
func compareIDs(a, b string) int {
	x, y := strings.Split(a, "."), strings.Split(b, ".")
	for i := range min(len(x), len(y)) {
		m, errM := strconv.Atoi(x[i])
		n, errN := strconv.Atoi(y[i])
		if c := cmp.Compare(m, n); errM == nil && errN == nil && c != 0 {
			return c
		} else if c := strings.Compare(x[i], y[i]); (errM != nil || errN != nil) && c != 0 {
			return c
		}
	}
	return cmp.Compare(len(x), len(y))
}

// selected reports whether the patterns select a case. They are those of path.Match; a
// * also matches dots.
func selected(id string, include, exclude []string) (bool, error) {
	match := func(patterns []string) (bool, error) {
		for _, p := range patterns {
			ok, err := path.Match(p, id)
			if err != nil {
				return false, fmt.Errorf("the pattern %q: %w", p, err)
			}
			if ok {
				return true, nil
			}
		}
		return false, nil
	}
	in := true
	if len(include) > 0 {
		var err error
		if in, err = match(include); err != nil {
			return false, err
		}
	}
	out, err := match(exclude)
	return in && !out, err
}
