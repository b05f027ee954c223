# Two commands do everything: `make run` and `make test`. `make help` lists the rest.

GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION)
MODULES := . test/interop
TOOL    := $(GO) tool -modfile=tools.mod

# The toolchain of go.mod, also where the environment says GOTOOLCHAIN=local, by which the
# go command would ignore it: an older one builds known holes into the binary.
export GOTOOLCHAIN := $(shell awk '$$1 == "toolchain" { print $$2 }' go.mod)

# Checks and tests need no DWARF, which is an eighth of the compiler's work. The checks see the
# code with the flags of its tests, which scripts/test.sh explains, and so do those of
# test/interop, so that nothing is compiled or looked through twice; the tools themselves have
# no race detector. Two fifths of what staticcheck did was to collect garbage.
PLAIN := $(shell cat .ci/goflags)
RACED := $(shell cat .ci/goflags.race)
vet lint vuln: export GOGC = 400

.PHONY: help run cluster build build-hsm sbom image image-hsm test soak ci fmt vet lint vuln tidy docs docs-check bench bench-cluster tools clean

help: ## What there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

run: build ## Build, and serve on http://127.0.0.1:8080 with SQLite in ./data
	@./bin/watchword serve

cluster: build tools ## PostgreSQL, Redis, three replicas and a load balancer on this machine, to play with
	@$(GO) build -o bin/up ./test/cluster/cmd/up
	@./bin/up bin/watchword

# Neither the directory nor the state of the checkout is in a binary, so that everybody builds the
# same one of a commit (docs/deployment/docker.md). Without a C library it runs on any Linux.
RELEASE := -trimpath -buildvcs=false -ldflags '$(LDFLAGS)'

build: ## Build bin/watchword
	@mkdir -p bin
	CGO_ENABLED=0 $(GO) build $(RELEASE) -o bin/watchword ./cmd/watchword

build-hsm: ## Build bin/watchword with support for HSMs (PKCS #11); needs a C compiler
	@mkdir -p bin
	CGO_ENABLED=1 $(GO) build -tags pkcs11 $(RELEASE) -o bin/watchword ./cmd/watchword

sbom: ## The bill of materials of bin/watchword, which must be there: bin/watchword.cdx.json
	@GOOS= GOARCH= $(GO) run ./deploy/sbom bin/watchword $(VERSION) >bin/watchword.cdx.json

DOCKER  ?= docker
IMAGE   ?= watchword
COMMIT   = $(shell git log -1 --format=%ct)

image: ## The container image watchword:latest, and of the version; DOCKER=podman, IMAGE=NAME
	$(DOCKER) build -f deploy/docker/Dockerfile --build-arg VERSION=$(VERSION) --build-arg SOURCE_DATE_EPOCH=$(COMMIT) -t $(IMAGE):$(VERSION) -t $(IMAGE):latest .

image-hsm: ## The same with support for HSMs: watchword:hsm
	$(DOCKER) build -f deploy/docker/Dockerfile --target hsm --build-arg VERSION=$(VERSION) --build-arg SOURCE_DATE_EPOCH=$(COMMIT) -t $(IMAGE):$(VERSION)-hsm -t $(IMAGE):hsm .

test: tools ## Every test; those that start no processes with the race detector
	@GO="$(GO)" MODULES="$(MODULES)" scripts/test.sh

soak: tools ## The long forms: random, loaded, all with the race detector, and fuzzing; 20 minutes
	@WATCHWORD_SOAK=1 GO="$(GO)" MODULES="$(MODULES)" scripts/test.sh
	@GO="$(GO)" scripts/fuzz.sh 30

# What downloads, or uses one processor, runs beside something else. Beside tests runs only what
# takes no time from them (scripts/test.sh).
ci: export BOUNDS = 1
ci: export BESIDE = $(MAKE) --no-print-directory -j2 -Otarget lint vuln
ci: fmt ## What every change must pass, within 15 minutes on two cores
	@$(MAKE) --no-print-directory -j2 -Otarget vet tools
	@$(MAKE) --no-print-directory -j2 -Otarget tidy docs-check
	@$(MAKE) --no-print-directory test

fmt: ## Fail if a file is not formatted
	@files=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$files" || { echo "not formatted (gofmt -w):"; echo "$$files"; exit 1; }

vet: ## go vet
	@for m in $(MODULES); do (cd $$m && GOFLAGS="$(RACED)" $(GO) vet ./...) || exit 1; done
	@cd test/transit && GOFLAGS="$(PLAIN)" $(GO) vet ./...

lint: ## staticcheck
	@tool=$$(GOFLAGS="$(PLAIN)" $(TOOL) -n staticcheck) && \
		for m in $(MODULES); do (cd $$m && GOFLAGS="$(RACED)" $$tool ./...) || exit 1; done

vuln: ## Fail if a known vulnerability can be reached; the list of them is a module in tools.mod
	@$(GO) mod download -modfile=tools.mod golang.org/x/vulndb
	@tool=$$(GOFLAGS="$(PLAIN)" $(TOOL) -n govulncheck) && GOFLAGS="$(RACED)" $$tool -db "file://$$($(GO) list -m -modfile=tools.mod -f '{{.Dir}}' golang.org/x/vulndb)/data/osv" ./...

tidy: ## Fail if go.mod does not say what is used
	@for m in $(MODULES); do (cd $$m && $(GO) mod tidy -diff) || exit 1; done

docs: ## Write what is generated from the code
	@GOFLAGS="$(RACED)" $(GO) generate ./...

docs-check: docs ## Fail if what is generated is stale
	@git diff --exit-code --stat -- docs '*_templ.go' || { echo "stale documents or templates: run make docs and commit"; exit 1; }

bench: tools ## Every table of docs/benchmarks.md by its command, into bin/benchmarks; ONLY=WORD: commands with it
	@PATH="$(CURDIR)/bin/node/node_modules/.bin:$$PATH" $(GO) run ./test/bench/cmd/tables docs/benchmarks.md $(ONLY)

# All load comes from one address and few users, whom the defaults would refuse.
bench-cluster: export WATCHWORD_LIMITS_LOGIN_PER_ADDRESS = off
bench-cluster: export WATCHWORD_LIMITS_LOGIN_PER_ACCOUNT = off
bench-cluster: export WATCHWORD_SERVER_MAX_REQUESTS_PER_ADDRESS = 4096
bench-cluster: build tools ## watchword bench on PostgreSQL, Redis and three replicas of this machine; BENCH=FLAGS
	@$(GO) build -o bin/up ./test/cluster/cmd/up
	@./bin/up bin/watchword bench --admin admin $(BENCH)

tools: ## Install the distribution's packages that the tests need, if they are missing
	@scripts/tools.sh

clean: ## Remove what was built; data/ stays
	rm -rf bin
