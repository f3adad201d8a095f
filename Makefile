# Everything here runs with Go, make and git; what else a target needs, it builds into .cache/ or names.

BIN     := .cache/bin
VERSION := $(patsubst v%,%,$(shell git describe --tags --always --abbrev=12 --dirty 2>/dev/null || echo dev))
LDFLAGS := -s -w -X main.version=$(VERSION)
# What is released is the same, bit for bit, from the same commit with the same version of Go.
RELEASE  = CGO_ENABLED=0 GOOS=linux GOAMD64=v1 GOARM64=v8.0 go build -trimpath -buildvcs=$(STAMP) -ldflags '$(LDFLAGS)'
# The commit is in it, where git tells it.
STAMP   := $(shell git status --porcelain >/dev/null 2>&1 && echo true || echo false)
ARCHES  := amd64 arm64
DIST    := .cache/dist/$(VERSION)
# The time of everything in a release.
COMMITTED := $(shell git log -1 --format=%ct 2>/dev/null || echo 0)
# The race detector needs a C compiler.
RACE    := $(if $(shell command -v $$(go env CC) 2>/dev/null),-race)
E2E      = go test -tags e2e -count=1 -v $(RACE)

# Servers are built once for each state of their module.
SERVERS := $(BIN)/loki $(BIN)/etcd $(BIN)/kube-apiserver $(BIN)/kubectl

.PHONY: help build demo test fuzz crash faults caps containers e2e manifests chart lint bench microbench image image-check \
	packages units release clean FORCE

help: ## This list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

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

crash: build ## 50 SIGKILLs under load, memory at first start, 100,000 users, wrong usage, prepare, sandbox, replay: the real binary, no Loki needed
	$(E2E) -timeout 20m -run 'Crash|Memory|Users|Usage|Prepare|Sandbox|Stop|Replay' ./hack/e2e

faults: build ## Everything that can go wrong, one at a time, and a table of what was lost; RUN='regexp' for some
	go test -C hack/faults -tags e2e -count=1 $(RACE) -timeout 20m -parallel 6 -run 'TestFaults/$(RUN)'

# Without the race detector: the test would take the processor time that it measures.
CAPS_GB ?= 1
caps: image ## The image within limits of memory and CPU, a backlog and a slow Loki; needs Docker; CAPS_GB=10 for a backlog of 10 GB
	go build -o $(BIN)/ ./hack/bench/sink
	AUDITFERRY_CAPS_GB=$(CAPS_GB) go test -tags e2e -count=1 -v -timeout 6h -run Caps ./hack/e2e

containers: image $(SERVERS) $(BIN)/kubeadm ## The audit policy, the image with the rights of the manifests, the sidecar; needs Docker, as root
	CGO_ENABLED=0 go build -o $(BIN)/ ./hack/e2e/probe
	$(E2E) -timeout 20m -run 'Policy|Image|Sidecar' ./hack/e2e

e2e: build $(SERVERS) ## Real Loki, etcd and kube-apiserver (the first build takes about twenty minutes)
	$(E2E) -timeout 30m -run 'Corpus|Cluster|Checker|Limit|Letters|Destinations|Flood' ./hack/e2e

manifests: build $(BIN)/etcd $(BIN)/kube-apiserver $(BIN)/kubeadm $(BIN)/kubectl ## Everything in manifests/ against a real kube-apiserver, as a dry run and for real
	$(E2E) -timeout 20m -run Manifests ./hack/e2e

chart: build $(BIN)/helm $(BIN)/etcd $(BIN)/kube-apiserver $(BIN)/kubectl ## Helm chart: lint, schema, golden outputs; UPDATE=1 to write them anew
	go test -tags e2e -count=1 $(RACE) ./hack/chart $(if $(UPDATE),-update)

lint: $(BIN)/golangci-lint ## go vet and golangci-lint
	go vet -tags e2e ./...
	$(BIN)/golangci-lint run --build-tags e2e ./...
	cd hack/image && ../../$(BIN)/golangci-lint run -c ../../.golangci.yml ./...

bench: build ## CPU, memory and latency of the agent beside the floor, in one run of about five minutes; BENCH='-only=mixed -runs=3'
	@go build -o $(BIN)/ ./hack/bench ./hack/bench/floor ./hack/bench/sink
	@$(BIN)/bench -bin $(BIN) $(BENCH)

microbench: ## Benchmarks of the hot path by package
	go test -run '^$$' -bench . -benchmem ./agent ./agent/audit ./tailer ./shipper ./positions

image: .cache/image/$(shell go env GOARCH) $(BIN)/image ## The container image, auditferry:VERSION and auditferry:latest, from scratch, as the Dockerfile says; needs Docker
	$(BIN)/image -version $(VERSION) -docker .cache/image/docker.tar $<
	docker load -q -i .cache/image/docker.tar

image-check: ## Build the release of HEAD twice, in clones of their own, and compare
	hack/image/check.sh

