# Everything here runs with Go, make and git; what else a target needs, it builds into .cache/ or names.

BIN     := .cache/bin
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X main.version=$(VERSION)
# The race detector needs a C compiler.
RACE    := $(if $(shell command -v $$(go env CC) 2>/dev/null),-race)
E2E      = go test -tags e2e -count=1 -v $(RACE)

# Servers are built once for each state of their module.
SERVERS := $(BIN)/loki $(BIN)/etcd $(BIN)/kube-apiserver $(BIN)/kubectl

.PHONY: help build demo test fuzz crash faults e2e lint bench image clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## The agent, static, as .cache/bin/auditferry
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/auditferry ./agent

demo: build ## Real events, rotated, shipped through a SIGKILL, read back; LOKI=http://... for your own Loki
	@go build -o $(BIN)/demo ./hack/demo
	@$(BIN)/demo $(if $(LOKI),-loki $(LOKI))

test: ## Unit tests, with the race detector where there is a C compiler
	go test $(RACE) ./...

FUZZTIME ?= 10m
fuzz: ## All fuzz targets, for 10 minutes together; FUZZTIME=8h for a night
	@hack/fuzz.sh $(FUZZTIME)

crash: build ## 50 SIGKILLs under load, memory at first start, wrong usage, replay: the real binary, no Loki needed
	$(E2E) -timeout 20m -run 'Crash|Memory|Usage|Stop|Replay' ./hack/e2e

faults: build ## Everything that can go wrong, one at a time, and a table of what was lost; RUN='regexp' for some
	go test -C hack/faults -tags e2e -count=1 $(RACE) -timeout 20m -parallel 6 -run 'TestFaults/$(RUN)'

e2e: build $(SERVERS) ## Real Loki, etcd and kube-apiserver (the first build takes about twenty minutes)
	$(E2E) -timeout 30m -run 'Corpus|Cluster|Checker|Limit|Letters' ./hack/e2e

lint: $(BIN)/golangci-lint ## go vet and golangci-lint
	go vet -tags e2e ./...
	$(BIN)/golangci-lint run --build-tags e2e ./...

bench: ## Benchmarks of the hot path, with the floor measured in the same run
	go test -run '^$$' -bench . -benchmem ./agent/audit ./tailer ./shipper

image: build ## The container image auditferry:VERSION, from scratch; needs Docker
	rm -rf .cache/image && mkdir -p .cache/image/var/lib/auditferry && chmod 1777 .cache/image/var/lib/auditferry && cp $(BIN)/auditferry .cache/image/
	docker build -t auditferry:$(VERSION) -t auditferry:latest -f Dockerfile .cache/image

clean: ## Delete what was built
	rm -rf .cache

$(BIN)/loki: hack/loki/go.mod hack/loki/go.sum
	cd hack/loki && CGO_ENABLED=0 go build -o ../../$@ github.com/grafana/loki/v3/cmd/loki

$(BIN)/etcd: hack/kubernetes/go.mod hack/kubernetes/go.sum
	cd hack/kubernetes && CGO_ENABLED=0 go build -o ../../$@ go.etcd.io/etcd/server/v3

$(BIN)/kube-apiserver $(BIN)/kubectl: hack/kubernetes/go.mod hack/kubernetes/go.sum
	cd hack/kubernetes && CGO_ENABLED=0 go build -o ../../$@ k8s.io/kubernetes/cmd/$(@F)

$(BIN)/golangci-lint: hack/lint/go.mod hack/lint/go.sum
	cd hack/lint && CGO_ENABLED=0 go build -o ../../$@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint
