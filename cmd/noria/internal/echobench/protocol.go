package echobench

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/noria-go/noria/runtime"
)

// The protocols of the contenders.
const (
	protoTCP = "tcp" // a message is a fixed number of bytes
	protoWS  = "ws"  // a message is a binary frame of RFC 6455
)

var protocols = []string{protoTCP, protoWS}

// parseProtocols parses names separated by commas.
func parseProtocols(s string) (list []string, err error) {
	for name := range strings.SplitSeq(s, ",") {
		if !slices.Contains(protocols, name) {
			return nil, fmt.Errorf("--proto %s: there is only %s", name, strings.Join(protocols, " and "))
		}
		if !slices.Contains(list, name) {
			list = append(list, name)
		}
	}
	return list, nil
}

// traffic is what the connections of a client send and expect. It is made before
// the measurement, so that masking takes no time from the client.
type traffic struct {
	header  []byte // of each reply; empty for TCP
	reply   int    // length of a reply in bytes, header included
	scripts []script
}

// A script is as many messages as a connection may have in flight, one after the
// other. All have the same length, so sending the last k of them sends any k.
type script struct {
	requests *runtime.Buffer
	replies  []byte // the expected replies to all of requests
	request  int    // length of one request in bytes
}

const (
	maxScripts = 16      // different scripts; connections take them in turn
	scriptSum  = 1 << 20 // their approximate total size in bytes, so that they stay in the client's caches
)

// newTraffic makes messages of size bytes, n in flight on a connection. Its random
// numbers have a fixed seed, so every round has the same messages.
func newTraffic(proto string, size, n int) *traffic {
	t := &traffic{reply: size}
	if proto == protoWS {
		t.header = appendFrameHeader(nil, false, size)
		t.reply += len(t.header)
	}
	random := rand.NewChaCha8([32]byte{})
	for range min(max(scriptSum/(size*n), 1), maxScripts) {
		t.scripts = append(t.scripts, t.newScript(random, size, n))
	}
	return t
}

func (t *traffic) newScript(random *rand.ChaCha8, size, n int) script {
	var requests []byte
	s := script{}
	payload := make([]byte, size)
	for range n {
		_, _ = random.Read(payload)
		s.replies = append(append(s.replies, t.header...), payload...)
		if len(t.header) > 0 {
			requests = appendMasked(requests, payload, random)
		} else {
			requests = append(requests, payload...)
		}
	}
	s.requests, s.request = runtime.NewShared(requests), len(requests)/n
	return s
}

// replies counts the replies of a connection, which arrive in pieces that end
// anywhere.
type replies struct {
	traffic *traffic
	at      int // position within a reply
}

// whole takes the bytes that arrived and returns how many replies they complete. It
// checks each header.
func (r *replies) whole(p []byte) (n int, err error) {
	header, reply := r.traffic.header, r.traffic.reply
	if len(header) == 0 {
		r.at += len(p)
		n, r.at = r.at/reply, r.at%reply
		return n, nil
	}
	for len(p) > 0 {
		if r.at < len(header) {
			got := p[:min(len(p), len(header)-r.at)]
			if want := header[r.at : r.at+len(got)]; !bytes.Equal(got, want) {
				return n, fmt.Errorf("the server sent a frame with header % x instead of % x", got, want)
			}
		}
		step := min(len(p), reply-r.at)
		if r.at += step; r.at == reply {
			r.at = 0
			n++
		}
		p = p[step:]
	}
	return n, nil
}
