// Package deflate is permessage-deflate, the compression of WebSocket messages (RFC
// 7692). It does no I/O: bytes go in, bytes come out.
//
// It has three parts. A Config negotiates: a server answers a client's offers with
// Accept; a client makes an offer with Offer and checks the answer with Confirm.
// Both arrive at Params. A Compressor makes the payloads of a side's messages, and
// a Decompressor inflates those of its peer.
//
// # Memory
//
// Compressing needs much memory: about 850 KiB at the default level. Between two
// messages a connection needs little: nothing without context takeover, and with it
// the last bytes of the messages, at most the window (32 KiB each way, or less if
// negotiated). So only the window belongs to the connection, and the rest is taken
// from a pool for the length of a message.
//
// With context takeover, a compressor from the pool must first be shown the window,
// which costs as much as compressing it. So the connections that sent most recently
// keep their compressors: see Parked. When the limit is exceeded, the connection
// that has not sent for longest loses its own.
//
// # Inflating
//
// The inflater is written here because it must be able to stop. A message arrives
// in fragments that end anywhere, a deadline may pass between two of them, and text
// is validated as it arrives. A reader that pulls its input, as those of
// compress/flate and klauspost/compress do, can wait only by blocking a goroutine.
// This one can stop at any bit. It writes into memory of the caller, which thus
// bounds what a message can make it write: see Decompressor.
package deflate

import "errors"

const (
	// Name is the extension's name in Sec-WebSocket-Extensions.
	Name = "permessage-deflate"

	// MinWindowBits and MaxWindowBits bound the negotiated windows. A window of b
	// bits has 1 << b bytes.
	MinWindowBits = 8
	MaxWindowBits = 15

	// DefaultLevel is the compression level that level 0 means. A message is sent
	// once and read once, so speed matters more than the last percent.
	DefaultLevel = 1
	maxLevel     = 9
)

var (
	// ErrCorrupt reports a message that is not valid deflate data or ends too early.
	// The connection must be closed with 1007, and its Decompressor is unusable.
	ErrCorrupt = errors.New("deflate: the message is corrupt: it cannot be inflated")

	// ErrTooLarge reports a message that inflates to more than the limit. The
	// connection must be closed with 1009, and its Decompressor is unusable.
	ErrTooLarge = errors.New("deflate: the message inflates to more than the limit")
)

// tail is what a sender removes from the end of a message and a receiver appends
// again (RFC 7692 §7.2.1): length and complement of an empty stored block.
const tail = "\x00\x00\xff\xff"
