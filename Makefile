# make demo, test, lint, docs and bench work from a fresh clone: each makes the virtual environment it needs.
PYTHON ?= python3
VENV ?= .venv
CHECKPOINT ?=
BIN := $(VENV)/bin

.PHONY: demo test lint docs bench test-lowest clean

demo: $(VENV)/.plot
	$(BIN)/python examples/demo.py $(CHECKPOINT)

test: $(VENV)/.test
	$(BIN)/python -m pytest

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python .ci/mlint.py

# the pages in docs/_build/html; their code is run first, and makes what they show
docs: $(VENV)/.docs
	$(BIN)/python docs/figures.py
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --nitpicky --quiet --fresh-env docs docs/_build/html

# time and memory beside fair-esm; nothing else should run meanwhile
bench: $(VENV)/.test
	$(BIN)/python benchmarks/bench.py

# model, training and tokenizer on the lowest transformers that is supported
test-lowest: $(VENV)-lowest/.installed
	$(VENV)-lowest/bin/python -m pytest \
	    $(addprefix tests/test_,configuration.py modeling.py deployment.py heads.py tokenization.py \
	    collators.py data.py training.py distributed.py)

$(BIN)/pip:
	$(PYTHON) -m venv $(VENV)

# one stamp per extra, so that the demo does not wait for the test tools
$(VENV)/.%: pyproject.toml constraints.txt | $(BIN)/pip
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[$*]"
	touch $@

$(VENV)-lowest/.installed: pyproject.toml constraints-lowest.txt
	$(PYTHON) -m venv $(VENV)-lowest
	$(VENV)-lowest/bin/pip install --quiet --constraint constraints-lowest.txt --editable ".[test]"
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-lowest demo docs/_build docs/made
