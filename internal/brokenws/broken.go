// Package brokenws is a WebSocket echo, server and client, with switches that make it
// wrong, one for each fault. With it the suite of conformance/websocket can be seen to
// fail: each Fault names the case that must notice. Without a fault the echo passes
// every case.
//
// It has its own framing, and is simple and slow: it serves no other purpose.
package brokenws

import (
	"slices"
	"sync"
	"time"
)

// A Fault is one way to break the protocol.
type Fault struct {
	Name string // the mistake
	Case string // the case that must notice
	Only bool   // Autobahn has no case that notices, or its case is less strict
	set  func(q *quirks)

	client string // the case that notices the fault of a client, if Case does not
}

// with returns a fault that Autobahn's own case notices too.
func with(name, cs string, set func(q *quirks)) Fault { return Fault{Name: name, Case: cs, set: set} }

// only returns a fault that Autobahn does not notice.
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

// quirks returns the switches that make f, which may be nil.
func (f *Fault) quirks() *quirks {
	q := &quirks{maxMessage: MaxMessage, maxHead: 16 << 10, headTime: HandshakeTimeout, remembers: 1 << 15}
	if f != nil {
		f.set(q)
	}
	return q
}

// quirks are the switches. The zero value has no fault.
type quirks struct {
	// opening handshake
	maxHead                                                    int
	headTime                                                   time.Duration
	timePerRead, timeFromFirstByte                             bool
	bareLF, folded, noHost, anyMethod, anyVersion              bool
	excuseLine                                                 func(s string) bool
	anyLength, anyUpgrade, anyConnection, anyWSVersion         bool
	plain400, anyKey, anyOrigin, dropsEarly, greets, noDeflate bool
	anyStatus, anyProtocol                                     bool // in answers
	exactNames, oneConnection, exactTokens                     bool
	hangs, echoesProtocol, needsWholeHead                      bool
	goodKey                                                    func(keys []string) bool       // nil: one key of 16 bytes
	goodOrigin                                                 func(origin, host string) bool // nil: an origin that is the host
	slots                                                      chan struct{}                  // nil: any number of connections
	sender                                                     *sync.Mutex                    // nil: no connection waits for another
	key                                                        string                         // a client's; "": a new one for each connection
	answer                                                     func(string) string

	// frames
	needsWhole, longLengths bool
	takesLong               func(size int, n uint64) bool // which lengths encoded in size bytes to accept though they are too long; nil: none
	header                  func(h *header)
	refuse                  func(c *conn, h header) bool // valid frames to refuse
	excuse                  func(c *conn, h header) bool // invalid frames to accept
	sending                 func(h *header, p *[]byte)
	message                 func(c *conn, opcode byte, p []byte) error
	ping, pong, close       func(c *conn, p []byte) error
	perFragment             bool
	maxMessage              uint64
	maxFragments            int
	limitsFrames            bool
	dropsSilently, lingers  bool
	talksOn                 bool               // answers one more frame after the close frame
	mask                    func(n int) uint32 // the mask of a client's n-th frame; nil: a random one

	// text
	noUTF8, lateUTF8, utf8PerFragment, surrogates, overlong, beyond     bool
	longUTF8, refuseNUL, refuseNonCharacters, unfinishedUTF8, closeUTF8 bool
	utf8Code                                                            uint16
	utf8Until                                                           uint64 // bytes of a frame that are checked; 0: all

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
