module github.com/noria-go/noria

go 1.26
