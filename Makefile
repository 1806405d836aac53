# Commands for developers and users; a fresh machine needs only Rust. `make help` lists them.

.DEFAULT_GOAL := help
SHELL := bash
ARGS ?=

# Tests wait for most of their time, so twice as many run at once as there are processors.
export RUST_TEST_THREADS ?= $(shell echo $$((2 * $$(getconf _NPROCESSORS_ONLN))))

.PHONY: help run test faults soak abuse check announce fmt clippy doc client deny proto benches ops deb test-deb bench fuzz postgres test-postgres test-clients test-console

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1|\2/' | column -t -s '|'

run: postgres ## Start a broker on a private PostgreSQL (ARGS="--listen 127.0.0.1:0" adds options)
	cargo run --release -- serve $(ARGS)

test: postgres ## Run all tests, each against a real PostgreSQL
	cargo test --all-targets --locked
	cargo test --doc --locked
	@echo "skipped: the tests of the clients (grpcurl, Rust, Python, TypeScript, Go, Java), which 'make test-clients' runs"
	@echo "skipped: the tests of the console in a browser, which 'make test-console' runs"
	@echo "skipped: the fault tests, which 'make faults' runs"

faults: postgres ## Inject each fault once while clients work, and check that no acknowledged message is lost
	cargo test --locked --test faults -- --test-threads=2
	cargo test --locked --test faults --features sabotage negative -- --test-threads=2

soak: postgres ## Inject random faults into brokers, PostgreSQL and the network (SECONDS=300 SEED=1)
	SOAK_SECONDS=$(or $(SECONDS),300) SOAK_SEED=$(or $(SEED),$$RANDOM) cargo test --locked --test faults a_long_soak -- --ignored --nocapture

abuse: postgres ## Attack a broker as hostile clients do, and check what others get done meanwhile (PROFILE=dev for a quick build)
	cargo test --locked $(if $(filter dev,$(PROFILE)),,--release) --test faults an_attack_leaves -- --ignored --nocapture

check: announce fmt deny proto benches clippy doc client ops ## Run every check except the tests: format, dependencies, protos, scripts, lints, documentation, and what operators use

announce:
	@echo "check: the first run takes minutes, most of them in clippy, doc, client and ops; deny and proto install a tool"

fmt: ## Check the formatting
	cargo fmt --check

clippy: ## Run the lints
	@echo "clippy: takes minutes the first time, as it compiles all targets and dependencies"
	cargo clippy --all-targets --locked -- -D warnings
	cargo clippy --test faults --features sabotage --locked -- -D warnings

doc: ## Check that the documentation builds without warnings
	@echo "doc: takes longer the first time"
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --document-private-items --locked

client: ## Check that the client library builds without the broker's dependencies
	@echo "client: takes longer the first time, as it compiles the dependencies with fewer features"
	scripts/check-client

deny: ## Check the dependencies: licences, sources, bans, advisories
	scripts/check-dependencies

proto: ## Check the protos: lints, compatibility with the last release
	scripts/check-protos

benches: ## Check the benchmark scripts
	scripts/check-benches

ops: ## Check what operators use: alerts, dashboard, manifests, Compose files, Dockerfile, systemd unit
	@echo "ops: takes a minute or two the first time, as it compiles the validation of Kubernetes"
	scripts/check-ops

deb: ## Build a Debian package, with units for systemd
	scripts/build-deb

test-deb: ## Install the Debian package, run what it has, and remove it (root only)
	scripts/check-deb

bench: ## Benchmark the inner steps of publishing and consuming
	cargo bench --bench inner --locked

fuzz: ## Feed random bytes to whatever reads a stranger's (SECONDS=30 for each target)
	scripts/fuzz $(or $(SECONDS),30)

postgres: ## Install PostgreSQL's server binaries, if there are none
	@scripts/install-postgres

test-clients: postgres ## Run the tests of the clients (SUITES="grpcurl rust python typescript go java security")
	clients/test $(SUITES)

test-console: postgres ## Use the console in a browser (Chromium)
	TRUNKLINE_WITH_HTTP=1 TRUNKLINE_ONE_BROKER=1 clients/with-broker tests/console/run

test-postgres: ## Run the integration tests on other versions of PostgreSQL (VERSIONS="14 18")
	scripts/test-postgres $(or $(VERSIONS),14 18)
