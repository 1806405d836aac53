# Commands for developers and users; a fresh machine needs only Rust. `make help` lists them.

.DEFAULT_GOAL := help
SHELL := bash
ARGS ?=

.PHONY: help run test faults soak abuse check fmt clippy doc client deny proto benches ops bench fuzz postgres test-postgres test-clients test-console

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

check: fmt clippy doc client deny proto benches ops ## Run every check except the tests: format, lints, documentation, dependencies, protos, scripts, alerts

fmt: ## Check the formatting
	cargo fmt --check

clippy: ## Run the lints
	cargo clippy --all-targets --locked -- -D warnings
	cargo clippy --test faults --features sabotage --locked -- -D warnings

doc: ## Check that the documentation builds without warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --document-private-items --locked

client: ## Check that the client library builds without the broker's dependencies
	scripts/check-client

deny: ## Check the dependencies: licences, sources, bans, advisories
	scripts/check-dependencies

proto: ## Check the protos: lints, compatibility with the last release
	scripts/check-protos

benches: ## Check the benchmark scripts
	scripts/check-benches

ops: ## Check the alerts and the dashboard for Prometheus and Grafana
	scripts/check-ops

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
