package deflate

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// The parameters of RFC 7692 §7.1.
const (
	serverNoTakeover = "server_no_context_takeover"
	clientNoTakeover = "client_no_context_takeover"
	serverWindow     = "server_max_window_bits"
	clientWindow     = "client_max_window_bits"
)

// Params are the parameters that both sides agreed on. Those named Server… apply to
// the messages that the server sends, those named Client… to the client's.
type Params struct {
	ServerNoContextTakeover bool
	ClientNoContextTakeover bool
	ServerMaxWindowBits     int // 8 to 15
	ClientMaxWindowBits     int
}

// Compressor returns the compressor of the server or the client. See NewCompressor
// for level.
func (p Params) Compressor(server bool, level int) *Compressor {
	if server {
		return NewCompressor(p.ServerMaxWindowBits, !p.ServerNoContextTakeover, level)
	}
	return NewCompressor(p.ClientMaxWindowBits, !p.ClientNoContextTakeover, level)
}

// Decompressor returns the decompressor of the server or the client.
func (p Params) Decompressor(server bool) *Decompressor {
	if server {
		return NewDecompressor(p.ClientMaxWindowBits, !p.ClientNoContextTakeover)
	}
	return NewDecompressor(p.ServerMaxWindowBits, !p.ServerNoContextTakeover)
}

// String returns the parameters as the header's value.
func (p Params) String() string { return p.header(p.ClientMaxWindowBits < MaxWindowBits) }

func (p Params) header(clientBits bool) string {
	var b strings.Builder
	b.WriteString(Name)
	if p.ServerNoContextTakeover {
		b.WriteString("; " + serverNoTakeover)
	}
	if p.ClientNoContextTakeover {
		b.WriteString("; " + clientNoTakeover)
	}
	if p.ServerMaxWindowBits < MaxWindowBits {
		b.WriteString("; " + serverWindow + "=" + strconv.Itoa(p.ServerMaxWindowBits))
	}
	if clientBits {
		b.WriteString("; " + clientWindow + "=" + strconv.Itoa(p.ClientMaxWindowBits))
	}
	return b.String()
}

// A Config is what one side wants to negotiate. The zero value agrees to context
// takeover both ways with windows of 32 KiB.
//
// A server can limit the window of those clients only that permit it in their
// offer. For the others ClientMaxWindowBits has no effect.
type Config struct {
	ServerNoContextTakeover bool
	ClientNoContextTakeover bool
	ServerMaxWindowBits     int // 8 to 15; 0 means 15
	ClientMaxWindowBits     int
}

// Check reports what is wrong with c.
func (c Config) Check() error {
	for _, w := range []struct {
		name string
		bits int
	}{{"ServerMaxWindowBits", c.ServerMaxWindowBits}, {"ClientMaxWindowBits", c.ClientMaxWindowBits}} {
		if w.bits != 0 && (w.bits < MinWindowBits || w.bits > MaxWindowBits) {
			return fmt.Errorf("deflate: %s is %d, want %d to %d, or 0 for %d", w.name, w.bits, MinWindowBits, MaxWindowBits, MaxWindowBits)
		}
	}
	return nil
}

func orMax(bits int) int {
	if bits == 0 {
		return MaxWindowBits
	}
	return bits
}

// Accept chooses the first of a client's offers that can be met, and returns the
// parameters and the value of the answer. It skips offers of other extensions and
// offers with unknown, repeated or invalid parameters (RFC 7692 §5, §7.1). If none
// is left, ok is false and compression is not used.
func (c Config) Accept(offers []Extension) (p Params, answer string, ok bool) {
	for _, e := range offers {
		o, err := parseParams(e, true)
		if err != nil {
			continue
		}
		p = Params{
			ServerNoContextTakeover: o.ServerNoContextTakeover || c.ServerNoContextTakeover,
			ClientNoContextTakeover: o.ClientNoContextTakeover || c.ClientNoContextTakeover,
			ServerMaxWindowBits:     min(orMax(o.ServerMaxWindowBits), orMax(c.ServerMaxWindowBits)),
			ClientMaxWindowBits:     MaxWindowBits,
		}
		if o.hasClientBits { // otherwise the answer must not contain it: §7.1.2.2
			p.ClientMaxWindowBits = min(orMax(o.ClientMaxWindowBits), orMax(c.ClientMaxWindowBits))
		}
		return p, p.String(), true
	}
	return Params{}, "", false
}

