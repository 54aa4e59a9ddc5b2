# The commands of everyday work. .ci/run and the workflow call them too.

GO ?= go
FUZZTIME ?= 2m

# What needs more than the library does is a module of its own: the operators'
# tool, examples, metrics, benchmarks, foreign clients, attacks.
OTHERS = $(patsubst %/go.mod,%,$(wildcard */go.mod */*/go.mod))
MODULES = . $(OTHERS)

# Pinned here, out of go.mod: a user of the library gets none of it.
GOLANGCI_LINT = github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

.PHONY: test secrets fips lint vet fmt fmt-check cover fuzz mutants long bench interop simulation clean

# Every test, with the race detector and an AWS emulator beside it, three modules
# at a time. A test whose tools are missing fails here, where plain "go test ./..."
# skips it.
test: .venv
	printf '%s\n' $(MODULES) | xargs -P 3 -I{} internal/moto/with-moto.sh $(GO) -C {} test -race ./...

# Every test again, without the race detector, to search all that they print for
# every private key that any of their processes has made or read.
secrets: .venv
	$(GO) build -C hostile -o ../bin/leaktest ./leaktest
	printf '%s\n' $(MODULES) | xargs -P 3 -I{} internal/moto/with-moto.sh $(CURDIR)/bin/leaktest -C {} ./...

# The emulator, which with-moto.sh installs: first, since two at once would collide.
.venv: internal/moto/requirements.txt
	internal/moto/with-moto.sh true
	touch .venv

# The same code in Go's FIPS 140-3 mode, on and then enforced, without what takes
# long and has no cryptography of ours in it. Enforced, the tests that compute SHA-1 or
# use short HMAC keys themselves cannot run. On one processor, since no second
# random generator can start in a synctest bubble. By -exec, since the mode is
# not meant for the go command.
NOT_FIPS = Simulation|Load_L[15]|FleetChaos|Soak|FileStore_|FleetThatMayNotWrite|AWSStoreNoRegion|Moto
NOT_FIPS_ONLY = $(NOT_FIPS)|^TestHostileTokens$$|^TestKeyfunc$$|^TestTrust$$|^TestRevokeUnderEveryName$$|^TestJWKSIsReadByGoJOSE$$|^FuzzJWKS$$|^TestLoad_L4_JWKSDuringReloads$$
fips:
	$(GO) test -exec 'env GODEBUG=fips140=on' -cpu 1 -skip '$(NOT_FIPS)' . ./fleetkeytest
	$(GO) test -exec 'env GODEBUG=fips140=only' -cpu 1 -skip '$(NOT_FIPS_ONLY)' . ./fleetkeytest

lint:
	@set -e; for m in $(MODULES); do \
		echo "golangci-lint in $$m"; \
		(cd $$m && $(GO) run $(GOLANGCI_LINT) run ./...); \
	done

# The code for other systems is built from the same sources, so look at it too.
vet:
	@set -e; for os in linux darwin windows; do for m in $(MODULES); do \
		echo "vet and build $$m for $$os"; \
		GOOS=$$os $(GO) -C $$m vet ./...; \
		GOOS=$$os $(GO) -C $$m build -o /dev/null ./...; \
	done; done

fmt:
	gofmt -l -w .

fmt-check:
	@files=$$(gofmt -l .); [ -z "$$files" ] || { echo "run make fmt for:"; echo "$$files"; exit 1; }

cover:
	internal/moto/with-moto.sh $(GO) test -coverpkg=./... -coverprofile=cover.out ./...
	$(GO) tool cover -func=cover.out | tail -n 1
	@echo "$(GO) tool cover -html=cover.out shows the lines"

# Each fuzz target of every module for FUZZTIME. What it finds it leaves in
# testdata/fuzz.
FUZZED = $(sort $(dir $(shell grep -rl --include='*_test.go' '^func Fuzz' .)))
fuzz:
	@set -e; for d in $(FUZZED); do \
		for f in $$(grep -ho '^func Fuzz[A-Za-z0-9_]*' $$d*_test.go | cut -c6-); do \
			echo "fuzz $$f in $$d"; \
			$(GO) -C $$d test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) .; \
		done; \
	done

# Break the code in every way that docs/faults.md lists, and see the tests notice.
mutants:
	internal/moto/with-moto.sh $(GO) run ./internal/mutants

# What takes too long for every change: the long forms of the tests, fuzzing, all
# mutants and the simulation at full size. A few hours.
long: fuzz
	FLEETKEY_LONG=1 internal/moto/with-moto.sh $(GO) test -race -timeout 3h ./...
	printf '%s\n' $(OTHERS) | FLEETKEY_LONG=1 xargs -I{} internal/moto/with-moto.sh $(GO) -C {} test -race -timeout 1h ./...
	$(MAKE) mutants simulation

# Speed beside other libraries, in ratios, into bench/RESULTS.md.
bench:
	cd bench && $(GO) run .

# Clients written by others, into interop/RESULTS.md. It needs Node, Python 3 and
# a JDK with Maven.
interop:
	cd interop && FLEETKEY_REQUIRE=1 $(GO) run .

# The proof of rotation at full size: 500 instances for five years.
simulation:
	FLEETKEY_SIM=full $(GO) test -run TestSimulation -v -timeout 2h .

clean:
	rm -rf .venv bin cover.out interop/node/node_modules interop/python/.venv interop/java/target
