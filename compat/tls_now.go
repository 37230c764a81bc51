package compat

import "github.com/noria-go/noria/internal/friend"

// WriteNow is loop.Stream's: Write that never waits, whatever is queued. It
// fails with ErrBusy while another task's Write is half-way, whose bytes stay
// together.
func (c *TLSStream) WriteNow(p []byte) error {
	switch {
	case !c.Loop().Friend(friend.Key{}).OnLoop():
		return c.elsewhere("send", func() error { return c.WriteNow(p) })
	case c.shut && !c.closed:
		return c.writeErr()
	case c.midway:
		return c.halfWay()
	}
	for len(p) > 0 {
		n, err := c.encrypt(p[:min(len(p), tlsChunk)])
		if err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}
