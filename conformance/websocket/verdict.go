package websocket

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

// A Behavior is the verdict on the exchanged frames.
type Behavior string

// The meanings are those of Autobahn's reports.
const (
	OK            Behavior = "OK"            // as the case requires
	NonStrict     Behavior = "NON-STRICT"    // acceptable, but something that should be was not
	Informational Behavior = "INFORMATIONAL" // the standards say nothing about it
	Unimplemented Behavior = "UNIMPLEMENTED" // the endpoint does not do what the case is about
	Failed        Behavior = "FAILED"        // against the standards
)

// A Closing is the verdict on how the connection ended.
type Closing string

// The meanings are those of Autobahn's reports.
const (
	CloseOK             Closing = "OK"               // as the case requires
	CloseInformational  Closing = "INFORMATIONAL"    // the standards say nothing about it
	CloseUnclean        Closing = "UNCLEAN"          // no whole closing handshake
	CloseWrongCode      Closing = "WRONG CODE"       // closed with a code that does not fit
	CloseFailedByClient Closing = "FAILED BY CLIENT" // the client ended the TCP connection, which the server must do
	CloseFailed         Closing = "FAILED"           // the wrong side closed
)

// An event is something that the endpoint sent, or that did not happen in time.
type event struct {
	kind    string // "message", "ping", "pong", "timeout"
	payload []byte
	binary  bool
}

func gotText(s string) event   { return event{kind: "message", payload: []byte(s)} }
func gotBinary(p []byte) event { return event{kind: "message", payload: p, binary: true} }
func gotPong(s string) event   { return event{kind: "pong", payload: []byte(s)} }
func timedOut(tag string) event {
	return event{kind: "timeout", payload: []byte(tag)}
}

func (e event) equal(o event) bool {
	return e.kind == o.kind && e.binary == o.binary && bytes.Equal(e.payload, o.payload)
}

// size returns about how much memory the event takes.
func (e event) size() int { return 64 + len(e.payload) }

func (e event) String() string {
	kind := e.kind
	if e.binary {
		kind = "binary " + kind
	}
	return kind + " " + quoted(e.payload)
}

// quoted returns a payload as reports show it.
func quoted(p []byte) string {
	if len(p) > 48 {
		return fmt.Sprintf("%.48q… (%d bytes)", p[:48], len(p))
	}
	return fmt.Sprintf("%q", p)
}

func sameEvents(a, b []event) bool { return slices.EqualFunc(a, b, event.equal) }

func eventList(list []event) string {
	if len(list) == 0 {
		return "nothing"
	}
	var s []string
	for i, e := range list {
		if i == 12 {
			s = append(s, fmt.Sprintf("and %d more", len(list)-i))
			break
		}
		s = append(s, e.String())
	}
	return strings.Join(s, ", ")
}

// An expectation is what a case demands.
type expectation struct {
	events [][]event // the acceptable lists of events, and the verdict for each
	means  []Behavior

	closedByMe bool     // the suite starts the closing handshake
	clean      bool     // the closing handshake must be complete
	codes      []uint16 // codes that the endpoint may close with
	needsCode  bool     // the endpoint may not leave the code out

	// The case is about codes, so a wrong code makes its Behavior FAILED.
	codeIsAll bool

	// If the wrong side closes, the Behavior is FAILED, not only the Closing.
	wrongSideIsFatal bool
	informational    bool // INFORMATIONAL, whatever happens
}

// size returns about how much memory the expected events take.
func (e expectation) size() (n int) {
	for _, events := range e.events {
		sum := 0
		for _, v := range events {
			sum += v.size()
		}
		n = max(n, sum)
	}
	return n
}

// expects returns the expectation of these events and a normal closing.
func expects(events ...event) expectation {
	return expectation{events: [][]event{events}, means: []Behavior{OK}, closedByMe: true, clean: true, codes: []uint16{1000}}
}

// expectsFailure returns the expectation of these events, after which the endpoint
// fails the connection with one of the codes.
func expectsFailure(codes []uint16, events ...event) expectation {
	return expectation{events: [][]event{events}, means: []Behavior{OK}, codes: codes}
}

// or adds a list of events that is acceptable too.
func (e expectation) or(means Behavior, events ...event) expectation {
	e.events = append(slices.Clone(e.events), events)
	e.means = append(slices.Clone(e.means), means)
	return e
}

