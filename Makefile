# `make` alone lists the targets. Day to day you need only run, test, race and bench,
# which need nothing but Go.

GO          ?= go
STATICCHECK ?= honnef.co/go/tools/cmd/staticcheck@v0.8.2
BIN         := bin/noria

.DEFAULT_GOAL := help
.PHONY: help run build test race lint tags bench bench-ws stress conform autobahn fuzz modules interop next-go ci

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-8s %s\n", $$1, $$2}'

build: ## build bin/noria
	$(GO) build -o $(BIN) ./cmd/noria

run: build ## start a TCP and a WebSocket echo server
	$(BIN) serve --tcp 127.0.0.1:7000 --ws 127.0.0.1:7001

test: ## every test, in its short form
	$(GO) test -short ./...

# Without the tests of the faulty servers and runtimes: they take as long as all others
# together, and whether a suite notices a fault has nothing to do with races.
race: ## the tests with the race detector, in their short form
	$(GO) test -short -race -timeout 20m -skip '^TestBroken' ./...

stress: ## the stress tests at their full size, on each backend
	$(GO) test -race -timeout 20m -run Stress -v ./conformance/...
	$(GO) test -run 'Stress|SlowHandshakes|StalledPeers' ./ws # a thousand of each

# FUZZTIME is a time, or a number of inputs: FUZZTIME=20000x.
FUZZTIME ?= 5m
fuzz: ## every fuzz target, FUZZTIME (5m) each
	@set -e; for p in $$($(GO) list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}' ./runtime ./loop ./compat ./ws/... ./conformance/... ./examples/...); do \
		for f in $$($(GO) test -list '^Fuzz' $$p | grep '^Fuzz' || true); do \
			echo "== $$f of $$p"; $(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x $$p; \
		done; done

lint: ## gofmt, go vet, staticcheck
	@test -z "$$(gofmt -l .)" || { gofmt -l .; echo 'run gofmt -w on these'; exit 1; }
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...

# A tag changes which backends a build has, so these tests show that the backend is chosen,
# works, and keeps its contract. The faulty runtimes and the stress test run without tags.
TAGTESTS := Runtime|Loop|Variants|Every

tags: ## test both build tags, and compile for other systems and processors
	@set -e; for tag in noria_epoll noria_uring; do echo "== $$tag"; \
		$(GO) build -tags $$tag ./...; $(GO) vet -tags $$tag ./...; \
		$(GO) test -tags $$tag -short -count 1 . ./tcp ./cmd/noria; \
		$(GO) test -tags $$tag -short -count 1 -run '^Test($(TAGTESTS))' ./conformance; done
	GOARCH=arm64 $(GO) vet ./...
	GOARCH=arm $(GO) vet ./...
	GOARCH=386 $(GO) vet ./...
	GOARCH=386 $(GO) test -short ./runtime/epoll ./loop ./tcp # they run on amd64
	GOOS=darwin $(GO) vet ./...
	GOOS=windows $(GO) vet ./...

bench: build ## the echo benchmark: io_uring, epoll and net, interleaved
	$(BIN) bench echo --proto tcp

# See bench/README.md. FLAGS='--conns 100,1000' measures 1,000 connections too.
bench-ws: FLAGS ?= --conns 100
bench-ws: build ## build the peers in bench/ and measure WebSocket beside TCP and them; UWEBSOCKETS=path adds uWebSockets
	bench/build.sh bin/peers
	bench/run.sh $(BIN) bin/peers $(FLAGS)

conform: ## the whole WebSocket suite, with all its messages, on every backend
	NORIA_MESSAGES=1000 $(GO) test -count 1 -timeout 60m -run Noria -v ./conformance/websocket

# FLAGS=-short leaves out the long messages; see conformance/websocket/autobahn.
autobahn: ## compare the suite's verdicts with Autobahn's own cases; installs kosoku
	conformance/websocket/autobahn/run.sh $(FLAGS)

# -count 1, because bench's test builds the peers, which go test's cache does not see.
modules: ## test the other modules: two examples, the peers of bench and of interop
	@set -e; for m in examples/redis examples/backend bench interop/peers; do echo "== $$m"; \
		(cd $$m && $(GO) vet ./... && $(GO) run $(STATICCHECK) ./... && \
		 case $$m in interop/*) ;; *) $(GO) test -short -race -count 1 ./...;; esac); done # make interop runs the tests of interop/peers

interop: build ## run real clients against the servers and examples; installs them
	./interop/run.sh $(BIN)
	./interop/examples.sh

# Not part of ci: a change must not wait for another Go release, or for a download.
# NEXTGO is a command; NEXTGO=gotip tests with Go's development version.
NEXTGO ?= env GOTOOLCHAIN=go1.27.0 go
next-go: ## build, vet and test with the next Go release; says so where it is not available
	@if v=$$($(NEXTGO) version 2>&1); then echo "== $$v"; \
		$(NEXTGO) build ./... && $(NEXTGO) vet ./... && $(NEXTGO) test -short ./...; \
	else echo "$$v"; echo '== NOT TESTED: "$(NEXTGO) version" failed, so this Go is not available here'; fi

# FUZZTIME is a count here: with a time, Go sometimes fails a target at its end with
# "context deadline exceeded" and no finding (golang/go#75804).
ci: lint tags test race stress modules ## what .ci/run runs
	$(MAKE) fuzz FUZZTIME=30000x
	$(MAKE) interop