// Offer returns the value of a client's offer. It always permits the server to
// choose the client's window.
func (c Config) Offer() string {
	p := Params{c.ServerNoContextTakeover, c.ClientNoContextTakeover, orMax(c.ServerMaxWindowBits), orMax(c.ClientMaxWindowBits)}
	if p.ClientMaxWindowBits == MaxWindowBits {
		return p.header(false) + "; " + clientWindow
	}
	return p.header(true)
}

// Confirm checks a server's answer to the offer that c made. ok is false if the
// answer has no extension: compression is not used. After an error the caller must
// fail the connection (RFC 7692 §7.1, RFC 6455 §4.1).
func (c Config) Confirm(answer []Extension) (p Params, ok bool, err error) {
	if len(answer) == 0 {
		return Params{}, false, nil
	}
	if len(answer) > 1 {
		return Params{}, false, fmt.Errorf("the server accepted %d extensions, offered was %s only", len(answer), Name)
	}
	a, err := parseParams(answer[0], false)
	switch {
	case err != nil:
		return Params{}, false, err
	case c.ServerNoContextTakeover && !a.ServerNoContextTakeover:
		return Params{}, false, errors.New("the server did not agree to " + serverNoTakeover)
	case orMax(a.ServerMaxWindowBits) > orMax(c.ServerMaxWindowBits):
		return Params{}, false, fmt.Errorf("the server answered %s=%d, offered was %d", serverWindow, orMax(a.ServerMaxWindowBits), c.ServerMaxWindowBits)
	}
	// The client keeps to its own limits even if the server does not ask for them: a
	// smaller window is valid within a larger one.
	return Params{
		ServerNoContextTakeover: a.ServerNoContextTakeover,
		ClientNoContextTakeover: a.ClientNoContextTakeover || c.ClientNoContextTakeover,
		ServerMaxWindowBits:     orMax(a.ServerMaxWindowBits),
		ClientMaxWindowBits:     min(orMax(a.ClientMaxWindowBits), orMax(c.ClientMaxWindowBits)),
	}, true, nil
}

// given are the parameters of one extension. Window bits that are absent are 0.
type given struct {
	Params
	hasClientBits bool
}

func parseParams(e Extension, offer bool) (g given, err error) {
	if e.Name != Name {
		return g, fmt.Errorf("extension %q was not offered", e.Name)
	}
	seen := map[string]bool{}
	for _, p := range e.Params {
		if seen[p.Name] {
			return g, fmt.Errorf("%s is listed twice", p.Name)
		}
		seen[p.Name] = true
		switch p.Name {
		case serverNoTakeover, clientNoTakeover:
			if p.HasValue {
				return g, fmt.Errorf("%s has a value: %q", p.Name, p.Value)
			}
			if p.Name == serverNoTakeover {
				g.ServerNoContextTakeover = true
			} else {
				g.ClientNoContextTakeover = true
			}
		case serverWindow:
			if g.ServerMaxWindowBits, err = windowBits(p); err != nil {
				return g, err
			}
		case clientWindow:
			g.hasClientBits = true
			if !p.HasValue && offer {
				break // the server may choose: §7.1.2.2
			}
			if g.ClientMaxWindowBits, err = windowBits(p); err != nil {
				return g, err
			}
		default:
			return g, fmt.Errorf("unknown parameter %q", p.Name)
		}
	}
	return g, nil
}

// windowBits returns p's value: 8 to 15, with no leading zero.
func windowBits(p Param) (int, error) {
	n, err := strconv.Atoi(p.Value)
	if err != nil || strconv.Itoa(n) != p.Value || n < MinWindowBits || n > MaxWindowBits {
		return 0, fmt.Errorf("%s is %q, want %d to %d", p.Name, p.Value, MinWindowBits, MaxWindowBits)
	}
	return n, nil
}
