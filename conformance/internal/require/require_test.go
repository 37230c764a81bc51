package require_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/noria-go/noria/conformance/internal/require"
)

// A recorder is a T that keeps the failures.
type recorder struct{ failures []string }

func (r *recorder) Errorf(format string, args ...any) {
	r.failures = append(r.failures, fmt.Sprintf(format, args...))
}

func (r *recorder) FailNow() { panic(require.Failed{}) }

// failure runs assert and returns what it reported; "" if it passed.
func failure(t *testing.T, assert func(t require.T)) (said string) {
	r := &recorder{}
	defer func() {
		v := recover()
		if (v == require.Failed{}) != (len(r.failures) == 1) || v != nil && v != (require.Failed{}) {
			t.Fatalf("it panics with %v and reports %q", v, r.failures)
		}
		said = strings.Join(r.failures, "\n")
	}()
	assert(r)
	return ""
}

func TestAssertions(t *testing.T) {
	var nobody *os.File
	wrapped := fmt.Errorf("read: %w", &os.PathError{Op: "read", Path: "x", Err: io.EOF})
	for name, tt := range map[string]struct {
		passes, fails func(t require.T)
		says          string
	}{
		"NoError":                 {func(t require.T) { require.NoError(t, nil) }, func(t require.T) { require.NoError(t, io.EOF, "then") }, "then: an unexpected error: EOF"},
		"Error":                   {func(t require.T) { require.Error(t, io.EOF) }, func(t require.T) { require.Error(t, nil) }, "there is no error"},
		"ErrorIs":                 {func(t require.T) { require.ErrorIs(t, wrapped, io.EOF) }, func(t require.T) { require.ErrorIs(t, io.EOF, os.ErrClosed) }, "want file already closed"},
		"ErrorAs":                 {func(t require.T) { require.ErrorAs(t, wrapped, new(*os.PathError)) }, func(t require.T) { require.ErrorAs(t, io.EOF, new(*os.PathError)) }, "want *fs.PathError"},
		"ErrorContains":           {func(t require.T) { require.ErrorContains(t, io.EOF, "EO") }, func(t require.T) { require.ErrorContains(t, nil, "x") }, `with "x" in it`},
		"Equal":                   {func(t require.T) { require.Equal(t, []int{1}, []int{1}) }, func(t require.T) { require.Equal(t, "a", "b", "of %d", 7) }, "of 7: got  \"b\"\nwant \"a\""},
		"NotEqual":                {func(t require.T) { require.NotEqual(t, 1, 2) }, func(t require.T) { require.NotEqual(t, 1, 1) }, "got 1, which must not be"},
		"Same":                    {func(t require.T) { require.Same(t, t, t) }, func(t require.T) { require.Same(t, new(int), new(int)) }, "itself"},
		"Zero":                    {func(t require.T) { require.Zero(t, nil); require.Zero(t, nobody) }, func(t require.T) { require.Zero(t, 5) }, "got 5, want zero"},
		"NotZero":                 {func(t require.T) { require.NotZero(t, 5) }, func(t require.T) { require.NotZero(t, "") }, "got zero (string)"},
		"True":                    {func(t require.T) { require.True(t, true) }, func(t require.T) { require.True(t, false, io.EOF) }, "EOF: the condition is false"},
		"False":                   {func(t require.T) { require.False(t, false) }, func(t require.T) { require.False(t, true) }, "the condition is true"},
		"Less":                    {func(t require.T) { require.Less(t, 1, 2) }, func(t require.T) { require.Less(t, 2, 2) }, "got 2, want less than 2"},
		"LessOrEqual":             {func(t require.T) { require.LessOrEqual(t, 2, 2) }, func(t require.T) { require.LessOrEqual(t, 3, 2) }, "at most 2"},
		"GreaterOrEqual":          {func(t require.T) { require.GreaterOrEqual(t, 2, 2) }, func(t require.T) { require.GreaterOrEqual(t, 1, 2) }, "at least 2"},
		"Positive":                {func(t require.T) { require.Positive(t, 1) }, func(t require.T) { require.Positive(t, 0) }, "more than zero"},
		"Contains":                {func(t require.T) { require.Contains(t, "abc", "b") }, func(t require.T) { require.Contains(t, "abc", "x") }, `"x" is not in`},
		"Panics":                  {func(t require.T) { require.Panics(t, func() { panic(errors.New("x")) }) }, func(t require.T) { require.Panics(t, func() {}) }, "the function does not panic"},
		"a failure inside Panics": {func(require.T) {}, func(t require.T) { require.Panics(t, func() { require.True(t, false) }) }, "the condition is false"},
	} {
		if said := failure(t, tt.passes); said != "" {
			t.Errorf("%s fails: %s", name, said)
		}
		if said := failure(t, tt.fails); !strings.Contains(said, tt.says) {
			t.Errorf("%s says %q, want %q", name, said, tt.says)
		}
	}
}

// Long values are not printed whole.
func TestLongValues(t *testing.T) {
	said := failure(t, func(t require.T) { require.Equal(t, "", strings.Repeat("x", 1<<20)) })
	if len(said) > 1000 || !strings.Contains(said, "more)") {
		t.Errorf("%d bytes: %.500s", len(said), said)
	}
}
