# Everything starts from a fresh clone with Python 3.11 and make; each target installs what it needs.
#
#   make demo    the article's story on this machine: a real vLLM, a real trainer, the console on top
#   make test    lint, types, import contracts and all tests, the ones on the real vLLM included
#   make test-quick  the same without the engine and without long waits; PYTHON=python3.12 is another Python
#   make join    a real GRPO run of TRL's that joins by one line: seen, switched, synced and ended by a console
#   make parity  the article's figure: reference seeds, vLLM's defaults, and a run repaired live (15 minutes)
#   make migration  the same over versions: V0 of vLLM 0.8.5 as the reference, 0.18.1 with its defaults, fixed, and repaired live
#   make versions   engines of vLLM 0.8.5 (V0) and 0.18.1 against torch and beside this one (REPAIR=1: see docs/compatibility.md)
#   make faults  every fault and bad input of the wire at its full scale (seeds are printed)
#   make chaos   two hundred random operator actions over a run with two engines (the seed is printed)
#   make compat  the engine plugin on vLLM 0.18.1 to the newest, each in an environment of its own (an hour; 13 GB, KEEP=1)
#   make stats   the tables of what the statistics hold, by simulation (seeds are printed)
#   make blind   a cause put into a real run by chance, and named or not by the diagnosis (15 minutes; the seed is printed)
#   make bench   what it costs, as ratios against other tools
#   make adapters  the adapters on the released packages of their frameworks (3 minutes to install, 115 MB)
#
# TORCH_INDEX: where pip finds the CPU build of torch, if it does not find one by itself (see README, "Install").

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BENCH := .venv-bench
PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3)
TORCH_INDEX ?=
PYTEST_ARGS ?=
KEEP ?=
VERSIONS ?=
BESIDE := -n 5 --dist loadfile --no-loadscope-reorder
FAULTS_BESIDE := -n 3 --dist loadfile --no-loadscope-reorder
ENGINES := -n 2 --dist loadfile --no-loadscope-reorder
# Of a model as small as the tests' two threads mostly wait for each other, and beside other tests ten times as long.
ONE_THREAD := OMP_NUM_THREADS=1
# Test files are compiled once, beside the type check, and not by each worker for itself: half of what workers start with.
COMPILE = $(BIN)/python -m pytest --collect-only -qq -m "not engine" >/dev/null
# Where tests with an engine are, so that the other five thousand are not collected again for them.
WITH_ENGINES := tests/e2e tests/faults tests/adapters
# Tests start hundreds of processes: each would compile what it imports (a third of the start of a console).
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help venv demo test test-quick join parity migration versions faults chaos compat stats blind \
	lint bench adapters clean

help:
	@sed -n 's/^#   //p' Makefile

venv: $(STAMP)

$(STAMP): constraints.txt pyproject.toml scripts/venv.sh
	@PYTHON="$(PYTHON)" VENV="$(VENV)" TORCH_INDEX="$(TORCH_INDEX)" bash scripts/venv.sh
	@touch $(STAMP)

demo: $(STAMP)
	@$(BIN)/driftline demo

# $(call LINT,BIN,TYPES): the checks with the tools in a folder; TYPES are further arguments of mypy.
LINT = $(1)/ruff check --no-cache . && $(1)/ruff format --no-cache --check -q . && $(1)/mypy $(2) && \
	$(1)/lint-imports --no-cache

lint: $(STAMP)
	$(call LINT,$(BIN))

# Three parts, each run whatever became of those before. Most tests wait for processes of their own: five workers and
# the type check share two cores. An engine keeps one core while it starts: two at a time, after all others, beside which
# they take twice as long. Those whose figures depend on how engine and trainer keep up with each other run alone.
test: $(STAMP)
	@log=$$(mktemp); trap 'rm -f "$$log"' EXIT; set -x; \
	{ $(call LINT,$(BIN)); } >"$$log" 2>&1 & lint=$$!; failed=0; \
	$(COMPILE) || true; \
	$(ONE_THREAD) $(BIN)/python -m pytest -m "not engine" $(BESIDE) --durations=15 $(PYTEST_ARGS) || failed=1; \
	wait $$lint || failed=1; cat "$$log"; \
	$(BIN)/python -m pytest $(WITH_ENGINES) -m "engine and not alone" $(ENGINES) --durations=15 $(PYTEST_ARGS) || failed=1; \
	$(BIN)/python -m pytest $(WITH_ENGINES) -m "engine and alone" --durations=15 $(PYTEST_ARGS) || failed=1; \
	exit $$failed

# .venv is the pinned environment on its own Python. The quick tests run on others too, in an environment of that
# Python's without torch, vLLM and Ray: what imports these is skipped there, and says so.
PYTHON_VERSION = $(shell "$(PYTHON)" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || echo none)
ifeq ($(filter test-quick,$(MAKECMDGOALS)),test-quick)
ifeq ($(PYTHON_VERSION),3.11)
QUICK := $(VENV)
QUICK_STAMP := $(STAMP)
QUICK_TYPES :=
else
QUICK := .venv-$(PYTHON_VERSION)
QUICK_STAMP := $(QUICK)/.installed-quick
QUICK_TYPES := --python-version $(PYTHON_VERSION) driftline console
endif
endif

.venv-%/.installed-quick: constraints.txt pyproject.toml scripts/venv.sh
	@KIND=quick PYTHON="$(PYTHON)" VENV="$(QUICK)" bash scripts/venv.sh
	@touch $@

