# `make` alone prints what there is.

GO ?= go
FUZZTIME ?= 5s

# What root starts runs as an unprivileged user, who cannot enter a clone in root's home, for example.
ifeq ($(shell id -u),0)
ifneq ($(shell runuser -u nobody -- test -x '$(CURDIR)' 2>/dev/null && echo yes),yes)
DEMO_DIR ?= /var/tmp/docex-proxy-demo
endif
endif
DEMO_DIR ?= .demo

# A copy without its history, or one that belongs to another user, has no commit to stamp into the binaries.
ifneq ($(shell git rev-parse --verify HEAD >/dev/null 2>&1 && echo yes),yes)
export GOFLAGS += -buildvcs=false
endif

# What packages are called and dated by. Without a tag it is the commit.
VERSION ?= $(or $(shell git describe --tags --match 'v*' 2>/dev/null),$(shell git log -1 --date=format:%Y%m%d%H%M%S --format=v0.0.0-%cd-%h 2>/dev/null),v0.0.0)
ARCH ?= $(shell $(GO) env GOARCH)
export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null)
TOOL = $(GO) tool -modfile=tools/go.mod
GORELEASER = github.com/goreleaser/goreleaser/v2@v2.15.1

.DEFAULT_GOAL := help
.PHONY: help build demo test vet format-check unit e2e browser isolation churn compat docex fuzz faults fleet moves sim bench gobench lint fmt cover promtool cross man sbom deb deb-check release-check snapshot up down clean

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## Build bin/docex-proxy and bin/docexctl
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/ ./cmd/docex-proxy ./cmd/docexctl

demo: build ## Run a private Postgres, two tenants and the proxy; prints psql lines to paste
	@scripts/deps.sh demo
	bin/docex-proxy dev --data-dir $(DEMO_DIR)

test: ## Everything that has to pass: vet, format, unit, end to end, short fuzzing
	@scripts/deps.sh test
	$(MAKE) --no-print-directory vet format-check unit e2e fuzz

vet: ## Report suspicious code
	$(GO) vet ./...

format-check: ## Fail when a Go file is not as gofmt writes it
	@files=$$(gofmt -l $$($(GO) list -f '{{.Dir}}' ./...)); test -z "$$files" || { echo "not formatted, run make fmt:" $$files; exit 1; }

unit: ## Test all packages but the end to end suite, with the race detector; docexctl's many short processes mostly without
	$(GO) test -race -timeout 20m $$($(GO) list ./... | grep -v -e '/e2e$$' -e '/e2e/browser$$' -e '/cmd/docexctl$$')
	$(GO) test -timeout 8m ./cmd/docexctl
	$(GO) test -race -timeout 5m -run 'TestScripts/bulk$$|TestRun' ./cmd/docexctl

isolation: ## Attack the built programs as a hostile tenant, level by level, and print the report
	$(GO) run ./e2e/isolation $(ISOLATION)

churn: ## Have sessions of 200 tenants end badly on 8 server connections, and search a million answers for another tenant's
	$(GO) run ./e2e/churn $(CHURN)

docex: ## Run DocEX itself, from a clone of it at DOCEX=DIR, with 50 tenants on 20 server connections
	$(GO) run ./e2e/docexapp -docex $(DOCEX)

compat: ## Run drivers' own test suites directly and through the proxy, and print what differs
	$(GO) run ./e2e/compat $(COMPAT)

e2e: ## Test the built programs as black boxes
	$(GO) test -race -count=1 -timeout 12m ./e2e/

browser: ## Test the status page in Chromium; PICTURES=DIR keeps what it looks like
	@scripts/deps.sh browser
	$(GO) test -count=1 -timeout 8m ./e2e/browser $(if $(PICTURES),-args -pictures '$(abspath $(PICTURES))')

fuzz: ## Run every fuzz target for FUZZTIME (5s)
	scripts/fuzz.sh $(FUZZTIME)

faults: ## Break what the proxy stands on while clients work, and say what they saw
	$(GO) run ./e2e/faults $(FAULTS)

fleet: ## Kill one of four proxies behind HAProxy every ten seconds while clients work
	@scripts/deps.sh fleet
	$(GO) run ./e2e/faults -fleet 4 -soak 5m -tenants 200 -clients 2 -pace 3s $(FAULTS)

moves: ## Move tenants to another server and back while their clients write
	$(GO) run ./e2e/faults -moves 50 $(FAULTS)

sim: ## Have 100 proxies serve a million tenants on 500 servers in simulated time, and print what it was like
	$(GO) run ./e2e/sim $(SIM)

bench: ## Measure the proxy beside PgBouncer and Postgres itself, in one run, and print the tables
	@scripts/deps.sh bench
	$(GO) run ./e2e/bench $(BENCH)

gobench: ## Run the Go benchmarks
	$(GO) test -run '^$$' -bench . -benchmem $$($(GO) list ./... | grep -v -e '/e2e$$' -e '/e2e/browser$$')

lint: ## Run golangci-lint, where it is installed
	@command -v golangci-lint >/dev/null || { echo "golangci-lint 2 is missing: https://golangci-lint.run says how to install it"; exit 1; }
	golangci-lint run

fmt: ## Format all Go files
	gofmt -w $$($(GO) list -f '{{.Dir}}' ./...)

cover: ## Write the unit tests' coverage to cover.out and print it by function
	$(GO) test -coverprofile cover.out $$($(GO) list ./... | grep -v -e '/e2e$$' -e '/e2e/browser$$')
	$(GO) tool cover -func cover.out

promtool: ## Check the configuration and the alert rules for Prometheus, and test the rules
	@scripts/deps.sh promtool
	promtool check config --syntax-only configs/prometheus.yml
	promtool check rules configs/prometheus-alerts.yml
	promtool test rules configs/prometheus-alerts-test.yml

cross: ## Build the programs for the other systems that they are meant for
	GOOS=darwin GOARCH=arm64 $(GO) build -o /dev/null ./cmd/...
	GOOS=windows GOARCH=amd64 $(GO) build -o /dev/null ./cmd/...

man: build ## Write manual pages and shells' completions to build/man and build/completions
	scripts/pages.sh

sbom: build ## Write what the programs are made of, with licences, to build/sbom
	scripts/sbom.sh build/sbom

deb: man sbom ## Build the Debian package, for this machine or ARCH=arm64, to build/
	GOOS=linux GOARCH=$(ARCH) CGO_ENABLED=0 $(GO) build -trimpath -o build/linux-$(ARCH)/ ./cmd/docex-proxy ./cmd/docexctl
	ARCH=$(ARCH) VERSION=$(VERSION) $(TOOL) nfpm package --config configs/deb/nfpm.yaml --packager deb --target build/

deb-check: deb ## Install the Debian package on this machine, try it, and purge it; needs root
	scripts/deb-check.sh build/docex-proxy_*_$(ARCH).deb

release-check: ## Check .goreleaser.yaml
	$(GO) run $(GORELEASER) check

snapshot: ## Build everything that a release has to dist/, and publish nothing
	$(GO) run $(GORELEASER) release --snapshot --clean

up: ## Run Postgres, proxy, Prometheus and Grafana in containers
	docker compose up --build --detach

down: ## Stop them and remove their data
	docker compose down --volumes

clean: ## Remove what was built, and the demo's data
	rm -rf bin build dist cover.out $(DEMO_DIR)
