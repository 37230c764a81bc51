package main_test

import (
	"encoding/json"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The counts do not depend on the machine's speed.
func TestBenchAdapters(t *testing.T) {
	cmd := exec.Command(program, "bench", "adapters", "--quick", "--json")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	raw, err := cmd.Output()
	require.NoError(t, err, stderr.String())
	var r struct {
		Rows []struct {
			Size       int
			Contender  string
			RoundTrips float64 `json:"round_trips_per_message"`
			Fills      float64 `json:"fills_per_message"`
			Flushes    float64 `json:"flushes_per_message"`
			Copies     float64 `json:"copies_per_byte"`
			PeakBuffer int     `json:"peak_buffer_bytes"`
		}
	}
	require.NoError(t, json.Unmarshal(raw, &r), "%s", raw)
	require.Len(t, r.Rows, 18)
	for _, row := range r.Rows {
		adapter := row.Contender != "net" && row.Contender != "task's stream"
		if adapter {
			require.Equal(t, row.Fills, row.RoundTrips, "%+v", row)
			require.Equal(t, 1.0, row.Flushes, "%+v", row)
			require.LessOrEqual(t, row.PeakBuffer, 2*row.Size+1<<20, "%+v", row)
		}
		if row.Size != 16<<20 {
			continue
		}
		switch row.Contender {
		case "SyncStream 8 KiB": // 2,048 for the payload, and the rest of the header's read
			require.InDelta(t, 2049, row.RoundTrips, 2, "%+v", row)
		case "Growable doubling":
			require.LessOrEqual(t, row.RoundTrips, 20.0, "%+v", row)
			require.LessOrEqual(t, row.Copies, 2.0, "%+v", row)
		}
	}

}

func TestBenchAdaptersSizes(t *testing.T) {
	for size, good := range map[string]bool{"0": false, "67108865": false, "1,67108864": true} {
		out, err := exec.Command(program, "bench", "adapters", "--quick", "--sizes", size).CombinedOutput()
		require.Equal(t, good, err == nil, "%s: %s", size, out)
	}
}
