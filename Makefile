# Everything is done per module by pattern rules: "make unit/driver" tests one,
# "make unit" all. "make help" lists the targets.

SHELL       := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS   += --no-builtin-rules --no-print-directory

# The modules of go.work, in the order in which they need one another.
MODULES   := proto internal providers/sdk providers/aws providers/azure providers/file providers/gcp providers/vault gateway driver release test
PROVIDERS := aws azure file gcp vault
DAEMONS   := driver gateway $(PROVIDERS:%=provider-%)

VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
BUILD    := github.com/postern-dev/postern/internal/daemon
LDFLAGS  := -s -w -X $(BUILD).version=$(VERSION)
# grpcnotrace leaves out golang.org/x/net/trace, whose templates keep the linker
# from dropping unused methods: a fifth of each binary, and of its memory.
TAGS     := grpcnotrace
GOTEST   ?= go test
# How long one module's tests may take.
TIMEOUT  ?= 20m

TOOLS    := $(CURDIR)/.tools
DIST     := $(CURDIR)/dist
# say prints a heading, so that a long run tells where it is.
say = printf '\n\033[1m== %s\033[0m (%(%T)T)\n' "$(1)" -1

.PHONY: help
help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z%\/-]+:.*## / { printf "  %-22s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  modules: $(MODULES)"

##@ Build

.PHONY: build
build: $(DAEMONS:%=build/%) ## Build the daemons into dist/.

.PHONY: build/%
build/%: ## Build one daemon: build/driver, build/provider-vault.
	@echo "building dist/postern-$*"
	@cd $(patsubst provider-%,providers/%,$*) && CGO_ENABLED=0 go build -trimpath -tags '$(TAGS)' -ldflags '$(LDFLAGS)' -o $(DIST)/postern-$* ./cmd/postern-$*

# Images need neither a container engine nor a registry. IMAGES=postern-driver
# takes one, PLATFORM=linux/amd64 builds for one platform.
RELEASE     = cd release && go run ./cmd/postern-release
IMAGE_FLAGS = $(if $(PLATFORM),--platform $(PLATFORM))

.PHONY: images
images: ## Build the images into dist/images/, for all platforms.
	@$(RELEASE) images $(IMAGE_FLAGS) $(IMAGES)

.PHONY: push
push: ## Build the images and push them: push REPOSITORY=registry.example.com/postern.
	@$(RELEASE) push --repository '$(REPOSITORY)' $(IMAGE_FLAGS) $(IMAGES)

.PHONY: release-check
release-check: ## Say what a release would tag and publish, and what does not fit together.
	@$(RELEASE) check

.PHONY: demo
demo: ## Mount a secret without a cluster, and show its trace (root, 2 minutes).
	@cd test && go run ./cmd/postern-demo

.PHONY: demo-vault
demo-vault: ## The same with a real API server and a real OpenBao.
	@cd test && go run ./cmd/postern-demo --vault

.PHONY: demo-cluster
demo-cluster: packages ## The same with Helm and pods in a real cluster of one node; KEEP=1 leaves it up.
	@cd test && go run ./cmd/postern-demo --cluster $(if $(KEEP),--keep)

##@ Cluster

# None of them is started as a service: tests start what they need.
.PHONY: packages
packages: ## Install the Debian packages that a cluster and the tests need (root).
	@missing=$$(cd test && go run ./cmd/postern-cluster packages); \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then \
		echo "packages: no root or no apt-get: what runs in a cluster needs these:" $$missing >&2; exit 0; \
	fi; \
	echo "packages: installing" $$missing; \
	log=$$(mktemp); policy=/usr/sbin/policy-rc.d; \
	if [ ! -e $$policy ]; then trap "rm -f $$policy" EXIT; printf '#!/bin/sh\nexit 101\n' >$$policy; chmod +x $$policy; fi; \
	{ apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $$missing; } >$$log 2>&1 || \
		{ cat $$log >&2; exit 1; }; \
	rm $$log

.PHONY: cluster-up
cluster-up: packages ## Start a Kubernetes cluster of one node on this machine (root).
	@cd test && go run ./cmd/postern-cluster up

.PHONY: cluster-down
cluster-down: ## End it; nothing of it is left.
	@cd test && go run ./cmd/postern-cluster down

.PHONY: cluster-shell
cluster-shell: ## A shell on its node, where kubectl works.
	@cd test && go run ./cmd/postern-cluster shell

.PHONY: cluster-status
cluster-status: ## Say how its components, its node and its pods are.
	@cd test && go run ./cmd/postern-cluster status

##@ Test

.PHONY: test
test: ## Everything that CI runs: checks, unit tests, end-to-end tests, lint.
	@$(MAKE) packages proto-lint check-generated standalone windows servers unit pods lint
	@$(call say,all tests passed)
	@git rev-parse -q --verify HEAD~1 >/dev/null || echo 'SKIPPED: nothing is known of how this version works with the one before: this clone has no history'

.PHONY: unit
unit: $(MODULES:%=unit/%) ## Run the tests of all modules, with the race detector.

# These tests run programs of the tree, which go's cache of results knows nothing of:
# the daemons, and the doubles of AWS, Azure and Google Cloud.
.PHONY: unit/%
unit/%: ## Run one module's tests: unit/gateway.
	@$(call say,tests of $*)
	@paths=$$(cd test && go run ./cmd/postern-build --print); \
	for server in bao kube aws azure gcp minio; do \
		export "POSTERN_TEST_$${server^^}=$$(sed -n "s/^$$server=//p" <<<"$$paths")"; \
	done; \
	cd $* && $(GOTEST) -race -timeout $(TIMEOUT) $(if $(filter test providers/aws providers/azure providers/gcp,$*),-count=1) $$(go list ./... | grep -v $(PODS:%=-e '/%$$'))

