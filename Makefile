# `make demo` and `make test` need Rust and nothing else: they start private servers (deploy/README.md) and
# stop them at the end. Servers of your own are used if both DATABASE_URL and AMQP_URL are set.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

JOBS    ?= 24
WORKERS ?= 3
KILLS   ?= 5
MINUTES ?= 10
SEED    ?= 1
BROKERS ?= 1

# Where rustup installs; a shell that was open at the time does not look there yet.
export PATH := $(PATH):$(HOME)/.cargo/bin

target_dir := $(or $(CARGO_TARGET_DIR),target)
local      := deploy/local

.PHONY: help
help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.* ## \(.*\)/\1\t\2/p' Makefile | expand -t 14

.PHONY: demo
demo: toolchain ## Run JOBS=24 jobs through WORKERS=3 workers, killing KILLS=5 of them on the way
	cargo build --release --workspace --bins
	$(local) run -- "$(target_dir)/release/demo" --jobs $(JOBS) --workers $(WORKERS) --kills $(KILLS)

# Not through `deploy/local run`: it kills servers, so they have to be its own. JOBS counts only if it is given.
# A build of the whole workspace has the crash points of the tests (shared/src/crash.rs); this one must not.
.PHONY: release
release: toolchain ## Build producer and worker for production, into target/release
	cargo build --release --package producer --package worker
	! grep --text --only-matching --max-count=1 CRASH_POINT "$(target_dir)/release/producer" "$(target_dir)/release/worker"

.PHONY: chaos
chaos: jobs = $(if $(filter file,$(origin JOBS)),,--jobs $(JOBS))
chaos: toolchain ## Break everything for MINUTES=10 by the plan of SEED=1; BROKERS=3 is a RabbitMQ cluster
	cargo build --release --workspace --bins
	"$(target_dir)/release/chaos" --minutes $(MINUTES) --seed $(SEED) --brokers $(BROKERS) $(jobs)

# The fleet tests start the real binaries, which a test build alone does not make. nextest runs each test in a
# process of its own, but no doc tests. A real Prometheus watches a fleet in one of the tests, and checks the rules.
.PHONY: test
test: runner = $(if $(shell PATH="$(PATH)" command -v cargo-nextest),nextest run,test --tests)
test: toolchain ## Run all tests
	@command -v promtool >/dev/null || $(local) install prometheus || true # the tests that need it say so
	@command -v chromedriver >/dev/null || $(local) install chromium chromium-driver || true # likewise
	cargo build --workspace --bins --tests
	$(local) run --name test -- cargo $(runner) --workspace --no-fail-fast
	cargo test --workspace --doc --no-fail-fast

.PHONY: screenshots
screenshots: toolchain ## Take the README's pictures of the page again, with a real browser at a running fleet
	cargo build --workspace --bins --tests
	UPDATE_SCREENSHOTS=1 $(local) run --name test -- cargo test --workspace --test it browser::pictures

.PHONY: api-test
api-test: toolchain ## Hold the API against its OpenAPI description; needs `pip install schemathesis`
	cargo build --workspace --bins
	tests/api-test

.PHONY: lint
lint: toolchain ## Check format, lints and documentation; shell scripts too where shellcheck is installed
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps
	if command -v shellcheck >/dev/null; then shellcheck -x $(local) $(local).d/install-packages .ci/run tests/api-test; fi

.PHONY: up
up: ## Start private servers to work with
	$(local) up

.PHONY: down
down: ## Stop them; their data stays
	$(local) down

.PHONY: clean-local
clean-local: ## Stop all private servers of this checkout and delete their data
	for dir in "$${GHOSTFLEET_LOCAL_DIR:-.local}"/*/; do \
	  if [[ -d $$dir ]]; then $(local) --name "$$(basename "$$dir")" destroy; fi; \
	done

# Crates with C code need a compiler, which a fresh machine with only Rust may lack.
.PHONY: toolchain
toolchain:
	@command -v cargo >/dev/null || { echo "Rust is needed: see https://rustup.rs" >&2; exit 1; }
	@command -v cc >/dev/null || $(local) install gcc libc6-dev
