package websocket

import (
	"io"
	"time"
)

// slowHandshakes are the cases of line 1. The limit is for the whole request and does
// not start anew with each byte. The connection may stay a little longer, because
// machines are busy.
func slowHandshakes(limit time.Duration) []serverTrap {
	most := limit + max(limit/2, 3*time.Second)
	ends := func(id, what string, send func(w io.Writer, request string)) serverTrap {
		return serverTrap{id, what, "The connection ends in the time for handshakes.", func(x *trapRun) (Behavior, string) {
			conn, err := x.target.dial(x.ctx)
			if err != nil {
				return Failed, err.Error()
			}
			done := make(chan struct{})
			defer func() {
				_ = conn.Close()
				<-done
			}()
			_ = conn.SetDeadline(time.Now().Add(most))
			go func() {
				defer close(done)
				send(conn, x.request().String())
			}()
			if _, err := io.Copy(io.Discard, conn); isTimeout(err) {
				return Failed, "the connection stays open"
			}
			return OK, "the connection ended"
		}}
	}
	return []serverTrap{
		ends("trap01.slow-handshake", "A request that comes a byte at a time and never ends.", func(w io.Writer, request string) {
			tick := time.NewTicker(max(limit/10, time.Millisecond))
			defer tick.Stop()
			// The head never ends: its last line gets longer.
			for head := request[:len(request)-len("\r\n\r\n")]; ; {
				next := "x"
				if head != "" {
					next, head = head[:1], head[1:]
				}
				if _, err := io.WriteString(w, next); err != nil {
					return
				}
				<-tick.C
			}
		}),
		ends("trap01.half", "Half a request, and then nothing.", func(w io.Writer, request string) {
			_, _ = io.WriteString(w, request[:len(request)/2]) // reading shows an error of the connection
		}),
		ends("trap01.silent", "No request.", func(io.Writer, string) {}),
	}
}