# Each of these has a whole cluster, so they run one after the other and with
# nothing beside them.
PODS := test/cluster test/e2e/pods

.PHONY: pods
pods: packages ## Run the tests with real pods in a cluster of one node (root).
	@$(call say,tests with pods in a cluster)
	@cd test && $(GOTEST) -v -timeout $(TIMEOUT) -count=1 -p 1 $(PODS:test/%=./%)

.PHONY: standalone
standalone: $(MODULES:%=standalone/%) ## Build and vet each module by itself, as its users do.

.PHONY: standalone/%
standalone/%:
	@$(call say,$* without the workspace)
	@cd $* && GOWORK=off go build ./... && GOWORK=off go vet ./... && GOWORK=off go mod verify >/dev/null

.PHONY: windows
windows: ## Build for Windows what runs there.
	@for m in internal driver; do (cd $$m && GOOS=windows CGO_ENABLED=0 go build ./...); done

.PHONY: bench
bench: ## Measure against the upstream driver, side by side, and write docs/benchmarks.md (root).
	@cd test && go run ./cmd/postern-bench

.PHONY: chaos
chaos: ## Mount for DURATION (10m) while daemons are killed at random, and look for leaks (root).
	@cd test && go run ./cmd/postern-chaos --duration $(or $(DURATION),10m) $(if $(SEED),--seed $(SEED))

.PHONY: microbench
microbench: ## Run the benchmarks of the packages.
	@for m in $(MODULES); do (cd $$m && go test -run '^$$' -bench . -benchmem ./...) | grep -v 'no test files' || exit 1; done

.PHONY: servers
servers: ## Build the servers that tests run against; they are kept in ~/.cache/postern.
	@$(call say,servers to test against)
	@cd test && go run ./cmd/postern-build

##@ Check and fix

.PHONY: lint
lint: $(MODULES:%=lint/%) ## Run golangci-lint on all modules.

.PHONY: lint/%
lint/%: $(TOOLS)/golangci-lint
	@$(call say,lint of $*)
	@cd $* && $(TOOLS)/golangci-lint run --config $(CURDIR)/.golangci.yml ./...

.PHONY: check
check: proto-lint check-generated standalone windows lint ## All checks that are not tests.

.PHONY: fix
fix: $(TOOLS)/golangci-lint $(TOOLS)/buf ## Format, tidy and fix what can be.
	@$(TOOLS)/buf format -w
	@for m in $(MODULES); do (cd $$m && GOWORK=off go mod tidy && $(TOOLS)/golangci-lint fmt --config $(CURDIR)/.golangci.yml && \
		$(TOOLS)/golangci-lint run --fix --config $(CURDIR)/.golangci.yml ./... || true); done

.PHONY: generate
generate: generate-proto generate-crds ## Generate all code and manifests.

.PHONY: generate-proto
generate-proto: $(TOOLS)/buf $(TOOLS)/protoc-gen-go $(TOOLS)/protoc-gen-go-grpc
	@PATH=$(TOOLS):$$PATH buf generate

.PHONY: generate-crds
generate-crds: $(TOOLS)/controller-gen
	@cd driver && $(TOOLS)/controller-gen object paths=./api/v1/... paths=./api/v1alpha1/... crd:crdVersions=v1 output:crd:dir=api/crds

.PHONY: generate-charts
generate-charts: ## READMEs and schemas of the charts, and their copies of the custom resources.
	@cd test && go test ./charts -run 'TestGenerated|TestCRDFiles' -count=1 -update

.PHONY: deploy
deploy: generate-charts ## Render the plain manifests in deploy/ from the charts.
	@cd test && go test ./charts -run TestDeploy -count=1 -update

.PHONY: check-generated
check-generated: ## Fail if "make generate" changes anything.
	@$(call say,generated code is current)
	@sums() { find proto/gen driver/api -type f | LC_ALL=C sort | xargs sha256sum; }; \
	before=$$(sums); $(MAKE) generate; \
	diff <(echo "$$before") <(sums) >&2 || { echo 'generated code was not current: it is now, commit it' >&2; exit 1; }

.PHONY: proto-lint
proto-lint: $(TOOLS)/buf ## Check the contracts: style, format, breaking changes.
	@$(call say,contracts)
	@$(TOOLS)/buf lint
	@$(TOOLS)/buf format -d --exit-code
	@$(TOOLS)/buf breaking --against proto/baseline.binpb

.PHONY: proto-baseline
proto-baseline: $(TOOLS)/buf ## Make the contracts as they are what breaking changes are measured against (at a release).
	@$(TOOLS)/buf build --exclude-source-info --as-file-descriptor-set -o proto/baseline.binpb

##@ Tools

# Each tool's version is pinned in tools/go.mod, out of the workspace: what
# tools need never meets what is shipped.
TOOL_PACKAGES := \
	github.com/bufbuild/buf/cmd/buf \
	github.com/golangci/golangci-lint/v2/cmd/golangci-lint \
	google.golang.org/grpc/cmd/protoc-gen-go-grpc \
	google.golang.org/protobuf/cmd/protoc-gen-go \
	sigs.k8s.io/controller-tools/cmd/controller-gen

.PHONY: tools
tools: $(foreach t,$(TOOL_PACKAGES),$(TOOLS)/$(notdir $t)) ## Build the pinned tools into .tools/.

$(TOOLS)/%: tools/go.mod tools/go.sum
	@echo "building $(notdir $@) (once; up to 3 minutes)"
	@cd tools && GOWORK=off go build -o $@ $(filter %/$*,$(TOOL_PACKAGES))
	@touch $@

.PHONY: clean
clean: ## Remove what was built in this folder.
	@rm -rf $(TOOLS) $(DIST)
