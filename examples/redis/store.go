package main

import (
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/tidwall/redcon"

	"github.com/noria-go/noria/loop"
)

// A store is shared by all loops. Its mutex is held only for an access to the map, and
// never while a task waits, so it cannot stop a loop.
type store struct {
	mu    sync.RWMutex
	keys  map[string][]byte // a value is replaced, and never changed
	adapt func(*loop.Stream) (adapter, error)
}

func newStore(adapt func(*loop.Stream) (adapter, error)) *store {
	return &store{keys: map[string][]byte{}, adapt: adapt}
}

// A command is a word of the protocol. It gets its arguments with the word.
type command struct {
	least, most int // number of arguments; most < 0: no limit
	step        int // the number of arguments beyond least must be a multiple of this
	run         func(s *session, args [][]byte)
}

var commands = map[string]command{
	"ping":     {1, 2, 1, ping},
	"echo":     {2, 2, 1, func(s *session, a [][]byte) { s.reply = redcon.AppendBulk(s.reply, a[1]) }},
	"get":      {2, 2, 1, get},
	"set":      {3, 3, 1, set},
	"mset":     {3, -1, 2, set},
	"mget":     {2, -1, 1, mget},
	"del":      {2, -1, 1, del},
	"exists":   {2, -1, 1, exists},
	"incr":     {2, 2, 1, incr},
	"dbsize":   {1, 1, 1, dbsize},
	"flushall": {1, 1, 1, flushall},
	"quit":     {1, 1, 1, func(s *session, _ [][]byte) { s.reply, s.quit = redcon.AppendOK(s.reply), true }},
	// redis-cli and redis-benchmark ask this first.
	"command": {1, -1, 1, func(s *session, _ [][]byte) { s.reply = redcon.AppendArray(s.reply, 0) }},
	"config":  {3, 3, 1, config},
}

// do carries out one command.
func (s *session) do(args [][]byte) {
	name := strings.ToLower(string(args[0]))
	c, ok := commands[name]
	switch {
	case !ok:
		s.fail("unknown command '%.50s'", name)
	case len(args) < c.least, c.most >= 0 && len(args) > c.most, (len(args)-c.least)%c.step != 0:
		s.fail("wrong number of arguments for '%s' command", name)
	default:
		c.run(s, args)
	}
}

func (s *session) fail(format string, args ...any) {
	s.reply = redcon.AppendError(s.reply, "ERR "+fmt.Sprintf(format, args...))
}

func ping(s *session, args [][]byte) {
	if len(args) == 2 {
		s.reply = redcon.AppendBulk(s.reply, args[1])
		return
	}
	s.reply = redcon.AppendString(s.reply, "PONG")
}

func get(s *session, args [][]byte) { s.value(args[1]) }

func mget(s *session, args [][]byte) {
	s.reply = redcon.AppendArray(s.reply, len(args)-1)
	for _, key := range args[1:] {
		if s.limit(); s.err != nil {
			return
		}
		s.value(key)
	}
}

func (s *session) value(key []byte) {
	s.store.mu.RLock()
	v, ok := s.store.keys[string(key)]
	s.store.mu.RUnlock()
	if !ok {
		s.reply = redcon.AppendNull(s.reply)
		return
	}
	s.reply = redcon.AppendBulk(s.reply, v)
}

func set(s *session, args [][]byte) {
	s.store.mu.Lock()
	for i := 1; i < len(args); i += 2 {
		s.store.keys[string(args[i])] = append([]byte{}, args[i+1]...) // copied: the argument lies in the connection's buffer
	}
	s.store.mu.Unlock()
	s.reply = redcon.AppendOK(s.reply)
}

func del(s *session, args [][]byte) {
	n := 0
	s.store.mu.Lock()
	for _, key := range args[1:] {
		if _, ok := s.store.keys[string(key)]; ok {
			delete(s.store.keys, string(key))
			n++
		}
	}
	s.store.mu.Unlock()
	s.reply = redcon.AppendInt(s.reply, int64(n))
}

func exists(s *session, args [][]byte) {
	n := 0
	s.store.mu.RLock()
	for _, key := range args[1:] {
		if _, ok := s.store.keys[string(key)]; ok {
			n++
		}
	}
	s.store.mu.RUnlock()
	s.reply = redcon.AppendInt(s.reply, int64(n))
}

func incr(s *session, args [][]byte) {
	key := string(args[1])
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	n := int64(0)
	if v, ok := s.store.keys[key]; ok {
		var err error
		if n, err = strconv.ParseInt(string(v), 10, 64); err != nil || n+1 < n {
			s.fail("value is not an integer or out of range")
			return
		}
	}
	s.store.keys[key] = strconv.AppendInt(nil, n+1, 10)
	s.reply = redcon.AppendInt(s.reply, n+1)
}

func dbsize(s *session, _ [][]byte) {
	s.store.mu.RLock()
	n := len(s.store.keys)
	s.store.mu.RUnlock()
	s.reply = redcon.AppendInt(s.reply, int64(n))
}

func flushall(s *session, _ [][]byte) {
	s.store.mu.Lock()
	clear(s.store.keys)
	s.store.mu.Unlock()
	s.reply = redcon.AppendOK(s.reply)
}

// config answers that nothing is configured.
func config(s *session, args [][]byte) {
	s.reply = redcon.AppendArray(s.reply, 2)
	s.reply = redcon.AppendBulk(s.reply, args[2])
	s.reply = redcon.AppendBulkString(s.reply, "")
}