# Lint beside the tests: the type check keeps one core for a minute, and its output comes after theirs.
test-quick: $(QUICK_STAMP)
	@log=$$(mktemp); trap 'rm -f "$$log"' EXIT; set -x; \
	{ $(call LINT,$(QUICK)/bin,$(QUICK_TYPES)); } >"$$log" 2>&1 & lint=$$!; failed=0; \
	$(ONE_THREAD) $(QUICK)/bin/python -m pytest -m "not engine and not slow" $(BESIDE) $(PYTEST_ARGS) || failed=1; \
	wait $$lint || failed=1; cat "$$log"; \
	exit $$failed

join: $(STAMP)
	$(BIN)/python -m pytest tests/e2e/test_join_trl.py -s $(PYTEST_ARGS)

parity: $(STAMP)
	@$(BIN)/driftline parity

versions: $(STAMP)
	@$(BIN)/driftline env add vllm-0.8.5 $(if $(REPAIR),--repair)
	@$(BIN)/driftline env add vllm-0.18.1
	@$(BIN)/python -m tests.versions
	$(BIN)/python -m pytest tests/e2e/test_versions.py tests/e2e/test_migrate.py -s $(PYTEST_ARGS)

migration: $(STAMP)
	@$(BIN)/driftline env add vllm-0.8.5 $(if $(REPAIR),--repair)
	@$(BIN)/driftline env add vllm-0.18.1
	@$(BIN)/driftline parity --config configs/migration.toml --candidate vllm-0.18.1 --switch 10 \
		--out migration.svg

# A soak of every kind of fault goes on beside the others, which take about as long. What is timed in full is alone, last.
FAULTS := tests/faults tests/unit/test_frame_ranges.py tests/tui/test_odd_frames.py tests/e2e/test_join.py \
	tests/e2e/test_align.py
SOAK := --minutes 15 --every 20 --all-kinds
faults: export DRIFTLINE_FAULTS = full
faults: $(STAMP)
	@log=$$(mktemp); soak=; trap '[ -z "$$soak" ] || kill $$soak; rm -f "$$log"' EXIT; set -x; failed=0; \
	$(BIN)/python -m tests.faults.soak $(SOAK) >"$$log" 2>&1 & soak=$$!; \
	$(BIN)/python -m pytest $(FAULTS) -m "not engine and not alone" $(FAULTS_BESIDE) -rP --durations=30 $(PYTEST_ARGS) \
		|| failed=1; \
	$(BIN)/python -m pytest $(FAULTS) -m "engine and not alone" $(ENGINES) -rP --durations=30 $(PYTEST_ARGS) || failed=1; \
	wait $$soak || failed=1; soak=; cat "$$log"; \
	$(BIN)/python -m pytest $(FAULTS) -m alone -s --durations=0 $(PYTEST_ARGS) || failed=1; \
	exit $$failed

chaos: $(STAMP)
	DRIFTLINE_CHAOS=full $(BIN)/python -m pytest tests/e2e/test_chaos.py -s $(PYTEST_ARGS)

# VERSIONS="0.18.1 0.24.0" checks these alone; KEEP=1 leaves the environments that it makes.
compat: $(STAMP)
	@KEEP="$(KEEP)" TORCH_INDEX="$(TORCH_INDEX)" $(BIN)/python -m tests.compat $(VERSIONS)

stats: $(STAMP)
	@$(BIN)/python -m tests.stats

# SEED=7 repeats one; ROUNDS, PAIRS and MINUTES bound it.
blind: $(STAMP)
	@$(BIN)/python -m tests.blind $(if $(SEED),--seed $(SEED)) $(if $(ROUNDS),--rounds $(ROUNDS)) \
		$(if $(PAIRS),--pairs $(PAIRS)) $(if $(MINUTES),--minutes $(MINUTES))

$(BENCH)/.installed: constraints.txt pyproject.toml tests/bench/requirements.txt
	@echo "bench: making $(BENCH) with what it compares with (a minute)"
	@"$(PYTHON)" -m venv $(BENCH)
	@$(BENCH)/bin/python -m pip --disable-pip-version-check install -q -c constraints.txt .
	@$(BENCH)/bin/python -m pip --disable-pip-version-check install -q -r tests/bench/requirements.txt
	@$(BENCH)/bin/python -m pip uninstall -q -y driftline
	@touch $@

bench: $(STAMP) $(BENCH)/.installed
	@missed=0; \
	PYTHONPATH=. $(BENCH)/bin/python -m tests.bench || missed=1; \
	$(BIN)/python -m tests.bench bench_attach bench_screens bench_feed bench_tokens bench_sync \
		bench_commands bench_round bench_overhead bench_plugin || missed=1; \
	exit $$missed

# PIPELINERL: a checkout of PipelineRL, which has no release on the package index; without it its tests are skipped.
PIPELINERL ?=
ADAPTERS := verl-0.9.0 verl-0.9.1 openrlhf-0.11.1 openrlhf-0.11.2 skyrl-0.2.0 skyrl-0.3.0 skyrl-0.4.0

adapters: $(STAMP)
	@bash scripts/adapters.sh $(ADAPTERS)
	PIPELINERL="$(PIPELINERL)" $(BIN)/python -m pytest tests/adapters -rs $(PYTEST_ARGS)

clean:
	rm -rf $(VENV) .venv-3.* $(BENCH) .venv-adapters build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
