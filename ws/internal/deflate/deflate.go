// Package deflate is permessage-deflate, the compression of WebSocket messages
// (RFC 7692). It does no I/O: bytes go in, bytes come out.
//
// There are three parts. Config negotiates: a server answers a client's offers
// with Accept, a client makes an offer with Offer and checks the answer with
// Confirm; both end with Params. A Compressor makes the payload of one message
// after another, and a Decompressor takes them apart.
//
// # Memory
//
// What compressing needs is large: about 850 KiB at the default level. What a
// connection has to remember between two messages is small: nothing without
// context takeover, and with it the last bytes that went by, as many as did and
// never more than the window (32 KiB each way, or less where that was
// negotiated). So only the window belongs to a connection. The large part is
// taken from a pool for as long as a message lasts.
//
// With context takeover a compressor from the pool has to be shown the window
// again, which costs as much as compressing it. Therefore the connections that
// sent last keep theirs: see Parked. One that needs a compressor when all of
// them are kept takes it from the connection that has not sent for longest.
//
// # Inflating
//
// The inflater is written here, since it has to be able to stop: a message
// comes in fragments, a fragment ends anywhere, a deadline may pass between two
// of them, and text is to be validated as it comes. A reader that pulls its
// input, as those of compress/flate and klauspost/compress do, cannot be left
// and gone back to without a goroutine that waits inside it. This one can stop
// at each bit. It writes into the caller's memory, so what it can be made to
// write is what the caller has given it: see Decompressor.
package deflate

import "errors"

const (
	// Name is the extension's name in Sec-WebSocket-Extensions.
	Name = "permessage-deflate"

	// MinWindowBits and MaxWindowBits bound the negotiated windows: their size
	// is 1 << bits bytes.
	MinWindowBits = 8
	MaxWindowBits = 15

	// DefaultLevel is the level that a Compressor has when none is given. A
	// message is sent once and read once: speed is worth more than the last
	// percent.
	DefaultLevel = 1
	maxLevel     = 9
)

var (
	// ErrCorrupt: a message is not what deflate makes, or ends too early. The
	// connection is to be closed with 1007; its decompressor is of no more use.
	ErrCorrupt = errors.New("deflate: the message is corrupt: it cannot be inflated")

	// ErrTooLarge: a message inflates to more than the limit. The connection is
	// to be closed with 1009; its decompressor is of no more use.
	ErrTooLarge = errors.New("deflate: the message inflates to more than the limit")
)

// tail is what RFC 7692 §7.2.1 has the sender take away, and the receiver put
// back: length and complement of an empty stored block.
const tail = "\x00\x00\xff\xff"
