package main

import "github.com/noria-go/noria/cmd/noria/internal/echobench"

func bench(args []string) int { return echobench.Main(args) }
