package websocket

import "fmt"

// offerTraps are the cases about offers of compression, of line 8: invalid offers, and
// what the answer to a valid one must contain.
func offerTraps() (list []serverTrap) {
	for id, offer := range map[string]string{
		"unknown":       extension + "; frobnicate",
		"twice":         extension + "; server_no_context_takeover; server_no_context_takeover",
		"bits-7":        extension + "; server_max_window_bits=7",
		"bits-16":       extension + "; server_max_window_bits=16",
		"bits-zero":     extension + "; server_max_window_bits=09",
		"bits-none":     extension + "; server_max_window_bits",
		"client-bits-7": extension + "; client_max_window_bits=7",
		"client-text":   extension + "; client_max_window_bits=x",
		"flag-value":    extension + "; client_no_context_takeover=1",
		"server-value":  extension + "; server_no_context_takeover=true",
	} {
		list = append(list, serverTrap{"trap08.offer-" + id, "The offer " + offer + ".", "It is not taken.", func(x *trapRun) (Behavior, string) {
			return x.declines(offer)
		}})
	}
	for id, offer := range map[string]deflateParams{
		"bits":       {serverBits: 9},
		"no-context": {serverNoContext: true},
		"both":       {serverBits: 9, serverNoContext: true},
	} {
		list = append(list, serverTrap{"trap08.answers-" + id, "The offer " + offer.String() + ".", "An answer that takes it promises what it demands.", func(x *trapRun) (Behavior, string) {
			return x.promises(offer)
		}})
	}
	return list
}

// declines sends an offer that the server must not take.
func (x *trapRun) declines(offer string) (Behavior, string) {
	q := x.request().set("Sec-WebSocket-Extensions", offer)
	conn, _, h, err := x.ask(sending(q.String()))
	if err != nil {
		if isTimeout(err) {
			return Failed, "no answer, and the connection stays open"
		}
		return NonStrict, "the connection ended without an answer"
	}
	_ = conn.Close()
	switch status := h.status(); {
	case status == 101 && h.get("sec-websocket-extensions") == "":
		return OK, "the server does not take it"
	case status >= 400 && status <= 499:
		return OK, h.first
	}
	return Failed, fmt.Sprintf("the server takes it: %q, %s", h.first, h.get("sec-websocket-extensions"))
}

// promises sends an offer. If the server takes it, the answer must contain what the
// offer demands (RFC 7692 sections 7.1.1.1 and 7.1.2.1).
func (x *trapRun) promises(offer deflateParams) (Behavior, string) {
	offers := []deflateParams{offer}
	q := newRequest(x.target.url, x.key, offers).String()
	x.result.Request = q
	conn, _, h, err := x.ask(sending(q))
	if err != nil {
		return Failed, err.Error()
	}
	_ = conn.Close()
	p, err := checkAnswer(h, x.key, offers)
	switch {
	case err != nil:
		return Failed, err.Error()
	case p == nil:
		return Unimplemented, "the server does not take the offer"
	case offer.serverNoContext && !p.serverNoContext:
		return Failed, fmt.Sprintf("the answer %q does not promise server_no_context_takeover", p)
	case offer.serverBits > 0 && (p.serverBits == 0 || p.serverBits > offer.serverBits):
		return Failed, fmt.Sprintf("the answer %q does not promise server_max_window_bits of %d or less", p, offer.serverBits)
	}
	return OK, "the answer contains it"
}
