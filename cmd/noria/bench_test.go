package main_test

import (
	"encoding/json"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gobwas/ws"
	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/cmd/noria/internal/echobench"
	"github.com/noria-go/noria/internal/backends"
)

// These tests check that there are numbers, not what the numbers are: a machine that
// runs tests is no place to measure.

func requirePositive(t *testing.T, spreads ...*echobench.Spread) {
	t.Helper()
	for _, s := range spreads {
		require.NotNil(t, s)
		require.Positive(t, s.Min)
		require.LessOrEqual(t, s.Min, s.Median)
		require.LessOrEqual(t, s.Median, s.Max)
	}
}

func runBench(t *testing.T, args ...string) (r echobench.Report, raw []byte) {
	t.Helper()
	cmd := exec.Command(program, append([]string{"bench"}, args...)...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	raw, err := cmd.Output()
	require.NoError(t, err, stderr.String())
	require.NoError(t, json.Unmarshal(raw, &r), "%s", raw)
	require.NotEmpty(t, r.Kernel)
	return r, raw
}

func TestBenchEcho(t *testing.T) {
	r, raw := runBench(t, "echo", "--proto", "tcp", "--quick", "--garbage", "--json",
		"--peer", "ours="+program+" serve --tcp 127.0.0.1:{port}")
	require.Len(t, r.Rows, 2)
	plain, garbage := r.Rows[0], r.Rows[1]

	var names []string
	for _, c := range plain.Contenders {
		names = append(names, c.Name)
		requirePositive(t, c.PerSecond, c.CPU, c.Busy, c.P50, c.P99, c.P999)
		require.False(t, c.ClientBound && c.Ratio != nil, "a server that had time to spare has no ratio")
		require.Equal(t, c.Name == "ours", c.Allocs == nil, "only a peer cannot be asked")
		require.Len(t, c.Rounds, 1)
	}
	require.Subset(t, names, append(backends.Names(), backends.Names()[0]+"-callback", "net", "net-1", "ours"))

	require.True(t, garbage.Garbage)
	for _, c := range garbage.Contenders {
		requirePositive(t, c.PerSecond)
		require.Nil(t, c.CPU, "most of it is the garbage's")
		require.NotNil(t, c.TailRatio)
	}

	// Other programs read these names.
	for _, name := range []string{"kernel", "rows", "size", "conns", "garbage", "contenders", "name", "messages_per_second", "median", "min", "max",
		"cpu_us_per_message", "server_busy", "p50_us", "p99_us", "p999_us", "system_calls_per_message", "allocations_per_message", "client_bound",
		"ratio_to_net", "rounds", "notes"} {
		require.Contains(t, string(raw), `"`+name+`":`)
	}
}

func TestBenchEchoManySizes(t *testing.T) {
	r, _ := runBench(t, "echo", "--json", "--sizes", "1,100000", "--conns", "1,64", "--rounds", "2", "--seconds", "0.02", "--warm", "0.01",
		"--contenders", strings.Join(backends.Names(), ","))
	require.Len(t, r.Rows, 4)
	for _, row := range r.Rows {
		for _, c := range row.Contenders {
			requirePositive(t, c.PerSecond)
			require.Len(t, c.Rounds, 2)
			require.Nil(t, c.Ratio, "without package net there is nothing to compare with")
		}
	}
}

func TestBenchEchoWebSocket(t *testing.T) {
	r, raw := runBench(t, "echo", "--proto", "tcp,ws", "--json", "--sizes", "1,70000", "--conns", "3", "--outstanding", "1,16",
		"--rounds", "2", "--seconds", "0.02", "--warm", "0.01", "--contenders", backends.Names()[0]+",ws-"+strings.Join(backends.Names(), ",ws-"),
		"--peer", "ours="+program+" serve --ws 127.0.0.1:{port}", "--peer", "tcp:ours-tcp="+program+" serve --tcp 127.0.0.1:{port}")
	require.Len(t, r.Rows, 4)
	for _, row := range r.Rows {
		require.Contains(t, []int{1, 16}, row.Outstanding)
		for _, c := range row.Contenders {
			requirePositive(t, c.PerSecond, c.CPU, c.P50)
			require.Equal(t, strings.HasPrefix(c.Name, "ws-") || c.Name == "ours", c.Protocol == "ws", c.Name)
		}
		var against []string
		for _, v := range row.Versus {
			require.Positive(t, v.PerSecond.Low)
			require.LessOrEqual(t, v.PerSecond.Low, v.PerSecond.High)
			if v.Name == "ws-"+backends.Names()[0] {
				against = append(against, v.Against)
			}
		}
		require.Equal(t, []string{backends.Names()[0], "ours"}, against)
	}
	for _, name := range []string{"outstanding", "protocols", "protocol", "versus", "against", "ratio", "low", "high", "at_least", "at_most"} {
		require.Contains(t, string(raw), `"`+name+`":`)
	}
}

func TestBenchTasks(t *testing.T) {
	r, _ := runBench(t, "tasks", "--rounds", "3", "--seconds", "0.2", "--warm", "0.01", "--conns", "10", "--json")
	require.Len(t, r.Tasks, len(backends.Names()))
	for _, c := range r.Tasks {
		require.Positive(t, c.PerSecond.Low)
		require.LessOrEqual(t, c.PerSecond.Low, c.PerSecond.Ratio)
		require.LessOrEqual(t, c.PerSecond.Ratio, c.PerSecond.High)
	}
}

func TestBenchPrintsATable(t *testing.T) {
	for what, says := range map[string]string{"echo": "CPU µs/msg", "tasks": "against bare callbacks"} {
		cmd := exec.Command(program, "bench", what, "--quick")
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		require.NoError(t, err, stderr.String())
		require.Contains(t, string(out), says)
		require.Contains(t, string(out), backends.Names()[0])
	}
}

func TestBenchRefuses(t *testing.T) {
	wrong := filepath.Join(t.TempDir(), "wrong.sh") // a peer that does not listen
	require.NoError(t, os.WriteFile(wrong, []byte("#!/bin/sh\necho no such option >&2\nexit 1\n"), 0o755))
	for _, tt := range []struct {
		args   []string
		status int
		says   string
	}{
		{nil, 2, "Usage"},
		{[]string{"reverse"}, 2, "Usage"},
		{[]string{"echo", "--proto", "udp"}, 1, "only tcp and ws"},
		{[]string{"echo", "--proto", "ws", "--contenders", "net"}, 1, `no contender for ws is called "net"`},
		{[]string{"echo", "--peer", "ws:x=x {port}"}, 1, "peer x speaks ws, which --proto tcp does not have"},
		{[]string{"echo", "--sizes", "64,x"}, 2, `"x" is not a positive number`},
		{[]string{"echo", "--rounds", "0"}, 1, "at least 1"},
		{[]string{"echo", "--contenders", "net,kqueue"}, 1, `"kqueue"`},
		{[]string{"echo", "--peer", "nothing"}, 2, "{port}"},
		{[]string{"echo", "--quick", "--peer", "wrong=" + wrong + " {port}"}, 1, "no such option"},
		{[]string{"tasks", "--backends", "kqueue"}, 1, `"kqueue`},
	} {
		out, err := exec.Command(program, append([]string{"bench"}, tt.args...)...).CombinedOutput()
		var exit *exec.ExitError
		require.ErrorAs(t, err, &exit, "%v", tt.args)
		require.Equal(t, tt.status, exit.ExitCode(), "%v: %s", tt.args, out)
		require.Contains(t, string(out), tt.says, "%v", tt.args)
	}
}

// A server that sends other bytes than it received is detected.
func TestBenchChecksWhatComesBack(t *testing.T) {
	self, err := os.Executable()
	require.NoError(t, err)
	for _, tt := range []struct{ proto, lie, says string }{
		{"tcp", "change", "sent other bytes than it received, from byte 0"},
		{"tcp", "add", "sent 1 bytes more than it received"},
		{"tcp", "close", "the server ended a connection"},
		{"ws", "change", "sent other bytes than it received, from byte 2"},
		{"ws", "add", "sent 1 bytes more than it received"},
		{"ws", "close", "the server ended a connection"},
		{"ws", "header", "sent a frame with header 02 40 instead of 82 40"},
	} {
		names := map[string]string{"tcp": backends.Names()[0], "ws": "ws-" + backends.Names()[0]}
		out, err := exec.Command(program, "bench", "echo", "--proto", tt.proto, "--quick", "--contenders", names[tt.proto],
			"--peer", "liar=env "+lieVariable+"="+tt.proto+"-"+tt.lie+" "+portVariable+"={port} "+self).CombinedOutput()
		require.Error(t, err)
		require.Contains(t, string(out), "liar: ", "%v", tt)
		require.Contains(t, string(out), tt.says, "%v", tt)
	}
}

// The test binary serves as an echo server that sends wrong answers.
const (
	lieVariable  = "NORIA_TEST_LIE"
	portVariable = "NORIA_TEST_PORT"
)

// becomeLiar serves wrong answers, and does not return, if the variables ask for it.
func becomeLiar() {
	proto, lie, ok := strings.Cut(os.Getenv(lieVariable), "-")
	if !ok {
		return
	}
	ln, err := net.Listen("tcp", "127.0.0.1:"+os.Getenv(portVariable))
	if err != nil {
		panic(err)
	}
	for {
		c, err := ln.Accept()
		if err != nil {
			panic(err)
		}
		go func() {
			defer c.Close()
			deceive(c, proto, lie)
		}()
	}
}

// deceive answers messages of 64 bytes with other bytes.
func deceive(c net.Conn, proto, lie string) {
	var header []byte
	if proto == "ws" {
		if _, err := ws.Upgrade(c); err != nil {
			return
		}
		header = []byte{0x82, 64}
	}
	for n := 0; lie != "close"; n++ {
		message := make([]byte, 64)
		var asked ws.Header
		if proto == "ws" {
			var err error
			if asked, err = ws.ReadHeader(c); err != nil {
				return
			}
		}
		if _, err := io.ReadFull(c, message); err != nil {
			return
		}
		ws.Cipher(message, asked.Mask, 0)
		switch {
		case lie == "change":
			message[0]++
		case lie == "add":
			message = append(message, 0)
		case lie == "header" && n > 3: // the client checks only the payloads of the first messages
			header[0] = 0x02
		}
		if _, err := c.Write(append(header[:len(header):len(header)], message...)); err != nil {
			return
		}
	}
}
