package echobench

import (
	"bufio"
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
)

// The client has a minimal WebSocket implementation of its own: it shares no code
// with a contender, and costs less than any of them.

// appendFrameHeader appends the header of an unfragmented binary frame, without the
// mask (RFC 6455 §5.2).
func appendFrameHeader(b []byte, masked bool, size int) []byte {
	const finBinary, maskBit = 0x82, 0x80
	mask := byte(0)
	if masked {
		mask = maskBit
	}
	switch {
	case size < 126:
		return append(b, finBinary, mask|byte(size))
	case size < 1<<16:
		return binary.BigEndian.AppendUint16(append(b, finBinary, mask|126), uint16(size))
	}
	return binary.BigEndian.AppendUint64(append(b, finBinary, mask|127), uint64(size))
}

// appendMasked appends payload as a masked frame.
func appendMasked(b, payload []byte, random *rand.ChaCha8) []byte {
	var mask [4]byte
	_, _ = random.Read(mask[:])
	b = append(appendFrameHeader(b, true, len(payload)), mask[:]...)
	for i, c := range payload {
		b = append(b, c^mask[i%4])
	}
	return b
}

// challenge is the key of every upgrade. The server cannot tell that it is always
// the same.
const challenge = "bm9yaWEgYmVuY2ggZWNobw==" // 16 bytes, as required

// upgradeRequest returns the request that opens a connection (RFC 6455 §4.1).
func upgradeRequest(host string) []byte {
	return []byte("GET / HTTP/1.1\r\nHost: " + host + "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Key: " + challenge + "\r\nSec-WebSocket-Version: 13\r\n\r\n")
}

// maxResponse is the largest answer to the upgrade in bytes.
const maxResponse = 16 << 10

// upgraded reports whether head is the complete answer to the upgrade. It fails if
// the answer is not a valid one, or if more bytes follow: the server must send no
// frame before it is asked to.
func upgraded(head []byte) (bool, error) {
	end := bytes.Index(head, []byte("\r\n\r\n"))
	if end < 0 {
		if len(head) > maxResponse {
			return false, errors.New("the server's answer to the upgrade has no end")
		}
		return false, nil
	}
	r, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(head)), nil)
	if err != nil {
		return false, fmt.Errorf("the server's answer to the upgrade: %w", err)
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusSwitchingProtocols {
		return false, fmt.Errorf("the server refuses the upgrade: %s", r.Status)
	}
	sum := sha1.Sum([]byte(challenge + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	if got, want := r.Header.Get("Sec-WebSocket-Accept"), base64.StdEncoding.EncodeToString(sum[:]); got != want {
		return false, fmt.Errorf("the server accepts the upgrade with %q instead of %q", got, want)
	}
	if extra := len(head) - end - 4; extra > 0 {
		return false, fmt.Errorf("the server sent %d bytes more than its answer to the upgrade", extra)
	}
	return true, nil
}
