# `make run` starts a server, `make check` is exactly what CI runs. Nothing is installed outside this folder, but for
# Go's own caches. GNU make.

GO           ?= go
BIN          := bin
TOOLS        := $(CURDIR)/$(BIN)/tools
LINT_VERSION := v2.7.2
LINT         := $(TOOLS)/golangci-lint-$(LINT_VERSION)
HELM_VERSION := v3.22.0
HELM         := $(TOOLS)/helm-$(HELM_VERSION)
NFPM_VERSION := v2.45.2
NFPM         := $(TOOLS)/nfpm-$(NFPM_VERSION)

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
COMMIT  ?= $(shell git rev-parse --short=12 HEAD 2>/dev/null)
LDFLAGS := -s -w -X github.com/meshtalk/meshtalk/server.Version=$(VERSION) -X main.commit=$(COMMIT)

# What npm installs stands in node_modules/ at the root, for all packages, as package-lock.json says.
NODE_MODULES := node_modules/.package-lock.json

# Static binaries, and one build of every dependency for all that follows; the race detector alone needs cgo.
export CGO_ENABLED := 0

# The black-box tests stand in e2e/ and run once, without the race detector's slow-down.
PACKAGES = $(shell $(GO) list ./... | grep -v '/e2e')

# The tests of a full disk mount a small one: as root, or as root of a user namespace.
AS_ROOT := $(shell [ "$$(id -u)" = 0 ] || echo unshare --user --map-root-user --mount)

# A number of inputs: with a duration the last ones may fail by its end (context deadline exceeded) on a busy machine.
FUZZTIME     ?= 5000x
BENCHTIME    ?= 300ms
# Packages with Go benchmarks worth a look; the store's size on disk is measured apart, with more messages.
BENCHED      ?= ./codec ./engine ./hub
TEST_TIMEOUT ?= 15m
# Packages under test at once: more than cores, for those with services wait for them most of the time.
TEST_PACKAGES ?= 3
E2E_TIMEOUT  ?= 30m

.PHONY: run demo cluster chaos build test race fuzz bench baseline lint check e2e docs examples ts web browser fmt vet imports prometheus dist packages reproducible tools clean help
.NOTPARALLEL:
.DEFAULT_GOAL := help

help: ## this list
	@grep -hE '^[a-z0-9]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9]+):.*## (.*)/  \1\t\2/' | expand -t 14

run: build ## build and start a server on the default ports, data in ./data
	$(BIN)/meshtalk serve

demo: build ## build and start a server with a chat in the browser, http://127.0.0.1:8080/demo
	$(BIN)/meshtalk serve --demo.enable

build: ## static binaries into bin/
	$(GO) build -ldflags '$(LDFLAGS)' -o $(BIN)/ ./cmd/...

test: ## all tests but those of e2e/
	$(GO) test -timeout $(TEST_TIMEOUT) $(PACKAGES)

race: ## the same with the race detector, and without it what it would falsify
	CGO_ENABLED=1 $(GO) test -race -p $(TEST_PACKAGES) -timeout $(TEST_TIMEOUT) $(PACKAGES)
	$(GO) test -count=1 -run Memory ./bench

cluster: build ## three nodes on Redis, PostgreSQL and RocketMQ, until Ctrl-C
	scripts/cluster.sh

chaos: ## the faults of a cluster, many times each (some 12 minutes)
	MESHTALK_CHAOS=1 $(GO) test -count=1 -timeout 3h -v -run '^TestCluster' ./e2e

e2e: ## black-box tests of a server in a process of its own: kill -9, full disk, no descriptors left
	$(AS_ROOT) $(GO) test -count=1 -timeout $(E2E_TIMEOUT) ./e2e

docs: build $(NODE_MODULES) ## every command of README.md and docs/getting-started.md, and the code of all documents
	$(GO) test -count=1 -timeout $(TEST_TIMEOUT) ./e2e/docs

examples: ## build the example programs, and run them by their tests
	$(GO) build -o $(BIN)/examples/ ./examples/...
	$(GO) test -count=1 -timeout 2m ./examples/...

prometheus: ## alerts and dashboards against a running server, with Prometheus' own parser (a module of its own)
	cd deploy/prometheus/check && $(GO) vet ./... && $(GO) test -count=1 -timeout $(TEST_TIMEOUT) ./...

