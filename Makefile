# Every command that a person or CI needs. Nothing outside .venv is installed or changed, but by `make engines`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet

.PHONY: help train demo test test-slow test-all engines chaos fuzz lint bench lock proto dashboards docs secrets clean
.DEFAULT_GOAL := help

help:  ## list the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(VENV)/serve: requirements.lock pyproject.toml
	@echo "Installing Nearkin into $(VENV) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) --require-hashes -r requirements.lock
	@$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/dev: requirements-dev.lock pyproject.toml
	@echo "Installing Nearkin and its development tools into $(VENV) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) --require-hashes -r requirements-dev.lock
	@$(PIP) --no-deps --no-build-isolation -e .
	@touch $@ $(VENV)/serve

$(VENV)/train: requirements-train.lock pyproject.toml $(VENV)/dev
	@echo "Installing what makes bundles of models into $(VENV) (some gigabytes) ..."
	@$(PIP) --require-hashes -r requirements-train.lock
	@touch $@

train: $(VENV)/train  ## install what makes bundles of models: PyTorch and exporters

demo: $(VENV)/serve  ## stream a real catalogue through the embedded stack and find what was just published
	@$(BIN)/nearkin demo $(DEMO_FLAGS)

test: $(VENV)/dev  ## the everyday tests, under five minutes
	$(BIN)/pytest -n 2 -m "not slow"

test-slow: $(VENV)/dev  ## the slow tests alone
	$(BIN)/pytest -n 2 -m slow

test-all: test test-slow  ## every test, the slow ones too

engines:  ## install the engines that slow tests run and this machine lacks: Debian packages, as root
	@tests/engines/install

chaos: $(VENV)/dev  ## full rounds of every fault, on Apache Kafka too; JSON in benchmarks/results/chaos
	NEARKIN_REQUIRE_ENGINES=1 NEARKIN_CHAOS_ROUNDS=$(or $(ROUNDS),100) NEARKIN_CHAOS_RESULTS=benchmarks/results/chaos \
		$(BIN)/pytest -n 2 tests/faults

fuzz: $(VENV)/dev  ## a million odd events (EVENTS=...) through the readers, a sample through the pipeline; 10,000 hostile media (MEDIA=...)
	NEARKIN_FUZZ_EVENTS=$(or $(EVENTS),1000000) NEARKIN_CHAOS_RESULTS=benchmarks/results/chaos \
		$(BIN)/pytest -n 2 tests/faults/test_fuzz.py
	NEARKIN_TEST_MEDIA_EVENTS=$(or $(MEDIA),10000) $(BIN)/pytest -n 0 -s tests/media/test_hostile_media.py

lint: $(VENV)/dev  ## style, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/train  ## measure everything; JSON beside readable tables, in benchmarks/results
	$(BIN)/python -m benchmarks

secrets:  ## draw the passwords of docker-compose.yml into deploy/secrets, once
	@deploy/make-secrets

proto: $(VENV)/dev  ## generate the gRPC code from schemas/
	$(BIN)/python -m grpc_tools.protoc -I schemas --python_out=services --pyi_out=services --grpc_python_out=services \
		schemas/nearkin/contracts/v1/lookup.proto

dashboards: $(VENV)/dev  ## make Grafana's dashboards and Prometheus's rules from deploy/
	$(BIN)/python -m deploy.grafana

lock:  ## resolve the lock files anew (needs uv)
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --extra embedded pyproject.toml -o requirements.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --extra dev pyproject.toml -c requirements.lock -o requirements-dev.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --extra train pyproject.toml -c requirements-dev.lock -o requirements-train.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --extra serve --extra trace pyproject.toml -c requirements-dev.lock -o requirements-serve.lock
	echo 'setuptools>=77' | uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate -c requirements.lock - -o deploy/requirements-build.lock

clean:  ## remove what the commands made
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
