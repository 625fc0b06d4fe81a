# make help says what there is. Targets that need root say so themselves.

CARGO ?= cargo
# Continuous integration builds from nothing: no debug info to link, nothing incremental to keep.
ifdef CI
export CARGO_INCREMENTAL = 0
export CARGO_PROFILE_DEV_DEBUG = 0
endif
# How long each fuzz target runs in `make test`.
FUZZ_SECONDS ?= 10
# How long `make soak` lets instances live, and how many it boots for that.
SOAK_MINUTES ?= 60
SOAK_BOOTS ?= 20

.DEFAULT_GOAL := help
.PHONY: help setup build packages reproducible demo test unit-docs fuzz lint bench soak

help: ## say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install what builds, tests and the demo need (Debian, Ubuntu)
	@packaging/setup

build: ## both programs, as the tests and the demo use them
	$(CARGO) build --locked -p driftmark-agent -p driftmark-collector

packages: ## what is shipped, in target/packages
	@packaging/setup
	packaging/build

reproducible: ## show that packages depend on the commit alone (ten minutes: compiles twice)
	@packaging/setup
	packaging/reproducible

demo: ## a real fleet, an intrusion, a replacement (root; KEEP=1 leaves it running)
	@if [ "$$(id -u)" != 0 ]; then \
		echo "make demo needs root: it boots real systemd instances in namespaces of their own. Run: sudo -E make demo" >&2; exit 1; fi
	@packaging/setup
	@$(MAKE) --no-print-directory build
	@$(CARGO) build --locked --quiet -p driftmark-tests --bins
	$(CARGO) run --locked --quiet -p driftmark-tests --bin demo -- $(if $(filter-out 0,$(KEEP)),--keep)

lint: ## format and lints, warnings are errors
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

unit-docs:
	$(CARGO) test --locked --quiet --workspace --doc

fuzz: ## every fuzz target for FUZZ_SECONDS seconds
	@if [ -x tests/fuzz/run ]; then tests/fuzz/run $(FUZZ_SECONDS); fi

# One after the other, cheapest first; the last line is the test runner's own summary.
test: ## everything that continuous integration runs
	@$(MAKE) --no-print-directory setup
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory build
	@$(MAKE) --no-print-directory packages
	@$(MAKE) --no-print-directory unit-docs
	@$(MAKE) --no-print-directory fuzz
	@if $(CARGO) nextest --version >/dev/null 2>&1; \
		then $(CARGO) nextest run --locked --workspace --no-fail-fast; \
		else $(CARGO) test --locked --workspace --lib --bins --tests; fi

bench: ## the figures in README (root for some; PARTS="warm latency storm compare ...", BENCH_LARGE=1 for a million entries)
	@packaging/setup bench
	$(CARGO) run --locked --release -p driftmark-benches -- $(PARTS)

# Every test that is too long for `test` says so in its `ignore`, but for the story that needs this machine's own ports.
# Not by nextest, which ends what takes minutes.
soak: ## SOAK_BOOTS cold boots and SOAK_MINUTES minutes of ordinary life, and each distribution: no drift; storms: nothing lost, no growth (root)
	@packaging/setup machines
	@$(MAKE) --no-print-directory build
	@$(MAKE) --no-print-directory packages
	DRIFTMARK_SOAK_BOOTS=$(SOAK_BOOTS) DRIFTMARK_SOAK_MINUTES=$(SOAK_MINUTES) \
		$(CARGO) test --locked --no-fail-fast -p driftmark-tests -p driftmark-agent --tests -- --ignored --skip a_new_user_who_follows_the_page \
			--nocapture --test-threads=1
