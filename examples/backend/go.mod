module github.com/noria-go/noria/examples/backend

go 1.26.0

require (
	github.com/noria-go/noria v0.0.0
	golang.org/x/sys v0.49.0
)

replace github.com/noria-go/noria => ../..
