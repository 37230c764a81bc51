package echobench

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/noria-go/noria/runtime"
)

// The protocols that contenders speak.
const (
	protoTCP = "tcp" // a message is so many bytes
	protoWS  = "ws"  // a message is a binary frame of RFC 6455
)

var protocols = []string{protoTCP, protoWS}

// parseProtocols reads names separated by commas.
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

// traffic is what the connections of a client say and hear, made before
// anything is measured: a client that masked each message anew would only
// have less time for asking.
type traffic struct {
	header  []byte // that each reply begins with; empty for TCP
	reply   int    // bytes of a reply, header included
	scripts []script
}

// A script is as many messages, one behind the other, as a connection may have
// on their way: to send the last k of them is to send any k, and they are the
// same length all.
type script struct {
	requests *runtime.Buffer
	replies  []byte // what has to come back for all of requests
	request  int    // bytes of one request
}

const (
	maxScripts = 16      // that differ; connections take them in turn
	scriptSum  = 1 << 20 // bytes that they have together, about: they are to stay in the client's caches
)

// newTraffic makes messages of size bytes, n on their way on a connection. The
// same in every round: the randomness has a fixed seed.
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

// replies follows the replies of a connection as they arrive, in pieces
// that end anywhere.
type replies struct {
	traffic *traffic
	at      int // position in a reply
}

// whole takes what arrived and returns how many replies it completed. Each
// header is looked at.
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
				return n, fmt.Errorf("the server sent a frame with header % x where % x was due", got, want)
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
