package deflate

import (
	"errors"
	"fmt"
	"strings"
)

// An Extension is one element of Sec-WebSocket-Extensions: an offer or an answer
// (RFC 6455 §9.1).
type Extension struct {
	Name   string
	Params []Param
}

// A Param is a parameter of an Extension. HasValue distinguishes "a" from "a=".
type Param struct {
	Name, Value string
	HasValue    bool
}

// maxExtensions and maxParams bound what one header may contain, far above any use.
const (
	maxExtensions = 64
	maxParams     = 32
)

// ParseExtensions parses the values of all Sec-WebSocket-Extensions headers of a
// request or response, in order:
//
//	extension-list = 1#extension
//	extension      = token *( ";" token [ "=" (token | quoted-string) ] )
//
// A quoted value must be a token once it is unquoted. Empty elements are skipped,
// as RFC 9110 §5.6.1 requires of a recipient.
func ParseExtensions(values []string) ([]Extension, error) {
	var list []Extension
	for _, v := range values {
		s := scanner{rest: v}
		for {
			s.space()
			if s.skip(',') {
				continue
			}
			if s.rest == "" {
				break
			}
			if len(list) == maxExtensions {
				return nil, fmt.Errorf("more than %d extensions", maxExtensions)
			}
			e, err := s.extension()
			if err != nil {
				return nil, err
			}
			list = append(list, e)
			if s.space(); s.rest != "" && s.rest[0] != ',' {
				return nil, fmt.Errorf("unexpected %q after an extension", s.rest[0])
			}
		}
	}
	return list, nil
}

// A scanner splits a header's value.
type scanner struct{ rest string }

func (s *scanner) space() { s.rest = strings.TrimLeft(s.rest, " \t") }

func (s *scanner) skip(c byte) bool {
	if s.rest == "" || s.rest[0] != c {
		return false
	}
	s.rest = s.rest[1:]
	return true
}

func (s *scanner) extension() (e Extension, err error) {
	if e.Name, err = s.token("an extension's name"); err != nil {
		return e, err
	}
	for {
		s.space()
		if !s.skip(';') {
			return e, nil
		}
		if len(e.Params) == maxParams {
			return e, fmt.Errorf("extension %q: more than %d parameters", e.Name, maxParams)
		}
		s.space()
		var p Param
		if p.Name, err = s.token("a parameter's name"); err != nil {
			return e, err
		}
		s.space()
		if p.HasValue = s.skip('='); p.HasValue {
			s.space()
			if p.Value, err = s.value(); err != nil {
				return e, err
			}
		}
		e.Params = append(e.Params, p)
	}
}

func (s *scanner) token(what string) (string, error) {
	n := 0
	for n < len(s.rest) && IsTokenByte(s.rest[n]) {
		n++
	}
	if n == 0 {
		if s.rest == "" {
			return "", fmt.Errorf("%s is missing at the end", what)
		}
		return "", fmt.Errorf("%s is missing before %q", what, s.rest[0])
	}
	t := s.rest[:n]
	s.rest = s.rest[n:]
	return t, nil
}

func (s *scanner) value() (string, error) {
	if !s.skip('"') {
		return s.token("a parameter's value")
	}
	var b strings.Builder
	for i := 0; i < len(s.rest); i++ {
		switch c := s.rest[i]; c {
		case '"':
			s.rest = s.rest[i+1:]
			if b.Len() == 0 {
				return "", errors.New("a quoted value is empty")
			}
			return b.String(), nil
		case '\\':
			if i++; i == len(s.rest) {
				return "", errors.New("a quoted value has no end")
			}
			fallthrough
		default:
			if !IsTokenByte(s.rest[i]) {
				return "", fmt.Errorf("a quoted value contains %q, which a token cannot", s.rest[i])
			}
			b.WriteByte(s.rest[i])
		}
	}
	return "", errors.New("a quoted value has no end")
}

// IsTokenByte reports whether c may be part of a token (RFC 9110 §5.6.2).
func IsTokenByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}