# The context of the image for an architecture. A state directory for any user, see the Dockerfile.
.cache/image/%: FORCE
	rm -rf $@ && install -d -m 755 $@ $@/var $@/var/lib && install -d -m 1777 $@/var/lib/auditferry
	GOARCH=$* $(RELEASE) -o $@/auditferry ./agent

release: packages $(foreach arch,$(ARCHES),$(DIST)/auditferry_$(VERSION)_linux_$(arch).tar.gz) $(DIST)/auditferry_$(VERSION)_image.oci.tar ## Binaries, packages, image, SBOMs and checksums, into .cache/dist/VERSION
	cp .cache/dist/*.deb .cache/dist/*.rpm $(DIST)/
	cd $(DIST) && rm -f SHA256SUMS && sha256sum * > SHA256SUMS && cat SHA256SUMS

$(DIST)/auditferry_$(VERSION)_linux_%.tar.gz: .cache/image/% $(BIN)/cyclonedx-gomod FORCE
	mkdir -p $(DIST)
	$(BIN)/cyclonedx-gomod bin -json -std -noserial -notimestamp -version $(VERSION) -output $(@:.tar.gz=.cdx.json) $</auditferry
	tar --format=ustar --sort=name --mtime=@$(COMMITTED) --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX \
		--transform 's,^,auditferry_$(VERSION)_linux_$*/,' -cf - -C $(CURDIR) LICENSE README.md -C $(CURDIR)/$< auditferry | gzip -n9 > $@

$(DIST)/auditferry_$(VERSION)_image.oci.tar: $(foreach arch,$(ARCHES),.cache/image/$(arch)) $(BIN)/image FORCE
	mkdir -p $(DIST)
	$(BIN)/image -version $(VERSION) -oci $@ $(foreach arch,$(ARCHES),.cache/image/$(arch))

packages: $(BIN)/nfpm $(foreach arch,$(ARCHES),.cache/image/$(arch)) ## .deb and .rpm for amd64 and arm64, with the systemd unit, in .cache/dist
	@mkdir -p .cache/dist && rm -f .cache/dist/auditferry*.deb .cache/dist/auditferry*.rpm
	@for arch in $(ARCHES); do for format in deb rpm; do \
		ARCH=$$arch BINARY=.cache/image/$$arch/auditferry VERSION=$$(manifests/packages/version.sh $(VERSION)) SOURCE_DATE_EPOCH=$(COMMITTED) \
			$(BIN)/nfpm package -f manifests/packages/nfpm.yaml -p $$format -t .cache/dist/ || exit 1; \
	done; done

units: packages .cache/systemd.tar ## The unit and the packages under a systemd of their own, in Docker, which it needs
	$(E2E) -timeout 20m ./hack/packages

clean: ## Delete what was built
	rm -rf .cache

$(BIN)/loki: hack/loki/go.mod hack/loki/go.sum
	cd hack/loki && CGO_ENABLED=0 go build -o ../../$@ github.com/grafana/loki/v3/cmd/loki

$(BIN)/etcd: hack/kubernetes/go.mod hack/kubernetes/go.sum
	cd hack/kubernetes && CGO_ENABLED=0 go build -o ../../$@ go.etcd.io/etcd/server/v3

$(BIN)/kube-apiserver $(BIN)/kubeadm $(BIN)/kubectl: hack/kubernetes/go.mod hack/kubernetes/go.sum
	cd hack/kubernetes && CGO_ENABLED=0 go build -o ../../$@ k8s.io/kubernetes/cmd/$(@F)

$(BIN)/helm: hack/helm/go.mod hack/helm/go.sum
	cd hack/helm && CGO_ENABLED=0 go build -o ../../$@ helm.sh/helm/v3/cmd/helm

$(BIN)/image: hack/image/go.mod hack/image/go.sum $(wildcard hack/image/*.go)
	cd hack/image && CGO_ENABLED=0 go build -trimpath -buildvcs=false -o ../../$@ .

# An SBOM holds the hash of the program that made it.
$(BIN)/cyclonedx-gomod: hack/sbom/go.mod hack/sbom/go.sum
	cd hack/sbom && CGO_ENABLED=0 go build -trimpath -buildvcs=false -o ../../$@ github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod

$(BIN)/golangci-lint: hack/lint/go.mod hack/lint/go.sum
	cd hack/lint && CGO_ENABLED=0 go build -o ../../$@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint

$(BIN)/nfpm: hack/nfpm/go.mod hack/nfpm/go.sum
	cd hack/nfpm && CGO_ENABLED=0 go build -o ../../$@ github.com/goreleaser/nfpm/v2/cmd/nfpm

# Debian with systemd, from Debian's packages; rpm to try that package too.
.cache/systemd.tar:
	mkdir -p .cache && mmdebstrap --format=tar --variant=minbase --include=systemd-sysv,dbus,rpm bookworm $@.part && mv $@.part $@
