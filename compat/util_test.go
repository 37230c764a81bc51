package compat_test

import (
	"github.com/noria-go/noria/internal/friend"
)

var key friend.Key // opens what only this module may call: see internal/friend

const (
	defaultSize = 8 << 10  // of Options.Size
	defaultMax  = 64 << 20 // of Options.Max
)
