// Package require has the assertions of the conformance suite. They read like
// testify's. The suite cannot use testify: it is not a test itself, and a backend in
// another module that runs it would have to depend on testify.
//
// A failed assertion calls T.Errorf once, with the wanted value, the actual one, and
// the lines that led to it, and then T.FailNow.
package require

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
)

// T is what an assertion reports to.
type T interface {
	Errorf(format string, args ...any)

	// FailNow does not return.
	FailNow()
}

// NoError requires that err is nil.
func NoError(t T, err error, note ...any) {
	if err != nil {
		fail(t, note, "an unexpected error: %v", err)
	}
}

// Error requires that err is not nil.
func Error(t T, err error, note ...any) {
	if err == nil {
		fail(t, note, "there is no error")
	}
}

// ErrorIs requires errors.Is(err, target).
func ErrorIs(t T, err, target error, note ...any) {
	if !errors.Is(err, target) {
		fail(t, note, "the error is %v (%T)\nwant %v", err, err, target)
	}
}

// ErrorAs requires errors.As(err, target).
func ErrorAs[E error](t T, err error, target *E, note ...any) {
	if !errors.As(err, target) {
		fail(t, note, "the error is %v (%T)\nwant %T", err, err, *target)
	}
}

// ErrorContains requires an error whose text contains part.
func ErrorContains(t T, err error, part string, note ...any) {
	if err == nil || !strings.Contains(err.Error(), part) {
		fail(t, note, "the error is %v\nwant one with %q in it", err, part)
	}
}

// Equal requires that want and got are equal. It compares slices and structs by their
// contents.
func Equal[V any](t T, want, got V, note ...any) {
	if !reflect.DeepEqual(want, got) {
		fail(t, note, "got  %s\nwant %s", show(got), show(want))
	}
}

// NotEqual requires that got differs from unwanted.
func NotEqual[V comparable](t T, unwanted, got V, note ...any) {
	if got == unwanted {
		fail(t, note, "got %s, which must not be", show(got))
	}
}

// Same requires want == got; pointers must point to the same variable.
func Same[V comparable](t T, want, got V, note ...any) {
	if want != got {
		fail(t, note, "got  %s\nwant %s itself", show(got), show(want))
	}
}

// Zero requires the zero value of got's type, or nil.
func Zero(t T, got any, note ...any) {
	if !isZero(got) {
		fail(t, note, "got %s, want zero", show(got))
	}
}

// NotZero requires that got is neither nil nor the zero value of its type.
func NotZero(t T, got any, note ...any) {
	if isZero(got) {
		fail(t, note, "got zero (%T)", got)
	}
}

func isZero(v any) bool { return v == nil || reflect.ValueOf(v).IsZero() }

// True requires ok.
func True(t T, ok bool, note ...any) {
	if !ok {
		fail(t, note, "the condition is false")
	}
}

// False requires that bad is false.
func False(t T, bad bool, note ...any) {
	if bad {
		fail(t, note, "the condition is true")
	}
}

// Less requires got < limit.
func Less[V cmp.Ordered](t T, got, limit V, note ...any) {
	if got >= limit {
		fail(t, note, "got %v, want less than %v", got, limit)
	}
}

// LessOrEqual requires got <= most.
func LessOrEqual[V cmp.Ordered](t T, got, most V, note ...any) {
	if got > most {
		fail(t, note, "got %v, want at most %v", got, most)
	}
}

// GreaterOrEqual requires got >= least.
func GreaterOrEqual[V cmp.Ordered](t T, got, least V, note ...any) {
	if got < least {
		fail(t, note, "got %v, want at least %v", got, least)
	}
}

// Positive requires got > 0.
func Positive[V cmp.Ordered](t T, got V, note ...any) {
	var zero V
	if got <= zero {
		fail(t, note, "got %v, want more than zero", got)
	}
}

// Contains requires that s contains part.
func Contains(t T, s, part string, note ...any) {
	if !strings.Contains(s, part) {
		fail(t, note, "%q is not in\n%s", part, s)
	}
}

// Panics requires that f panics. A failed assertion in f does not count.
func Panics(t T, f func(), note ...any) {
	if !panics(f) {
		fail(t, note, "the function does not panic")
	}
}

func panics(f func()) (did bool) {
	defer func() {
		v := recover()
		if v == (Failed{}) {
			panic(v)
		}
		did = did || v != nil
	}()
	f()
	return false
}

// Failed is what T.FailNow panics with.
type Failed struct{}

func (Failed) String() string { return "an assertion has failed" }

// fail reports the failure and ends the caller. A note is a value, or a format and its
// arguments.
func fail(t T, note []any, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	switch format, isFormat := first(note).(string); {
	case isFormat && len(note) > 1:
		text = fmt.Sprintf(format, note[1:]...) + ": " + text
	case len(note) > 0:
		text = fmt.Sprint(note...) + ": " + text
	}
	t.Errorf("%s\n\tat %s", text, trace())
	t.FailNow()
}

func first(note []any) any {
	if len(note) == 0 {
		return nil
	}
	return note[0]
}

// show prints v and cuts long values: the first bytes of a megabyte say as much.
func show(v any) string {
	const most = 300
	s := fmt.Sprintf("%#v", v)
	if e, ok := v.(error); ok {
		s = fmt.Sprintf("%v (%T)", e, e)
	}
	if len(s) > most {
		s = fmt.Sprintf("%s … (%d more)", s[:most], len(s)-most)
	}
	return s
}

// trace returns the lines of the case from which the assertion was called, the
// innermost first, up to the harness.
func trace() string {
	pcs := make([]uintptr, 64)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(4, pcs)]) // 4 skips Callers, trace, fail and the assertion
	var lines []string
	for {
		f, more := frames.Next()
		more = more && !strings.HasSuffix(f.Function, ".contain")
		if filepath.Base(filepath.Dir(f.File)) == "conformance" && more {
			lines = append(lines, fmt.Sprintf("%s:%d", filepath.Base(f.File), f.Line))
		}
		if !more || len(lines) == 8 {
			return strings.Join(lines, ", called at ")
		}
	}
}
