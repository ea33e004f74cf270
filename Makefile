# fieldagent: everything that is built, tested or measured. `make` alone lists the targets.
# Figures on the command line: FAULTS=10000 BROKER=nats SEED=7 make campaign, FUZZTIME=1m make fuzz.

SHELL       := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS   += --no-print-directory

GO        ?= go
VERSION   ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS   := -s -w -buildid= -X main.version=$(VERSION)
TAGS      := nethttpomithttp2 # the local API is a Unix socket, the proxies are HTTP/1: saves 0.4 MB
# Not inlining where speed does not matter saves 0.6 MB; what handles events, and the cryptography itself, is left alone.
COLD      := archive/tar compress/... context crypto/ecdsa crypto/elliptic crypto/rsa crypto/tls crypto/x509 crypto/x509/pkix encoding/asn1 encoding/base64 encoding/hex encoding/json encoding/pem \
	fieldagent/agent/config fieldagent/cmd/... fieldagent/sensors/... fmt \
	github.com/spf13/... golang.org/x/net/... gopkg.in/yaml.v3 log/slog math/big mime mime/multipart net net/http net/mail net/textproto net/url os os/exec os/user path/filepath periph.io/... reflect regexp/syntax text/template text/template/parse \
	vendor/golang.org/x/...
BUILD     := $(GO) build $(COLD:%=-gcflags=%=-l) -tags '$(strip $(TAGS))' -trimpath -buildvcs=false -ldflags='$(LDFLAGS)'
TARGETS   := arm-6 arm-7 arm64 amd64 riscv64
SIZE_MAX  := 10000000

FAULTS    ?= 10000
BROKER    ?= mosquitto
MQTT      ?= 3.1.1
SEED      ?=
COMMANDS  ?= 1000
FUZZTIME  ?= 20s
STATES    ?= 100000
FLIPS     ?= 10000
COUNT     ?= 1
SOAK      ?= 1h

# program:package, and only what is missing is installed: a nodejs from elsewhere brings its own npm and excludes Debian's
PROGRAMS  := mosquitto:mosquitto mosquitto_sub:mosquitto-clients node:nodejs npm:npm qemu-arm-static:qemu-user-static qemu-aarch64-static:qemu-user-static strace:strace \
	mkfs.ext4:e2fsprogs losetup:mount systemd-analyze:systemd systemd-nspawn:systemd-container debootstrap:debootstrap lintian:lintian mandoc:mandoc

##@ Use

demo: ## broker, simulated board, agent and a live view in this terminal; nothing to install
	@cd integration && $(GO) run ./cmd/fieldagent-demo

OUT       ?= bin/fieldagent
build: ## bin/fieldagent for this machine
	@CGO_ENABLED=0 $(BUILD) -o $(OUT) ./cmd/fieldagent
	@echo "$(OUT) $(VERSION)"

cross: $(TARGETS:%=dist/fieldagent-linux-%) ## static binaries for every board, in dist/

