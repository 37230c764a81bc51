package deflate_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/noria-go/noria/ws/internal/deflate"
)

func params(serverNo, clientNo bool, server, client int) deflate.Params {
	return deflate.Params{ServerNoContextTakeover: serverNo, ClientNoContextTakeover: clientNo, ServerMaxWindowBits: server, ClientMaxWindowBits: client}
}

func TestAccept(t *testing.T) {
	full := params(false, false, 15, 15)
	for _, tt := range []struct {
		config deflate.Config
		offer  string
		want   *deflate.Params
		answer string
	}{
		{offer: "permessage-deflate", want: &full, answer: "permessage-deflate"},
		{offer: "permessage-deflate; client_max_window_bits", want: &full, answer: "permessage-deflate"},
		{offer: `permessage-deflate;client_max_window_bits="10"`, want: ptr(params(false, false, 15, 10)), answer: "permessage-deflate; client_max_window_bits=10"},
		{offer: "permessage-deflate; server_max_window_bits=8", want: ptr(params(false, false, 8, 15)), answer: "permessage-deflate; server_max_window_bits=8"},
		{offer: "permessage-deflate; server_no_context_takeover; client_no_context_takeover", want: ptr(params(true, true, 15, 15)), answer: "permessage-deflate; server_no_context_takeover; client_no_context_takeover"},
		{config: deflate.Config{ServerNoContextTakeover: true, ClientNoContextTakeover: true}, offer: "permessage-deflate", want: ptr(params(true, true, 15, 15)), answer: "permessage-deflate; server_no_context_takeover; client_no_context_takeover"},
		{config: deflate.Config{ServerMaxWindowBits: 10, ClientMaxWindowBits: 11}, offer: "permessage-deflate", want: ptr(params(false, false, 10, 15)), answer: "permessage-deflate; server_max_window_bits=10"},
		{config: deflate.Config{ServerMaxWindowBits: 10, ClientMaxWindowBits: 11}, offer: "permessage-deflate; client_max_window_bits; server_max_window_bits=12", want: ptr(params(false, false, 10, 11)), answer: "permessage-deflate; server_max_window_bits=10; client_max_window_bits=11"},
		{config: deflate.Config{ClientMaxWindowBits: 11}, offer: "permessage-deflate; client_max_window_bits=9", want: ptr(params(false, false, 15, 9)), answer: "permessage-deflate; client_max_window_bits=9"},
		// The first offer that can be met.
		{offer: "permessage-deflate; server_max_window_bits=7, permessage-deflate; server_max_window_bits=9, permessage-deflate", want: ptr(params(false, false, 9, 15)), answer: "permessage-deflate; server_max_window_bits=9"},
		{offer: "x-webkit-deflate-frame, permessage-bzip2; level=9, permessage-deflate", want: &full, answer: "permessage-deflate"},
		// No offer.
		{offer: ""},
		{offer: "permessage-bzip2"},
		{offer: "Permessage-Deflate"},
		{offer: "permessage-deflate; level=9"},
		{offer: "permessage-deflate; server_no_context_takeover; server_no_context_takeover"},
		{offer: "permessage-deflate; client_max_window_bits; client_max_window_bits=10"},
		{offer: "permessage-deflate; server_no_context_takeover=true"},
		{offer: "permessage-deflate; client_no_context_takeover=1"},
		{offer: "permessage-deflate; server_max_window_bits"},
		{offer: "permessage-deflate; server_max_window_bits=7"},
		{offer: "permessage-deflate; server_max_window_bits=16"},
		{offer: "permessage-deflate; server_max_window_bits=08"},
		{offer: "permessage-deflate; server_max_window_bits=+9"},
		{offer: "permessage-deflate; server_max_window_bits=99999999999999999999"},
		{offer: "permessage-deflate; client_max_window_bits=0"},
		{offer: "permessage-deflate; client_max_window_bits=1x"},
	} {
		list, err := deflate.ParseExtensions([]string{tt.offer})
		require.NoError(t, err, tt.offer)
		p, answer, ok := tt.config.Accept(list)
		require.Equal(t, tt.want != nil, ok, tt.offer)
		require.Equal(t, tt.answer, answer, tt.offer)
		if ok {
			require.Equal(t, *tt.want, p, tt.offer)
			// A client that made this offer accepts the answer.
			agreed, err := deflate.ParseExtensions([]string{answer})
			require.NoError(t, err)
			_, ok, err := deflate.Config{}.Confirm(agreed)
			require.NoError(t, err)
			require.True(t, ok)
		}
	}
}

func ptr[T any](v T) *T { return &v }

