package websocket

import "fmt"

// The cases of groups 12 and 13: permessage-deflate (RFC 7692). Group 12 varies the
// data, group 13 the parameters.

// deflateSizes are the 18 cases of each subgroup: the length of the messages, and the
// length of the fragments in which they are sent (0: unfragmented).
var deflateSizes = []struct{ length, fragment int }{
	{16, 0}, {64, 0}, {256, 0}, {1 << 10, 0}, {4 << 10, 0}, {8 << 10, 0}, {16 << 10, 0}, {32 << 10, 0}, {64 << 10, 0}, {128 << 10, 0},
	{8 << 10, 256}, {16 << 10, 256}, {32 << 10, 256}, {64 << 10, 256}, {128 << 10, 256},
	{128 << 10, 1 << 10}, {128 << 10, 4 << 10}, {128 << 10, 32 << 10},
}

// deflateMessages is how many messages a case sends.
const deflateMessages = 1000

// deflateOffers are the parameters that the subgroups of 13 ask the endpoint for, the
// preferred ones first: as a client in the offers, as a server in the answer.
var deflateOffers = [][]deflateParams{
	{{}},
	{{serverNoContext: true}},
	{{serverBits: 9}},
	{{serverBits: 15}},
	{{serverNoContext: true, serverBits: 9}},
	{{serverNoContext: true, serverBits: 15}},
	{{serverNoContext: true, serverBits: 9}, {serverNoContext: true}, {}},
}

func compressionCases() (list []Case) {
	for sub, data := range corpora {
		for i, size := range deflateSizes {
			list = append(list, deflateCase(fmt.Sprintf("12.%d.%d", sub+1, i+1), data, size.length, size.fragment, deflateOffers[0]))
		}
	}
	for sub, asked := range deflateOffers {
		for i, size := range deflateSizes {
			list = append(list, deflateCase(fmt.Sprintf("13.%d.%d", sub+1, i+1), corpora[0], size.length, size.fragment, asked))
		}
	}
	return list
}

func deflateCase(id string, data corpus, length, fragment int, asked []deflateParams) Case {
	opcode := byte(opBinary)
	if data.text {
		opcode = opText
	}
	var how string
	if fragment > 0 {
		how = fmt.Sprintf(", in fragments of %s", size(fragment))
	}
	offers := make([]deflateParams, len(asked))
	for i, p := range asked {
		offers[i] = p
		offers[i].clientNoContext, offers[i].clientBits = true, -1
	}
	c := newCase(id, fmt.Sprintf("%d compressed messages of %s%s, of %s; offered: %s.", deflateMessages, size(length), how, data.name, offerHeader(offers)),
		"All come back; a clean close.", expects(), func(s *session) {
			if s.out == nil {
				s.decide(Unimplemented, "the endpoint does not take permessage-deflate with these parameters")
				s.close(1000)
				return
			}
			n := deflateMessages
			if s.messages > 0 {
				n = min(n, s.messages)
			}
			for i := range n {
				p := data.cut(i, length)
				if !s.echo(opcode, p, func() { s.sendFragments(opcode, s.out.compress(p), fragment, true) }) {
					break
				}
			}
			s.close(1000)
		})
	c.offers, c.accept = offers, asked
	return c
}
