# The course's commands; each works first on a fresh machine. `make help` lists them.
PYTHON ?= $(if $(filter Windows_NT,$(OS)),python,python3)
PY := .venv/$(if $(filter Windows_NT,$(OS)),Scripts,bin)/python
CONSTRAINTS ?= requirements.lock
INSTALLED := .venv/installed-$(notdir $(CONSTRAINTS))
export OMP_NUM_THREADS ?= 1
.PHONY: help run test lab slides site bundle handout refresh stamp lint lock clean

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-9s %s\n", $$1, $$2}' Makefile

run: $(INSTALLED) ## execute every notebook into build/ and print a table (NAMES='01 05' for some)
	@$(PY) -m tools.execute run $(NAMES)

test: lint ## check style, notebooks and code (ARGS='notebooks/01*.ipynb' for a part)
	@$(MAKE) --silent node_modules || echo "Slides and site are not tested"
	@$(PY) -m pytest -n 2 $(ARGS)

lab: $(INSTALLED) ## open JupyterLab on the notebooks
	@$(PY) -m jupyter lab notebooks

slides: $(INSTALLED) node_modules ## make a deck and a PDF of every notebook in build/slides/
	@$(PY) -m tools.slides $(NAMES) && echo build/slides

site: $(INSTALLED) node_modules ## make web pages that need no network in build/site/
	@rm -rf build/source build/site && mkdir -p build/source
	@$(PY) -m sphinx -qW --keep-going -c site build/source build/site && echo build/site/index.html

bundle: slides site ## pack the last commit, slides, site and MNIST if it is here into build/course.zip
	@rm -rf build/course && mkdir build/course && git archive HEAD | tar -x -C build/course
	@cp -r build/slides build/site build/course
	@if [ -d data/MNIST ]; then cp -r data/MNIST build/course/data; fi
	@cd build && ../$(PY) -m zipfile -c course.zip course && echo build/course.zip

handout: $(INSTALLED) ## copy the notebooks without outputs and solutions into build/handout/
	@$(PY) -m nbconvert --to notebook --log-level WARN --output-dir build/handout \
		--ClearOutputPreprocessor.enabled=True --TagRemovePreprocessor.enabled=True \
		--TagRemovePreprocessor.remove_cell_tags solution notebooks/*.ipynb
	@mkdir -p build/handout/utils && cp utils/*.* build/handout/utils && echo build/handout

refresh: $(INSTALLED) ## execute in place, store clean outputs, redraw figures/ (NAMES='01 05' for some)
	@$(PY) -m tools.execute refresh $(NAMES)

stamp: $(INSTALLED) ## write the course's address into notebooks and README (REPO=owner/name)
	@$(PY) -m tools.stamp "$(REPO)"

lint: $(INSTALLED) ## check style and format, changing nothing
	@$(PY) -m ruff check --quiet . && $(PY) -m ruff format --check --quiet . || { echo \
	"To mend the style: $(PY) -m ruff check --fix . && $(PY) -m ruff format ." >&2; exit 1; }

lock: $(INSTALLED) ## choose the newest versions of all packages and write requirements.lock
	@$(PY) -m uv pip compile --quiet --universal --python-version 3.11 --upgrade \
		--custom-compile-command "make lock" requirements-dev.txt -o requirements.lock

clean: ## remove build/, node_modules/ and caches; .venv and the data stay
	rm -rf build node_modules .*_cache __pycache__ */__pycache__ .ipynb_checkpoints */.ipynb_checkpoints

# The mark of a finished installation names its versions, so that other versions are installed again.
$(INSTALLED): requirements.txt requirements-dev.txt $(CONSTRAINTS)
	@$(PYTHON) -c "import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))" 2>/dev/null || { echo \
	"$(PYTHON) with its venv module, 3.11 or newer, is missing: install it, or name one: make PYTHON=python3.13" >&2; exit 1; }
	@echo "Installing the packages into .venv; the first time, PyTorch takes minutes"
	@rm -f .venv/installed-* && { $(PY) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv; }
	@$(PY) -m pip install --quiet --disable-pip-version-check uv && $(PY) -m uv pip install --quiet --python $(PY) \
		--compile-bytecode -r requirements-dev.txt $(if $(CONSTRAINTS),-c $(CONSTRAINTS),--upgrade) && touch $@ \
		|| { echo "The packages could not be installed, for the reason above; the same command tries again" >&2; exit 1; }

node_modules: package.json package-lock.json
	@npm ci --silent && touch $@ || { echo \
	"npm ci failed: Node.js is missing, or the packages of package-lock.json cannot be downloaded" >&2; exit 1; }
