// Package brokenws is a WebSocket echo, as a server and as a client, with switches
// that make it wrong, one a fault, so that the suite in conformance/websocket can
// be seen to fail: each Fault names the case that must notice. Without a fault it
// passes everything.
//
// It is made for that and for nothing else: simple, slow, with its own framing.
package brokenws

import (
	"slices"
	"sync"
	"time"
)

// A Fault is one way to be wrong.
type Fault struct {
	Name string // what it does
	Case string // the case that notices
	Only bool   // Autobahn has no case that does, or does not look that closely
	set  func(q *quirks)

	client string // the case that notices it of a client, where Autobahn lets a client pass
}

// with is a fault that Autobahn's own case notices too.
func with(name, cs string, set func(q *quirks)) Fault { return Fault{Name: name, Case: cs, set: set} }

// only is one that Autobahn does not notice.
func only(name, cs string, set func(q *quirks)) Fault {
	return Fault{Name: name, Case: cs, Only: true, set: set}
}

// All returns all faults of servers.
func All() []Fault {
	return slices.Concat(handshakeFaults(), serverFaults(), bothFaults(), deflateFaults(), serverDeflateFaults(), serverTrapFaults())
}

// Clients returns all faults of clients.
func Clients() []Fault {
	list := slices.Concat(answerFaults(), clientFaults(), bothFaults(), deflateFaults())
	for i := range list {
		if f := &list[i]; f.client != "" {
			f.Case, f.Only = f.client, true
		}
	}
	return list
}

func bothFaults() []Fault {
	return slices.Concat(frameFaults(), pingFaults(), fragmentFaults(), utf8Faults(), closeFaults(), limitFaults(), trapFaults())
}

// quirks returns the switches that make f; it may be nil.
func (f *Fault) quirks() *quirks {
	q := &quirks{maxMessage: MaxMessage, maxHead: 16 << 10, headTime: HandshakeTimeout, remembers: 1 << 15}
	if f != nil {
		f.set(q)
	}
	return q
}

// quirks are the switches. The zero value is right.
type quirks struct {
	// the opening handshake
	maxHead                                                    int
	headTime                                                   time.Duration
	timePerRead, timeFromFirstByte                             bool
	bareLF, folded, noHost, anyMethod, anyVersion              bool
	excuseLine                                                 func(s string) bool
	anyLength, anyUpgrade, anyConnection, anyWSVersion         bool
	plain400, anyKey, anyOrigin, dropsEarly, greets, noDeflate bool
	anyStatus, anyProtocol                                     bool // of answers
	exactNames, oneConnection, exactTokens                     bool
	hangs, echoesProtocol, needsWholeHead                      bool
	goodKey                                                    func(keys []string) bool       // nil: one of 16 bytes
	goodOrigin                                                 func(origin, host string) bool // nil: the host
	slots                                                      chan struct{}                  // nil: any number of connections
	sender                                                     *sync.Mutex                    // nil: no connection waits for another
	key                                                        string                         // of a client; "": a new one each time
	answer                                                     func(string) string

	// frames
	needsWhole, longLengths bool
	takesLong               func(size int, n uint64) bool // which lengths in so many bytes; nil: none
	header                  func(h *header)
	refuse                  func(c *conn, h header) bool // what is right
	excuse                  func(c *conn, h header) bool // what is wrong
	sending                 func(h *header, p *[]byte)
	message                 func(c *conn, opcode byte, p []byte) error
	ping, pong, close       func(c *conn, p []byte) error
	perFragment             bool
	maxMessage              uint64
	maxFragments            int
	limitsFrames            bool
	dropsSilently, lingers  bool
	talksOn                 bool               // after its close frame
	mask                    func(n int) uint32 // of a client's n-th frame; nil: any

	// text
	noUTF8, lateUTF8, utf8PerFragment, surrogates, overlong, beyond     bool
	longUTF8, refuseNUL, refuseNonCharacters, unfinishedUTF8, closeUTF8 bool
	utf8Code                                                            uint16
	utf8Until                                                           uint64 // bytes of a frame, then it does not look; 0: it does

	// close frames
	shortClose               bool
	refuseCodes, acceptCodes []uint16

	// compression
	keepsTail, forgets, wideWindow, takesBadOffers bool
	noTail, takesAnyData, zeroWindow, inflatesAll  bool
	inflatedUTF8                                   bool
	remembers                                      int
	data                                           func(p []byte) ([]byte, error)
	stale                                          []byte
}
