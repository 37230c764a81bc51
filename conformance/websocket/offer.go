package websocket

import (
	"fmt"
	"strconv"
	"strings"
)

// extension is the only registered extension that the suite knows (RFC 7692).
const extension = "permessage-deflate"

// deflateParams are the parameters of an offer or of an answer. Bits of 0 mean that the
// parameter is absent; bits of -1 (only client_max_window_bits in an offer), that it
// has no value.
type deflateParams struct {
	serverNoContext, clientNoContext bool
	serverBits, clientBits           int
}

func (p deflateParams) String() string {
	s := extension
	if p.clientNoContext {
		s += "; client_no_context_takeover"
	}
	switch {
	case p.clientBits < 0:
		s += "; client_max_window_bits"
	case p.clientBits > 0:
		s += fmt.Sprintf("; client_max_window_bits=%d", p.clientBits)
	}
	if p.serverNoContext {
		s += "; server_no_context_takeover"
	}
	if p.serverBits > 0 {
		s += fmt.Sprintf("; server_max_window_bits=%d", p.serverBits)
	}
	return s
}

// An offered is one element of a Sec-WebSocket-Extensions header.
type offered struct {
	name   string
	params []param
}

type param struct {
	name, value string
	hasValue    bool
}

// parseExtensions parses the header (RFC 6455 section 9.1).
func parseExtensions(header string) (list []offered, err error) {
	if strings.TrimSpace(header) == "" {
		return nil, nil
	}
	for element := range strings.SplitSeq(header, ",") {
		var o offered
		for i, s := range strings.Split(element, ";") {
			name, value, hasValue := strings.Cut(s, "=")
			name, value = strings.TrimSpace(name), strings.TrimSpace(value)
			if len(value) >= 2 && value[0] == '"' && value[len(value)-1] == '"' {
				value = value[1 : len(value)-1]
			}
			if !isToken(name) || hasValue && !isToken(value) {
				return nil, fmt.Errorf("%q is no extension", strings.TrimSpace(element))
			}
			if i == 0 {
				if hasValue {
					return nil, fmt.Errorf("an extension's name cannot have a value: %q", s)
				}
				o.name = name
				continue
			}
			o.params = append(o.params, param{name, value, hasValue})
		}
		list = append(list, o)
	}
	return list, nil
}

func isToken(s string) bool {
	if s == "" {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`()<>@,;:\"/[]?={}`, c) >= 0 {
			return false
		}
	}
	return true
}

// parseDeflate reads the parameters of an answer (true) or of an offer by the rules of
// RFC 7692 section 7.1: none twice, none unknown, bits from 8 to 15 without leading
// zeros.
func (o offered) parseDeflate(answer bool) (p deflateParams, err error) {
	seen := map[string]bool{}
	for _, q := range o.params {
		if seen[q.name] {
			return p, fmt.Errorf("%s twice", q.name)
		}
		seen[q.name] = true
		switch q.name {
		case "server_no_context_takeover", "client_no_context_takeover":
			if q.hasValue {
				return p, fmt.Errorf("%s has a value", q.name)
			}
			if q.name[0] == 's' {
				p.serverNoContext = true
			} else {
				p.clientNoContext = true
			}
		case "server_max_window_bits", "client_max_window_bits":
			n, err := strconv.Atoi(q.value)
			switch {
			case !q.hasValue && !answer && q.name[0] == 'c':
				n = -1
			case err != nil || n < 8 || n > 15 || strconv.Itoa(n) != q.value:
				return p, fmt.Errorf("%s is %q, not 8 to 15", q.name, q.value)
			}
			if q.name[0] == 's' {
				p.serverBits = n
			} else {
				p.clientBits = n
			}
		default:
			return p, fmt.Errorf("unknown parameter %q", q.name)
		}
	}
	return p, nil
}

// acceptAnswer reads a server's answer to the offers and returns what is wrong with it.
// Both results are nil if the server takes no extension.
func acceptAnswer(header string, offers []deflateParams) (*deflateParams, error) {
	list, err := parseExtensions(header)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	if len(list) > 1 || list[0].name != extension || len(offers) == 0 {
		return nil, fmt.Errorf("the server takes %q, which was not offered", header)
	}
	p, err := list[0].parseDeflate(true)
	if err != nil {
		return nil, fmt.Errorf("the server takes %q: %w", header, err)
	}
	for _, o := range offers {
		// The answer may have client_max_window_bits only if the offer has it. Like
		// Autobahn, this accepts a server that leaves out what an offer demanded;
		// trap08.answers-* is stricter.
		if p.clientBits == 0 || o.clientBits != 0 {
			return &p, nil
		}
	}
	return nil, fmt.Errorf("the server takes client_max_window_bits, which was not offered")
}
