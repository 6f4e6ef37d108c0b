# Every target makes its environment first: a clean clone needs Python >= 3.11 and make.
# TLRESEARCH_DATA, where it is set, reaches the commands unchanged.

PYTHON ?=
WORKERS ?= auto

.DEFAULT_GOAL := help
.PHONY: help quick test test-gpu lint clean

help:
	@echo 'make quick   how much EWC forgets, few-shot learning of glyphs, digits of another hand, what a teacher adds, on embedded data: four tables within minutes'
	@echo 'make test    the tests (WORKERS=2 sets the number of processes)'
	@echo 'make test-gpu   the tests that need a GPU; skipped, and why, without one'
	@echo 'make lint    ruff and pyright'
	@echo 'make clean   remove caches and .venv; runs and results stay'
	@echo 'PYTHON=...   the Python that .venv is made with; else the first >= 3.11 on the PATH'

quick: .venv/.ready
	@.venv/bin/tlresearch run experiments/quick/forgetting.yaml --results runs
	@.venv/bin/tlresearch run experiments/quick/fewshot.yaml --results runs
	@.venv/bin/tlresearch run experiments/quick/adaptation.yaml --results runs
	@.venv/bin/tlresearch run experiments/quick/distillation.yaml --results runs

test: .venv/.ready
	@.venv/bin/python -m pytest -q -n $(WORKERS) --maxprocesses 8 --dist loadgroup

test-gpu: .venv/.ready
	@.venv/bin/python -m pytest -q -m gpu -rs

lint: .venv/.ready
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/pyright

clean:
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis .coverage build tlresearch.egg-info
	find tlresearch tests scripts -name __pycache__ -prune -exec rm -rf {} +

# The stamp is written last, so an interrupted setup goes on at the next make. Packages that the
# interruption left half installed lack INSTALLER, which pip writes after a package's files;
# without their dist-info, pip installs them again.
.venv/.ready: pyproject.toml constraints.txt requirements-learn2learn.txt
	@rm -f $@
	@supported='import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))'; \
	if .venv/bin/python -c "import pip; $$supported" >/dev/null 2>&1; then exit 0; fi; \
	for python in $(or $(PYTHON),python3.11 python3.12 python3.13 python3); do \
		if "$$python" -c "$$supported" >/dev/null 2>&1; then \
			exec "$$python" -m venv --clear .venv; \
		fi; \
	done; \
	echo 'error: found no Python >= 3.11 with its venv module (looked for' \
		'$(or $(PYTHON),python3.11, python3.12, python3.13, python3));' \
		'install one, or name it: make PYTHON=/path/to/python3' >&2; \
	exit 1
	@echo 'Installing into .venv: a few minutes and about 6 GB, once.' >&2
	@for info in .venv/lib/python3*/site-packages/*.dist-info; do \
		if [ ! -f "$$info/INSTALLER" ]; then rm -rf "$$info"; fi; \
	done
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check \
		-c constraints.txt -e '.[track,timm,photographs,prune,distributed,compare,dev]'
	@for compiler in "$$CC" cc gcc clang none; do \
		if command -v "$$compiler" >/dev/null 2>&1; then break; fi; \
	done; \
	if [ "$$compiler" = none ]; then \
		why='no C compiler was found'; \
	elif .venv/bin/python -m pip install --disable-pip-version-check --no-deps \
		-r requirements-learn2learn.txt >.venv/learn2learn.log 2>&1; then \
		exit 0; \
	else \
		why='it did not build (see .venv/learn2learn.log)'; \
	fi; \
	echo "warning: learn2learn is left out, and so are comparisons with it: $$why;" \
		'to try again, touch requirements-learn2learn.txt' >&2
	@touch $@
