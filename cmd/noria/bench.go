package main

import (
	"github.com/noria-go/noria/cmd/noria/internal/adapterbench"
	"github.com/noria-go/noria/cmd/noria/internal/echobench"
)

func bench(args []string) int {
	if len(args) > 0 && args[0] == "adapters" {
		return adapterbench.Main(args[1:])
	}
	return echobench.Main(args)
}