dist: $(NFPM) ## release archives, Debian packages, Helm chart and checksums into dist/
	VERSION=$(VERSION) COMMIT=$(COMMIT) NFPM=$(NFPM) scripts/dist.sh

# The chart's and the packages' tests are a module of their own, for what they need of Kubernetes.
PACKAGE_TESTS = cd deploy/check && HELM=$(HELM) NFPM=$(NFPM) MESHTALK=$(CURDIR)/$(BIN)/meshtalk $(GO) test -count=1 -timeout $(TEST_TIMEOUT)

packages: build $(HELM) $(NFPM) ## chart, Debian package and archives of this architecture, built, looked at, installed and run
	cd deploy/check && $(GO) vet ./...
	$(PACKAGE_TESTS) ./...

reproducible: $(HELM) $(NFPM) ## `make dist` for all architectures twice, each with a cache of its own: the same bytes (minutes)
	MESHTALK_DIST=all $(PACKAGE_TESTS) -run TestReproducible -v ./...

$(NODE_MODULES): package-lock.json
	npm ci --no-audit --no-fund

ts: $(NODE_MODULES) ## the TypeScript packages: types, build, unit tests
	npm run check --workspaces
	npm run build --workspaces --if-present
	npm test -w clients/typescript -w examples/webchat

web: $(NODE_MODULES) ## build the page of the demo from examples/webchat into demo/web, which is committed (node)
	npm run build -w examples/webchat

browser: build $(NODE_MODULES) ## tests in a real Chromium against bin/meshtalk (node, chromium)
	npm test -w e2e/browser

fuzz: ## every fuzz target for FUZZTIME
	@set -e; for f in $$(grep -rlE '^func Fuzz[A-Z]' --include='*_test.go' .); do \
		for target in $$(sed -nE 's/^func (Fuzz[A-Za-z0-9_]+)\(.*/\1/p' $$f); do \
			echo "fuzz $$(dirname $$f) $$target"; \
			$(GO) test -run='^$$' -fuzz="^$$target\$$" -fuzztime=$(FUZZTIME) $$(dirname $$f); \
		done; \
	done

bench: build ## a short run of all numbers, bench/results/*.json and the table of docs/benchmarks.md; 10 minutes
	mkdir -p bench/results
	$(GO) test -run='^$$' -bench=. -benchmem -benchtime=$(BENCHTIME) $(BENCHED) | tee bench/results/go.txt
	$(GO) test -run='^$$' -bench='Commit/pairs=100|Size' -benchtime=300000x ./store/pebble | tee -a bench/results/go.txt
	$(BIN)/meshbench suite --out bench/results --table docs/benchmarks.md

baseline: build ## this server beside one with a goroutine per connection, under the same load
	$(BIN)/meshbench baseline

lint: $(LINT) ## golangci-lint, .golangci.yml
	$(LINT) run --allow-parallel-runners ./...

fmt: ## fails if a file is not as gofmt writes it
	@files=$$(gofmt -l $$(git ls-files -co --exclude-standard '*.go')); \
	if [ -n "$$files" ]; then echo "not formatted (run gofmt -w):"; echo "$$files"; exit 1; fi

vet: ## go vet
	$(GO) vet ./...

imports: ## who may import whom, and what the documents say of the code
	$(GO) test ./internal/lint/...

tools: $(LINT) $(HELM) $(NFPM) ## installs what `check` needs beside Go into bin/tools

$(LINT):
	GOBIN=$(TOOLS) GOFLAGS= $(GO) install -ldflags '-s -w' github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VERSION)
	mv $(TOOLS)/golangci-lint $@

$(HELM):
	GOBIN=$(TOOLS) GOFLAGS= $(GO) install -ldflags '-s -w' helm.sh/helm/v3/cmd/helm@$(HELM_VERSION)
	mv $(TOOLS)/helm $@

$(NFPM):
	GOBIN=$(TOOLS) GOFLAGS= $(GO) install -ldflags '-s -w' github.com/goreleaser/nfpm/v2/cmd/nfpm@$(NFPM_VERSION)
	mv $(TOOLS)/nfpm $@

check: fmt imports build vet lint ts race examples docs prometheus packages fuzz e2e browser ## everything that CI runs, the cheap first
	@echo "check: all passed"

clean: ## removes bin/ and dist/; ./data is yours
	rm -rf $(BIN) dist
