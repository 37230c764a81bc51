package conformance_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/conformance"
	"github.com/noria-go/noria/runtime"
	"github.com/noria-go/noria/runtime/epoll"
	"github.com/noria-go/noria/runtime/uring"
)

// variants are what every case runs on.
var variants = []struct {
	name    string
	factory conformance.Factory
}{
	{"io_uring", newUring(nil)},
	{"io_uring-plain", newUring(uring.Features())},
	{"epoll", newEpoll(nil)},
	{"epoll-plain", newEpoll([]string{epoll.FeaturePwait2})},
}

func newUring(off []string) conformance.Factory {
	return func(w conformance.Wishes) (runtime.Runtime, error) {
		return uring.New(uring.Options{Buffers: w.ReceiveBuffers, Entries: w.QueueEntries, Off: off})
	}
}

func newEpoll(off []string) conformance.Factory {
	return func(w conformance.Wishes) (runtime.Runtime, error) {
		return epoll.New(epoll.Options{Buffers: w.ReceiveBuffers, Off: off})
	}
}

func TestRuntime(t *testing.T) {
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) { conformance.TestRuntime(t, v.factory) })
	}
}

// TestVariants shows that the variants are what they are called: the first has
// every feature, the second none.
func TestVariants(t *testing.T) {
	for i, on := range []bool{true, false} {
		rt, err := variants[i].factory(conformance.Wishes{})
		require.NoError(t, err)
		require.NotEmpty(t, rt.Info().Features)
		for _, f := range rt.Info().Features {
			require.Equal(t, on, f.On, "%s: %s: %s", variants[i].name, f.Name, f.Why)
		}
		require.NoError(t, rt.Close())
	}
}
