package websocket

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"unicode/utf8"
)

// A corpus is the data from which the compression cases cut their messages. Autobahn
// uses a JSON file, a bitmap, a book, an HTML page and a PDF file; these are made up,
// of the same kinds and sizes.
type corpus struct {
	name string
	text bool
	data func() []byte
}

var corpora = []corpus{
	{"JSON, 194056 bytes", true, sync.OnceValue(func() []byte { return jsonData(194056) })},
	{"a bitmap, 263222 bytes", false, sync.OnceValue(func() []byte { return bitmapData(263222) })},
	{"prose, 222218 bytes", false, sync.OnceValue(func() []byte { return proseData(222218) })},
	{"HTML, 263527 bytes", true, sync.OnceValue(func() []byte { return htmlData(263527) })},
	{"data that hardly compresses, 1042328 bytes", false, sync.OnceValue(func() []byte { return denseData(1042328) })},
}

func corpusRand(n uint64) *rand.Rand { return rand.New(rand.NewPCG(6455, n)) }

var words = strings.Fields(`the of and a to in he have it that for they with as not on she at by this we you do but
	from or which one would all will there say who make when can more if no man out other so what time up go about than
	into could state only new year some take come these know see use get like then first any work now may such give over
	Straße Größe élan naïve señor Ωμέγα κόσμος мир вода 水車 流れ 🎡 über façade`)

func sentence(r *rand.Rand, b *bytes.Buffer) {
	for i := range 5 + r.IntN(15) {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(words[int(float64(len(words))*r.Float64()*r.Float64())])
	}
	b.WriteString(". ")
}

func proseData(n int) []byte {
	r, b := corpusRand(3), &bytes.Buffer{}
	for b.Len() < n {
		for range 3 + r.IntN(6) {
			sentence(r, b)
		}
		b.WriteString("\n\n")
	}
	return b.Bytes()[:n]
}

func jsonData(n int) []byte {
	r, b := corpusRand(1), &bytes.Buffer{}
	b.WriteString("[\n")
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintf(b, "  {\"id\": %d, \"guid\": \"%016x\", \"active\": %v, \"balance\": %.2f, \"about\": \"", i, r.Uint64(), r.IntN(2) == 0, 10000*r.Float64())
		sentence(r, b)
		b.WriteString("\"},\n")
	}
	return b.Bytes()[:n]
}

func htmlData(n int) []byte {
	r, b := corpusRand(4), &bytes.Buffer{}
	b.WriteString("<!DOCTYPE html>\n<html><head><title>Noria</title></head><body>\n")
	for b.Len() < n {
		fmt.Fprintf(b, "<div class=\"row c%d\"><a href=\"/page/%d\">", r.IntN(5), r.IntN(1000))
		sentence(r, b)
		b.WriteString("</a></div>\n")
	}
	return b.Bytes()[:n]
}

func bitmapData(n int) []byte {
	r := corpusRand(2)
	b := make([]byte, n)
	for i := range b {
		x, y := i%512, i/512
		b[i] = byte(x/4+y/3) + byte(r.IntN(4))
	}
	return b
}

func denseData(n int) []byte {
	r := corpusRand(5)
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	for i := 0; i+64 < n; i += 4096 {
		copy(b[i:], "endstream endobj 12 0 obj << /Filter /FlateDecode >> stream\n")
	}
	return b
}

// cut returns the i-th message of n bytes. A text does not begin or end inside a
// character, so it may be up to three bytes shorter. At the end of the data it starts
// again at the beginning.
func (c corpus) cut(i, n int) []byte {
	data := c.data()
	from := i * n % len(data)
	var p []byte
	for len(p) < n {
		k := min(n-len(p), len(data)-from)
		p = append(p, data[from:from+k]...)
		from = 0
	}
	if c.text {
		p = bytes.ToValidUTF8(p, nil)
		for !utf8.Valid(p) {
			p = p[:len(p)-1]
		}
	}
	return p
}
