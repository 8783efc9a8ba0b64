# The course's commands; each works first on a fresh machine. `make help` lists them.
ifeq ($(OS),Windows_NT)
PYTHON ?= python
BIN := .venv/Scripts
else
PYTHON ?= python3
BIN := .venv/bin
endif
PY := $(BIN)/python
CONSTRAINTS ?= requirements.lock
INSTALLED := .venv/installed$(if $(CONSTRAINTS),,-newest)
PACKAGES := -r requirements-dev.txt $(if $(CONSTRAINTS),-c $(CONSTRAINTS),--upgrade)
NPM := node_modules/.package-lock.json
THREADS := OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1}
# The kernel's own event loop warns on Python 3.12 and later.
ERRORS := OMP_NUM_THREADS=2 OMP_WAIT_POLICY=passive \
	PYTHONWARNINGS=error,ignore::DeprecationWarning:tornado.ioloop

# Whether uv may link from its cache into .venv; told so beforehand, it copies without a warning.
LINK := import os, sys; os.makedirs(sys.argv[1], exist_ok=True); \
	same = os.stat(sys.argv[1]).st_dev == os.stat('.venv').st_dev; print('' if same else '--link-mode=copy')

# `--option='value'` where VARIABLE stands on the command line, be it empty; not from the environment.
given = $(if $(findstring command,$(origin $1)),--$2='$(subst ','\'',$($1))')

.PHONY: help run test test-all corpus lab refresh stamp slides site lint \
	constraints clean
help:
	@echo "make run      execute every notebook into build/ and print a table (NAMES='01 05' for some)"
	@echo "make test     the whole test suite (ARGS='notebooks/01*.ipynb' for a part)"
	@echo "make lab      open JupyterLab on notebooks/"
	@echo "make slides   every notebook as one HTML file and one PDF to project, in build/slides/"
	@echo "make site     the course as web pages that need no network, in build/site/"
	@echo "make lint     check style and format, changing nothing"
	@echo "make clean    remove build/ and caches; .venv and the data stay"
	@echo "For maintainers:"
	@echo "make test-all after make test, the notebooks on two threads with warnings as errors, whether"
	@echo "              make refresh gives what is stored, and both commands killed at random moments"
	@echo "make corpus   test the strict gate itself on sound and broken notebooks, and count them"
	@echo "make refresh  execute in place, store clean outputs, redraw figures/ (NAMES='01 05' for some)"
	@echo "make stamp    write the course's address into notebooks and README (REPO=owner/name REF=main;"
	@echo "              REPO= takes it out; CHECK=1 only names what is stale)"
	@echo "make constraints  choose the newest versions of all packages anew"
	@echo "PYTHON=python3.12 names the interpreter, CONSTRAINTS= installs the newest versions: both when"
	@echo ".venv is made, so remove .venv first."

run: $(INSTALLED)
	@$(PY) -m tools.execute run $(NAMES)

test: lint
	@$(MAKE) --no-print-directory $(NPM) || echo "so slides and site are not tested"
	@$(THREADS) $(PY) -m pytest -n 2 $(ARGS)

test-all: test
	@$(ERRORS) $(PY) -m pytest -n 2 notebooks

corpus: $(INSTALLED)
	@$(PY) -m pytest -q -s tests/test_gate.py

lab: $(INSTALLED)
	@$(PY) -m jupyter lab notebooks

refresh: stamp
	@$(PY) -m tools.execute refresh $(NAMES)

stamp: $(INSTALLED)
	@$(PY) -m tools.stamp $(call given,REPO,repo) $(call given,REF,ref) $(if $(CHECK),--check)

slides: $(INSTALLED) $(NPM)
	@$(PY) -m tools.slides $(NAMES)

site: $(INSTALLED) $(NPM)
	@$(PY) -m tools.site


lint: $(INSTALLED)
	@$(PY) -m ruff check --quiet . && $(PY) -m ruff format --check --quiet . \
		|| { echo "Style (see above); to fix it: $(PY) -m ruff check --fix . && $(PY) -m ruff format ." >&2; exit 1; }




constraints: $(INSTALLED)
	@$(PY) -m uv pip compile --quiet --universal --python-version 3.11 --upgrade \
		--custom-compile-command "make constraints" requirements-dev.txt -o requirements.lock

clean:
	rm -rf build node_modules .pytest_cache .ruff_cache
	find . -name .venv -prune -o '(' -name __pycache__ -o -name .ipynb_checkpoints ')' -prune -exec rm -rf {} +

# The file is made last: a .venv without it is half-made, and is made anew.
$(INSTALLED): requirements.txt requirements-dev.txt $(CONSTRAINTS)
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" 2>/dev/null || { echo "$(PYTHON) \
is missing or older than 3.11: install a newer Python, or name one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c "import ensurepip, venv" 2>/dev/null || { echo "$(PYTHON) \
has no venv module: install it (Debian and Ubuntu: sudo apt install python3-venv)" >&2; exit 1; }
	@ls .venv/installed* >/dev/null 2>&1 && $(PY) -m pip --version >/dev/null 2>&1 \
		|| { echo "Making .venv" && $(PYTHON) -m venv --clear .venv; }
	@rm -f .venv/installed*
	@if $(PY) -m pip install --quiet --retries 1 uv >/dev/null 2>&1 && $(PY) -m uv --version >/dev/null 2>&1; \
	then $(PY) -m uv pip install --compile-bytecode --python $(PY) $$($(PY) -c "$(LINK)" "$$($(PY) -m uv cache dir)") $(PACKAGES); \
	else echo "uv is not to be had here: installing with pip, which takes longer"; \
	$(PY) -m pip install $(PACKAGES); fi \
		|| { echo "The packages could not be installed (see above); the same command tries again" >&2; exit 1; }
	@touch $@

$(NPM): package.json package-lock.json
	@command -v npm >/dev/null || { echo "npm is missing: install Node.js" >&2; exit 1; }
	@npm ci --silent || { echo "npm ci failed: the packages of package-lock.json could not be had" >&2; exit 1; }
	@touch $@
