# Every target sets up .venv by itself; all it takes is Python 3.11 or newer and a package index.

PYTHON ?= python3
BIN := .venv/bin
SET_UP := .venv/set-up
BENCH_SET_UP := .venv/bench-set-up
DOCS_SET_UP := .venv/docs-set-up

# Pins what is installed and, in both spellings that pip knows, what builds it.
CONSTRAINTS ?= constraints.txt
export PIP_CONSTRAINT := $(CONSTRAINTS)
export PIP_BUILD_CONSTRAINT := $(CONSTRAINTS)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# The files whose mutants `make mutants` tries; all of mutation/tests.toml where it is empty.
FILES ?=

# Options of `make campaign`, such as CAMPAIGN="--right 2000 --wrong 2000 --seed 1".
CAMPAIGN ?=

.PHONY: help verify verify-certified prove machine-proof accuracy docket train test test-tables test-deep mutants campaign bench results \
	lint types pictures docs clean

help:
	@echo "make verify            compare every derivation with autodiff, entry by entry"
	@echo "make verify-certified  compare it with rigorous enclosures of the exact gradient"
	@echo "make prove             prove every derivation on exact numbers and on symbols"
	@echo "make machine-proof     check the theorems for every length and size with Rocq"
	@echo "make accuracy          measure every implementation against the exact gradient, anew"
	@echo "make docket            judge the published derivations, and write docs/docket.md anew"
	@echo "make train             train the worked example with the gradients derived by hand"
	@echo "make test              run the tests"
	@echo "make test-tables       run more of what make test leaves out: cases of long tables"
	@echo "make test-deep         run the tests with a hundred times the examples, freshly drawn"
	@echo "make mutants           change the judge in every small way, with PyTorch, which this installs; a test must fail each time"
	@echo "make campaign          judge random right and wrong gradients of random models; goes on where stopped"
	@echo "make bench             time the training step against autodiff and PyTorch, which this installs"
	@echo "make results           take all results of docs/performance.md again, in less than an hour; goes on where stopped"
	@echo "make lint              check style and layout"
	@echo "make types             check types"
	@echo "make pictures          draw the pictures of README.md anew"
	@echo "make docs              build the documentation site in build/site, which installs Sphinx"
	@echo "make clean             remove .venv and everything that was generated"

verify: $(SET_UP)
	@$(BIN)/bptt verify

verify-certified: $(SET_UP)
	@$(BIN)/bptt verify --certified

prove: $(SET_UP)
	@$(BIN)/bptt prove

machine-proof: $(SET_UP)
	@$(BIN)/bptt prove --machine
	@$(BIN)/python -m pytest -q -m "" tests/proofs/test_computed_theorems.py

accuracy: $(SET_UP)
	@$(BIN)/bptt accuracy --markdown docs/accuracy.md

docket: $(SET_UP)
	@$(BIN)/bptt docket --markdown docs/docket.md
	@$(BIN)/python docs/catalogue.py

train: $(SET_UP)
	@$(BIN)/bptt train

test: $(SET_UP)
	@$(BIN)/python -m pytest -q -n 2 --dist loadfile -m "not slow and not rest" --hypothesis-profile=ci

test-tables: $(SET_UP)
	@$(BIN)/python -m pytest -q -n 2 --dist loadfile -m "rest and not slow" --hypothesis-profile=ci

test-deep: $(SET_UP)
	@XLA_FLAGS= $(BIN)/python -m pytest -q -n 2 --dist loadfile --hypothesis-profile=deep

mutants: $(BENCH_SET_UP)
	@$(BIN)/python -m mutation $(FILES)

campaign: $(SET_UP)
	@$(BIN)/python -m campaign $(CAMPAIGN)

bench: $(BENCH_SET_UP)
	@$(BIN)/python -m benchmarks

results: $(BENCH_SET_UP)
	@$(BIN)/python -m benchmarks.retake

lint: $(SET_UP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(SET_UP)
	@$(BIN)/mypy

pictures: $(SET_UP)
	@$(BIN)/python docs/pictures.py

docs: $(DOCS_SET_UP)
	@$(BIN)/python docs/catalogue.py
	@$(BIN)/sphinx-build -q -n -W --keep-going -E -b html docs build/site
	@$(BIN)/python docs/check_links.py build/site
	@echo "The site is in build/site/index.html."

$(SET_UP): pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "Setting up .venv: about a minute, once."
	@$(PYTHON) -m venv --clear .venv
	@$(BIN)/python -m pip install --quiet --editable '.[test]'
	@touch $@

$(BENCH_SET_UP): $(SET_UP)
	@echo "Installing PyTorch: some minutes, once."
	@$(BIN)/python -m pip install --quiet --editable '.[bench]'
	@touch $@

$(DOCS_SET_UP): $(SET_UP)
	@echo "Installing Sphinx: about a minute, once."
	@$(BIN)/python -m pip install --quiet --editable '.[docs]'
	@touch $@

clean:
	rm -rf .venv .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