func (e expectation) describe() string {
	var s []string
	for i, events := range e.events {
		s = append(s, fmt.Sprintf("%s: %s", e.means[i], eventList(events)))
	}
	who := "the endpoint closes"
	if e.closedByMe {
		who = "the suite closes"
	}
	return fmt.Sprintf("%s; %s with one of %v", strings.Join(s, " or "), who, e.codes)
}

// maxListed limits the events of a case that a report lists.
const maxListed = 1000

// judge sets the verdicts of r from what the session saw.
func (s *session) judge(r *Result) {
	e := s.expect
	r.Expected = e.describe()
	for i, got := range s.received {
		if i == maxListed {
			r.Received = append(r.Received, fmt.Sprintf("and %d more", len(s.received)-i))
			break
		}
		r.Received = append(r.Received, got.String())
	}
	if !s.decided {
		s.behavior, s.why = Failed, fmt.Sprintf("got %s; expected %s", eventList(s.received), e.describe())
		for i, events := range e.events {
			if sameEvents(s.received, events) {
				s.behavior, s.why = e.means[i], "as expected"
				break
			}
		}
	}
	r.Behavior, r.Why = s.behavior, s.why
	if s.violation != nil {
		r.Behavior, r.Why = Failed, r.Why+"; the endpoint sent "+s.violation.Error()
	}
	if s.strict && s.closeReceived && s.afterEnd > 0 {
		r.Behavior, r.Why = Failed, fmt.Sprintf("%s; the endpoint sent %d bytes after its close frame", r.Why, s.afterEnd)
	}
	r.Closing, r.ClosingWhy = s.judgeClosing()
	if r.Closing == CloseWrongCode && e.codeIsAll {
		r.Behavior, r.Why = Failed, r.ClosingWhy
	}
	if r.Closing == CloseFailed && e.wrongSideIsFatal && !e.informational {
		r.Behavior, r.Why = Failed, r.Why+"; "+r.ClosingWhy
	}
	if e.informational {
		r.Behavior, r.Closing = Informational, CloseInformational
	}
}

func (s *session) judgeClosing() (Closing, string) {
	e := s.expect
	switch {
	case s.closedByMe != e.closedByMe && e.closedByMe:
		return CloseFailed, "the endpoint ended the connection, the suite was to do it"
	case s.closedByMe != e.closedByMe:
		return CloseFailed, "the endpoint did not fail the connection"
	case e.clean && !s.wasClean():
		return CloseUnclean, "no whole closing handshake: " + s.uncleanReason()
	case s.hasRemoteCode && !slices.Contains(e.codes, s.remoteCode):
		return CloseWrongCode, fmt.Sprintf("close code %d, not one of %v or none", s.remoteCode, e.codes)
	case e.needsCode && !s.hasRemoteCode:
		return CloseWrongCode, fmt.Sprintf("no close code; one of %v is due", e.codes)
	case !s.server && s.droppedByMe:
		return CloseFailedByClient, "it was left to the client to end the connection"
	}
	return CloseOK, "closed as it should be"
}

// A Result is the result of one case.
type Result struct {
	ID          string   `json:"id"`
	Description string   `json:"description"`
	Expectation string   `json:"expectation"`
	Agent       string   `json:"agent"`
	Behavior    Behavior `json:"behavior"`
	Closing     Closing  `json:"behaviorClose"`
	Why         string   `json:"result"`
	ClosingWhy  string   `json:"resultClose"`
	Expected    string   `json:"expected"`
	Received    []string `json:"received"` // shortened: long payloads and lists are cut
	RemoteCode  *uint16  `json:"remoteCloseCode"`
	Millis      int64    `json:"duration"` // milliseconds
	Log         []string `json:"wirelog,omitempty"`
	Request     string   `json:"httpRequest,omitempty"`
	Response    string   `json:"httpResponse,omitempty"`
}

// Passed reports whether both verdicts are acceptable: OK, INFORMATIONAL and,
// for the behavior, NON-STRICT and UNIMPLEMENTED.
func (r *Result) Passed() bool {
	return slices.Contains([]Behavior{OK, NonStrict, Informational, Unimplemented}, r.Behavior) &&
		(r.Closing == CloseOK || r.Closing == CloseInformational)
}

// Perfect reports whether no better result is possible: OK, or INFORMATIONAL in a case
// that cannot be OK.
func (r *Result) Perfect() bool {
	return r.Passed() && r.Behavior != NonStrict && r.Behavior != Unimplemented
}

func (r *Result) String() string {
	return fmt.Sprintf("%-8s %s, close %s: %s; %s", r.ID, r.Behavior, r.Closing, r.Why, r.ClosingWhy)
}
