# make demo, test, lint, docs and bench work from a fresh clone: each creates the virtual environment it needs.
PYTHON ?= python3
VENV ?= .venv
CHECKPOINT ?=
BIN := $(VENV)/bin
# a worker for each core, each with one thread: torch's threads only wait for each other on small tensors. A file stays
# in one worker, which makes its fixtures once; tests/conftest.py says which files start first
XDIST ?= --numprocesses auto --dist loadfile
export OMP_NUM_THREADS ?= 1

.PHONY: demo test lint docs bench verify-official hf-suite test-lowest test-newest build wheel-test clean

# with all that the commands of the README require
demo: $(VENV)/.plot $(VENV)/.structure $(VENV)/.train
	$(BIN)/python examples/demo.py $(CHECKPOINT)

test: $(VENV)/.test $(VENV)/.torchao
	$(BIN)/python -m pytest $(XDIST)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --verbose --no-logo
	$(BIN)/python .ci/mlint.py

# the pages in docs/_build/html; first runs their code, which makes what they show and fails where a page is wrong
docs: $(VENV)/.docs
	$(BIN)/python docs/figures.py
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --nitpicky --quiet --fresh-env docs docs/_build/html

# time and memory compared with fair-esm; run nothing else meanwhile
bench: $(VENV)/.test
	$(BIN)/python benchmarks/bench.py

# the published checkpoints against fair-esm and its published figures; requires a network connection
verify-official: $(VENV)/.test
	$(BIN)/python examples/verify_official.py

# transformers' own common model tests on the five classes; pip downloads them
hf-suite: $(VENV)/.hf-suite
	$(BIN)/python tests/hf_suite/run.py -q $(XDIST)

# model, golden numbers, training, tokenizer and shared folders on the lowest supported versions; the whole suite with
# LOWEST_TESTS=
LOWEST_TESTS ?= tests/test_*_msa_transformer.py tests/test_heads.py tests/test_deployment.py tests/test_golden.py \
    tests/hub/test_loading.py tests/hub/test_old_names.py tests/training
test-lowest: $(VENV)-lowest/.installed
	$(VENV)-lowest/bin/python -m pytest $(XDIST) $(LOWEST_TESTS)

# the suite on the newest versions available
test-newest: $(VENV)-newest/.installed
	$(VENV)-newest/bin/python -m pytest $(XDIST)

# wheel and sdist in dist
build: $(VENV)/.test
	rm -rf dist
	$(BIN)/python -m hatchling build

# the wheel in an environment with nothing but what it requires: the command works there
wheel-test: build
	rm -rf $(VENV)-wheel
	$(PYTHON) -m venv $(VENV)-wheel
	$(VENV)-wheel/bin/pip install --quiet --no-compile --constraint constraints.txt dist/*.whl
	$(VENV)-wheel/bin/python -I .ci/installed.py
	cd $(VENV)-wheel && bin/msa contacts fn3 -o fn3.tsv && test -s fn3.tsv
	rm -rf $(VENV)-wheel

$(BIN)/pip:
	$(PYTHON) -m venv $(VENV)

# one stamp per extra, so that the demo does not wait for the test tools
$(VENV)/.%: pyproject.toml constraints.txt | $(BIN)/pip
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[$*]"
	touch $@

# apart from the environment's packages: transformers imports it wherever it can, and it prints warnings
$(VENV)/.torchao: constraints.txt | $(BIN)/pip
	$(BIN)/pip install --quiet --upgrade --no-deps --constraint constraints.txt --target $(VENV)/torchao torchao
	touch $@

$(VENV)-lowest/.installed: pyproject.toml constraints-lowest.txt
	$(PYTHON) -m venv $(VENV)-lowest
	$(VENV)-lowest/bin/pip install --quiet --constraint constraints-lowest.txt --editable ".[test]"
	touch $@

$(VENV)-newest/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)-newest
	$(VENV)-newest/bin/pip install --quiet --upgrade --upgrade-strategy eager --editable ".[test]"
	$(VENV)-newest/bin/pip install --quiet --no-deps --target $(VENV)-newest/torchao torchao
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-lowest $(VENV)-newest $(VENV)-wheel dist demo docs/_build docs/made
