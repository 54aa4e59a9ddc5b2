# The commands of everyday work; CONTRIBUTING.md explains them. .ci/run and the
# workflows call them too.

GO ?= go
FUZZTIME ?= 2m

OTHERS = $(patsubst %/go.mod,%,$(wildcard */go.mod */*/go.mod))
MODULES = . $(OTHERS)
# Other JWT libraries, web frameworks and the driver of a browser take long to build, so make
# test leaves them to make check.
QUICK = $(filter-out bench interop tests/browser examples/frameworks,$(MODULES))
# What users build, and not only on Linux.
SHIPPED = . cmd/fleetkey otelfleetkey

# Tools are pinned here and not in go.mod, so that users of the library do not
# depend on them.
GOLANGCI_LINT = github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
GOTESTSUM = gotest.tools/gotestsum@v1.13.0
GREMLINS = github.com/go-gremlins/gremlins/cmd/gremlins@v0.6.0

.PHONY: test check long test-all test-long fmt fmt-check lint vet vuln cover fuzz \
	mutation fips example bench interop screenshot simulation release clean

MOTO = .venv/installed
LOCALSTACK = .venv-localstack/installed

# The race detector needs a C compiler. Go turns cgo off where there is none.
RACE = $(if $(filter 1,$(shell $(GO) env CGO_ENABLED)),-race)

# Test the modules $(1), two at a time, and end with a list of what was skipped.
define go_test
	@mkdir -p bin; status=0; \
	$(GO) run $(GOTESTSUM) --format standard-quiet --hide-summary skipped \
		--ignore-non-json-output-lines --jsonfile bin/test.json --raw-command -- \
		sh -c 'printf "%s\n" $(1) | xargs -P 2 -I{} $(GO) -C {} test -json $(RACE) $(TESTFLAGS) ./...' || status=$$?; \
	sed -n 's/.*"Output":"[^"'\'']*\(skipped: [^"\\]*\).*/\1/p' bin/test.json | sort | uniq -c; \
	exit $$status
endef

# The tests of all modules but two. Tests whose tool is missing are skipped.
test: $(MOTO)
	$(call go_test,$(QUICK))

# Everything that must hold before a change is merged; no test is skipped.
check:
	@for step in fmt-check test-all fuzz vet lint vuln example; do \
		echo "===== make $$step"; \
		$(MAKE) --no-print-directory $$step FUZZTIME=1000x || exit 1; \
	done

# What takes hours or half a gigabyte.
long:
	@for step in test-long scale fips mutation fuzz interop; do \
		echo "===== make $$step"; \
		$(MAKE) --no-print-directory $$step || exit 1; \
	done

test-all: export FLEETKEY_REQUIRE = 1
test-all: $(MOTO)
	$(call go_test,$(MODULES))

test-long: export FLEETKEY_REQUIRE = 1
test-long: export FLEETKEY_LONG = 1
test-long: TESTFLAGS = -timeout 3h
test-long: $(MOTO) $(LOCALSTACK)
	$(call go_test,$(MODULES))

# An AWS emulator for the tests. Without Python 3 they are skipped.
$(MOTO): internal/moto/requirements.txt
	@if python3 -c 'import ensurepip, venv' 2>/dev/null; then \
		python3 -m venv --clear .venv && \
		.venv/bin/python -m pip install -q --disable-pip-version-check -r internal/moto/requirements.txt && \
		touch $@ || { rm -rf .venv; echo 'moto could not be installed' >&2; }; \
	fi

# Another emulator, of half a gigabyte.
$(LOCALSTACK): internal/moto/localstack.txt
	python3 -m venv --clear .venv-localstack
	.venv-localstack/bin/python -m pip install -q --disable-pip-version-check -r internal/moto/localstack.txt
	touch $@

fmt:
	gofmt -l -w .

fmt-check:
	@files=$$(gofmt -l .); [ -z "$$files" ] || { echo "run make fmt for:"; echo "$$files"; exit 1; }

lint:
	@for m in $(MODULES); do \
		echo "golangci-lint in $$m"; \
		(cd $$m && $(GO) run $(GOLANGCI_LINT) run ./...) || exit 1; \
	done

# Each system builds files of its own.
vet:
	@for os in linux darwin windows; do for m in $(SHIPPED); do \
		echo "vet and build $$m for $$os"; \
		GOOS=$$os $(GO) -C $$m vet ./... && \
		GOOS=$$os $(GO) -C $$m build -o /dev/null ./... || exit 1; \
	done; done

vuln:
	@GO=$(GO) .ci/vuln $(MODULES)

cover: $(MOTO)
	$(GO) test -coverpkg=./... -coverprofile=cover.out ./...
	$(GO) tool cover -func=cover.out | tail -n 1
	@echo "$(GO) tool cover -html=cover.out shows the lines"

# Each fuzz target of every module for FUZZTIME, two at a time. Inputs that fail
# are kept in testdata/fuzz. Making them small would take all of a short time. make check
# gives a number of inputs instead, since Go sometimes ends a fuzz test that has a time
# with "context deadline exceeded".
fuzz:
	@grep -r --include='*_test.go' -o '^func Fuzz[A-Za-z0-9_]*' . | sed 's,/[^/]*:func , ,' | \
		xargs -P 2 -L 1 sh -c 'echo "fuzz $$1 in $$0"; \
			$(GO) -C $$0 test -run "^$$" -fuzz "^$$1\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x -parallel 1 . || exit 255'

# Change the code in small ways, and require that the tests notice more than 90 % of
# the changes (.gremlins.yaml). A change that only makes a test too slow proves
# nothing, so there may be few of these.
PURE = internal/jws internal/keyset internal/trust internal/tokencache internal/refresh internal/clock
mutation:
	@mkdir -p bin; failed=; for p in $(PURE); do \
		echo "mutants of $$p"; \
		$(GO) run $(GREMLINS) unleash --output-statuses lt -E test ./$$p >bin/mutants.txt || failed="$$failed $$p"; \
		cat bin/mutants.txt; \
		awk '/^Killed/ { n = $$2 + $$4 } /^Timed out/ { late = $$3 } END { exit late > 0.03 * (n + late) }' bin/mutants.txt || failed="$$failed $$p"; \
	done; \
	[ -z "$$failed" ] || { echo "FAILED: too many mutants survive or time out in$$failed"; exit 1; }

# Go's FIPS 140-3 mode, enforced. The skipped tests compute SHA-1 (so does the SDK for
# SSO) or use short HMAC keys themselves. The mode is not meant for the go command, so
# -exec sets it; on one processor, since no second random generator can start in a
# synctest bubble.
NOT_FIPS = ^TestHostileTokens$$|^TestKeyfunc$$|^TestTrust$$|^TestRevokeUnderEveryName$$|^TestAWSCredentialsSources$$
fips:
	$(GO) test -exec 'env GODEBUG=fips140=only' -cpu 1 -skip '$(NOT_FIPS)' . ./fleetkeytest

# A fleet of three instances that share one key, from start to end.
example:
	$(GO) run ./examples/openid-server -once -addr 127.0.0.1:0

# Speed beside other libraries, in ratios, into bench/RESULTS.md.
bench:
	$(GO) -C bench run .
	$(GO) -C bench test -count=1 -run Story . -verifiers 5

# Clients written by others, into interop/RESULTS.md, and an issuer written by others. Debian
# packages: nodejs npm python3-venv default-jdk-headless maven haproxy; and Rust 1.88 or newer.
interop:
	cd interop && $(GO) run .
	cd interop && FLEETKEY_LONG=1 $(GO) test -count=1 -run TestNodeIssuer -v .

# The picture of the fleet in the README, out of Chromium.
screenshot:
	cd tests/browser && FLEETKEY_SCREENSHOT=$(CURDIR)/docs/fleet.png $(GO) test -count=1 -run TestPage/file .

# The proof of rotation at full size: 500 instances for five years.
simulation:
	FLEETKEY_LONG=1 $(GO) test -run TestSimulation -v -timeout 2h ./tests/simulation

# What a fleet of 10,000 costs on AWS, into bench/scale.json.
scale:
	FLEETKEY_LONG=1 $(GO) test -run TestScale -v -timeout 2h ./tests/scale

# The commit and the tags of a release, in this clone only. CONTRIBUTING.md explains it.
release:
	@GO=$(GO) .ci/release $(VERSION)

clean:
	rm -rf .venv .venv-localstack bin cover.out \
		interop/bin interop/node/node_modules interop/python/.venv interop/java/target interop/rust/target
