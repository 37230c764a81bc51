module github.com/noria-go/noria

go 1.26.0

require (
	github.com/gobwas/ws v1.5.0
	github.com/klauspost/compress v1.20.4
	github.com/stretchr/testify v1.12.1
	golang.org/x/net v0.62.0
	golang.org/x/sys v0.49.0
)

require (
	github.com/gobwas/httphead v0.1.0 // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
)

require (
	github.com/godzie44/go-uring v0.0.0-20220926161041-69611e8b13d5
	github.com/libp2p/go-sockaddr v0.1.1 // indirect
)