func TestOfferAndConfirm(t *testing.T) {
	for _, tt := range []struct {
		config        deflate.Config
		offer, answer string
		want          deflate.Params
		err           string
	}{
		{offer: "permessage-deflate; client_max_window_bits", answer: "permessage-deflate", want: params(false, false, 15, 15)},
		{offer: "permessage-deflate; client_max_window_bits", answer: "permessage-deflate; client_max_window_bits=9; server_max_window_bits=10; server_no_context_takeover; client_no_context_takeover", want: params(true, true, 10, 9)},
		{config: deflate.Config{ServerNoContextTakeover: true, ClientNoContextTakeover: true, ServerMaxWindowBits: 9, ClientMaxWindowBits: 10},
			offer:  "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=9; client_max_window_bits=10",
			answer: "permessage-deflate; server_no_context_takeover; server_max_window_bits=8", want: params(true, true, 8, 10)},
		{offer: "permessage-deflate; client_max_window_bits", answer: "", want: deflate.Params{}},
		{answer: "permessage-bzip2", err: `"permessage-bzip2" was not offered`},
		{answer: "permessage-deflate, permessage-deflate", err: "2 extensions"},
		{answer: "permessage-deflate; client_max_window_bits", err: "client_max_window_bits is"},
		{answer: "permessage-deflate; server_max_window_bits=16", err: "want 8 to 15"},
		{answer: "permessage-deflate; x=1", err: "unknown parameter"},
		{answer: "permessage-deflate; server_no_context_takeover; server_no_context_takeover", err: "twice"},
		{config: deflate.Config{ServerNoContextTakeover: true}, answer: "permessage-deflate", err: "did not agree"},
		{config: deflate.Config{ServerMaxWindowBits: 9}, answer: "permessage-deflate", err: "server_max_window_bits=15"},
		{config: deflate.Config{ServerMaxWindowBits: 9}, answer: "permessage-deflate; server_max_window_bits=10", err: "server_max_window_bits=10"},
	} {
		if tt.offer != "" {
			require.Equal(t, tt.offer, tt.config.Offer())
		}
		list, err := deflate.ParseExtensions([]string{tt.answer})
		require.NoError(t, err)
		p, ok, err := tt.config.Confirm(list)
		if tt.err != "" {
			require.ErrorContains(t, err, tt.err, tt.answer)
			require.False(t, ok)
			continue
		}
		require.NoError(t, err, tt.answer)
		require.Equal(t, tt.answer != "", ok)
		require.Equal(t, tt.want, p)
	}
}

// One side of this package accepts what the other offers, and both understand each
// other afterwards.
func TestBothSides(t *testing.T) {
	each := func(f func(deflate.Config)) {
		for i := range 4 {
			for _, s := range []int{0, 8, 15} {
				for _, c := range []int{0, 8, 15} {
					f(deflate.Config{ServerNoContextTakeover: i&1 > 0, ClientNoContextTakeover: i&2 > 0, ServerMaxWindowBits: s, ClientMaxWindowBits: c})
				}
			}
		}
	}
	each(func(client deflate.Config) {
		each(func(server deflate.Config) {
			require.NoError(t, server.Check())
			offers, err := deflate.ParseExtensions([]string{client.Offer()})
			require.NoError(t, err)
			ps, answer, ok := server.Accept(offers)
			require.True(t, ok)
			list, err := deflate.ParseExtensions([]string{answer})
			require.NoError(t, err)
			pc, ok, err := client.Confirm(list)
			require.NoError(t, err)
			require.True(t, ok)
			require.Equal(t, ps, pc)
		})
	})
	p := params(false, true, 9, 10)
	for _, server := range []bool{false, true} {
		c, d := p.Compressor(server, 0), p.Decompressor(!server)
		for _, m := range messages(5) {
			require.Equal(t, string(m), inflateAll(t, d, c.Message(nil, m)))
		}
		c.Close()
	}
}

func TestCheck(t *testing.T) {
	require.NoError(t, deflate.Config{}.Check())
	require.ErrorContains(t, deflate.Config{ServerMaxWindowBits: 7}.Check(), "ServerMaxWindowBits is 7")
	require.ErrorContains(t, deflate.Config{ClientMaxWindowBits: 16}.Check(), "ClientMaxWindowBits is 16")
}

func TestParseExtensions(t *testing.T) {
	list, err := deflate.ParseExtensions([]string{` , a;b;c = 1 ;d="x\y" ,, e`, "", "f;g=2"})
	require.NoError(t, err)
	require.Equal(t, []deflate.Extension{
		{Name: "a", Params: []deflate.Param{{Name: "b"}, {Name: "c", Value: "1", HasValue: true}, {Name: "d", Value: "xy", HasValue: true}}},
		{Name: "e"},
		{Name: "f", Params: []deflate.Param{{Name: "g", Value: "2", HasValue: true}}},
	}, list)
	for in, says := range map[string]string{
		"a;":            "missing at the end",
		";a":            `missing before ';'`,
		"a b":           "unexpected 'b'",
		"a; b=":         "missing at the end",
		"a; b=,":        `missing before ','`,
		`a; b=""`:       "is empty",
		`a; b="x`:       "no end",
		`a; b="x\`:      "no end",
		`a; b="x y"`:    "which a token cannot",
		`a; b="x\"y"`:   "which a token cannot",
		"a\x00":         "unexpected",
		"a; b=1\r\nX:1": "unexpected",
		"\xff":          "missing before",
	} {
		_, err := deflate.ParseExtensions([]string{in})
		require.ErrorContains(t, err, says, "%q", in)
	}
	var many, manyParams string
	for range 65 {
		many, manyParams = many+"a,", manyParams+";b"
	}
	_, err = deflate.ParseExtensions([]string{many})
	require.ErrorContains(t, err, "more than 64 extensions")
	_, err = deflate.ParseExtensions([]string{"a" + manyParams})
	require.ErrorContains(t, err, "more than 32 parameters")
}