dist/fieldagent-linux-%: FORCE
	@arch='$*'; CGO_ENABLED=0 GOOS=linux GOARCH="$${arch%-*}" GOARM="$$([[ $$arch == *-* ]] && echo "$${arch#*-}" || true)" \
		$(BUILD) -o $@ ./cmd/fieldagent
	@printf '%-34s %9d bytes\n' $@ "$$(stat -c %s $@)"

size: dist/fieldagent-linux-arm-6 ## the GOARM=6 binary must not be above 10 MB
	@n=$$(stat -c %s $<); if (( n > $(SIZE_MAX) )); then echo "$<: $$n bytes, limit $(SIZE_MAX)" >&2; exit 1; fi

##@ Check

check: fmt vet staticcheck tidy portable size race ## what every commit must pass
test: tools check integration ## all of it: installs what it needs, checks, then tests against real brokers (short form)

tools: ## install the programs the tests need (root), or print the line that does
	@missing= packages=; for p in $(PROGRAMS); do if ! PATH="$$PATH:/usr/sbin:/sbin" command -v $${p%:*} >/dev/null; then missing+=" $${p%:*}"; packages+=" $${p#*:}"; fi; done; \
	if [[ -z $$missing ]]; then exit 0; fi; \
	line="apt-get update && apt-get install -y --no-install-recommends$$packages"; \
	if [[ $$(id -u) != 0 ]] || ! command -v apt-get >/dev/null; then \
		printf 'missing:%s\ninstall it with: sudo sh -c "%s"\n' "$$missing" "$$line" >&2; exit 1; fi; \
	echo "installing:$$missing"; export DEBIAN_FRONTEND=noninteractive; \
	log=$$(mktemp); if ! sh -c "$$line" >$$log 2>&1; then tail -20 $$log >&2; rm -f $$log; exit 1; fi; rm -f $$log

fmt: ## gofmt
	@bad=$$(git ls-files -co --exclude-standard '*.go' | xargs -r gofmt -l); if [[ -n $$bad ]]; then printf 'run gofmt -w on:\n%s\n' "$$bad" >&2; exit 1; fi

vet: ## go vet over all modules
	@$(GO) vet ./... && $(GO) vet -tags faultpoints ./agent && cd integration && $(GO) vet ./... && cd ../packaging/tools && $(GO) vet ./...

staticcheck: ## staticcheck over all modules (pinned in integration/go.mod)
	@mkdir -p bin && cd integration && $(GO) build -o ../bin/staticcheck honnef.co/go/tools/cmd/staticcheck
	@bin/staticcheck ./... && cd integration && ../bin/staticcheck ./... && cd ../packaging/tools && ../../bin/staticcheck ./...

tidy: ## go.mod and go.sum are exact, nothing generated is committed
	@for m in . integration packaging/tools; do (cd $$m && $(GO) mod tidy -diff); done
	@bad=$$(git ls-files bin dist cache); if [[ -n $$bad ]]; then printf 'committed by mistake:\n%s\n' "$$bad" >&2; exit 1; fi

portable: cross ## all boards without cgo, 32-bit included; integration/e2e runs the tests on emulated CPUs
	@CGO_ENABLED=0 GOARCH=386 $(GO) vet ./...

race: ## all tests of the agent under the race detector
	@$(GO) test -race -short ./...

integration: ## brokers, faults, power cuts, emulated CPUs: the short form
	@cd integration && $(GO) test -short -count=1 -p 1 -timeout 40m ./... # -count=1: the programs under test are built by the tests, and Go does not know

readme: ## write the table of drivers into README.md
	@$(GO) test ./sensors/drivers -run '^TestTable$$' -count=1 -update

##@ Prove and measure

campaign: ## kill -9, cut lines, restarted brokers: FAULTS=10000 BROKER=mosquitto|nats MQTT=3.1.1|5 SEED=n
	@cd integration && $(GO) test ./campaign -run '^TestCampaign$$' -count=1 -v -timeout 3h -args -faults=$(FAULTS) -broker=$(BROKER) -mqtt=$(MQTT) $(if $(SEED),-seed=$(SEED))

positions: ## every packet of the handshakes dropped, repeated, delayed, forgotten; 20 seeds each: BROKER=
	@cd integration && $(GO) test ./campaign -run '^TestPositions' -count=1 -v -timeout 3h -args -broker=$(BROKER) -seeds=20 -mqtt=$(MQTT) $(if $(SEED),-seed=$(SEED))

commands: ## kills while commands arrive: none is executed twice, each is answered: COMMANDS=1000 BROKER= SEED=
	@cd integration && $(GO) test ./campaign -run '^TestCommands$$' -count=1 -v -timeout 3h -args -commands=$(COMMANDS) -broker=$(BROKER) -mqtt=$(MQTT) $(if $(SEED),-seed=$(SEED))

controls: ## deliberately wrong builds must fail the same campaign
	@cd integration && $(GO) test ./campaign -run '^TestControls$$' -count=1 -v -timeout 1h -args -broker=$(BROKER) $(if $(SEED),-seed=$(SEED))

soak: ## the campaign at a walking pace for SOAK=1h
	@cd integration && $(GO) test ./campaign -run '^TestSoak$$' -count=1 -v -timeout 0 -args -soak=$(SOAK) -broker=$(BROKER) -mqtt=$(MQTT) $(if $(SEED),-seed=$(SEED))

powercut: ## every state a power cut can leave: STATES=100000 on the file level, a fiftieth of them on a real ext4, SEED=n
	@cd integration && $(GO) test ./powercut -count=1 -v -timeout 3h -args -states=$(STATES) -ext4=$$(( $(STATES) / 50 )) $(if $(SEED),-seed=$(SEED))

media: ## flipped bits, zeroed pages, cut files: FLIPS=10000, SEED=n
	@cd integration && $(GO) test ./media -count=1 -v -timeout 3h -args -flips=$(FLIPS) $(if $(SEED),-seed=$(SEED))

model: ## random operations on the store against a model of it
	@cd integration && $(GO) test ./model -count=1 -v -timeout 1h

diskfault: ## full, failing and read-only disks
	@cd integration && $(GO) test ./diskfault -count=1 -v -timeout 1h

qemu-test: tools ## GOARM=6 and arm64 test binaries of queue, sensors and agent on an emulated CPU
	@cd integration && $(GO) test ./e2e -run '^TestEmulatedCPU$$' -count=1 -v -timeout 30m

boards: tools ## the agent on emulated ARM boards with stock Debian kernels: chips, lines, a meter through power cuts
	@cd integration && $(GO) test ./boards -count=1 -v -timeout 40m

fuzz: ## each fuzz test for FUZZTIME=20s
	@for m in . integration; do (cd $$m; for p in $$($(GO) list ./...); do \
		for f in $$($(GO) test -list '^Fuzz' $$p | grep '^Fuzz' || true); do $(GO) test $$p -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME); done; done); done

bench: ## the numbers to hold as ratios in one run, with what limits each
	@cd integration && $(GO) test ./bench -run '^$$' -bench . -benchtime 1x -count=$(COUNT) -timeout 3h -v

-include packaging/Makefile

brokers: tools ## every broker judged over cut lines and a restart: the README's table; bytes of a reading with each MQTT version
	@if [[ ! -x /usr/lib/rabbitmq/bin/rabbitmq-server ]]; then echo 'installing: rabbitmq-server (its service is not started)'; \
	policy=/usr/sbin/policy-rc.d; made=; r=0; [[ -e $$policy ]] || { made=1; printf '#!/bin/sh\nexit 101\n' >$$policy; chmod +x $$policy; }; \
	apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends rabbitmq-server >/dev/null || r=1; [[ -z $$made ]] || rm -f $$policy; (( r == 0 )); fi
	@cd integration && $(GO) run ./brokers -long && $(GO) test ./five -run '^TestBytesPerReading$$' -count=1 -v

##@ House

clean: ## remove what was built
	@rm -rf bin dist

help: ## this list
	@awk 'BEGIN {FS = ":.*## "} /^##@ / {printf "\n%s\n", substr($$0, 5)} /^[a-zA-Z0-9_.-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: brokers model readme demo build cross size check test tools fmt vet staticcheck tidy portable race integration campaign positions commands controls soak powercut media diskfault qemu-test boards fuzz bench clean help FORCE
FORCE:
