# Two commands matter: `make course` and `make test`. Each sets up what it needs, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: course test weekly lab book jupyter-book links check-python sync publish lock format clean

# two at a time, each on a core of its own; chapters 3 and 4 start from what chapter 2 left
ABREAST := -n logical --maxprocesses 2 --dist loadfile --durations 25
NBVAL = PYTHONPATH="$$PWD/tests/guard" SLMOPS_PROFILE=quick SLMOPS_ARTIFACTS="$$PWD/build/test/artifacts" \
	SLMOPS_BUILD="$$PWD/build/test" $(BIN)/python -m pytest -p one_core $(ABREAST) --nbval-lax --nbval-current-env

course: $(READY)
	$(BIN)/slmops fetch
	$(BIN)/slmops run

test: $(READY)
	$(BIN)/slmops fetch
	$(BIN)/ruff check .
	$(BIN)/python -m codespell_lib
	$(BIN)/python -m pytest $(ABREAST)
	rm -rf build/test
	short="$$($(BIN)/python tools/short_base.py)" && $(BIN)/python tools/notebooks.py derive build/test/notebooks "$$short"
	$(NBVAL) build/test/notebooks/0[12]*.ipynb
	$(NBVAL) build/test/notebooks/0[34]*.ipynb

weekly: $(READY)  # the tests that take too long for every change
	$(BIN)/slmops fetch
	$(BIN)/python -m pytest -m weekly

lab: $(READY)
	$(BIN)/slmops fetch
	@$(BIN)/jupyter labextension disable "@jupyterlab/apputils-extension:announcements" 2>/dev/null  # it asks the network for news
	$(BIN)/jupyter lab --ServerApp.root_dir=. notebooks/01_introduction.ipynb  # the root, for links to the glossary

book: $(READY) book/_static/vendor/embed.js
	$(BIN)/python tools/pages.py build/pages
	$(BIN)/python -m sphinx -q -W --keep-going -b html -c book build/pages build/book
	@echo "The book: build/book/index.html"

links: $(READY)  # asks each address that the book names; weekly.yml does
	$(BIN)/python tools/pages.py build/pages
	$(BIN)/python -m sphinx -q -b linkcheck -c book build/pages build/links

# The same pages by Jupyter Book 2, a Node program with an environment of its own. What it only warns of fails here, too.
JB2 := build/jb2
jupyter-book: $(READY) $(JB2)/2.1.7 book/_static/vendor/embed.js
	$(BIN)/python tools/pages.py build/pages
	@rm -rf build/jupyter-book; cd build/pages; \
	  NO_COLOR=1 ../jb2/bin/python -m jupyter_book build --html --strict --ci </dev/null >../jb2/log 2>&1; done=$$?; \
	  if grep -aE '⛔|⚠' ../jb2/log; then exit 1; elif [ $$done != 0 ]; then cat ../jb2/log; exit 1; fi; \
	  mv _build/html ../jupyter-book
	@echo "The book, by Jupyter Book 2: build/jupyter-book/index.html"

$(JB2)/%: | check-python
	@command -v node >/dev/null || { echo "Jupyter Book 2 needs Node.js 20 or later: install it (nodejs.org) and try again." >&2; exit 1; }
	"$(PYTHON)" -m venv --clear $(JB2)
	$(JB2)/bin/python -m pip install -q --disable-pip-version-check "jupyter-book==$*"
	@touch $@

# MathJax and the widgets' player inside the book; without npm the pages load them from their CDN
book/_static/vendor/embed.js:
	@if command -v npm >/dev/null; then \
	  mkdir -p $(@D) build/npm && cd build/npm && \
	  npm pack --silent mathjax@3.2.2 @jupyter-widgets/html-manager@1.0.15 >/dev/null && \
	  tar xzf mathjax-3.2.2.tgz package/es5/tex-svg.js && \
	  tar xzf jupyter-widgets-html-manager-1.0.15.tgz package/dist && \
	  cp package/es5/tex-svg.js package/dist/embed.js package/dist/*.woff2 ../../$(@D)/ || \
	  echo "npm could not fetch them: formulas and widgets in the book will need a network." ; \
	else echo "npm is not here: formulas and widgets in the book will need a network."; fi

$(READY): requirements.lock pyproject.toml | check-python
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || "$(PYTHON)" -m venv --clear $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -r requirements.lock -e .
	@touch $@

check-python:  # before two gigabytes are downloaded for one that the pinned torch and onnxruntime-genai have no wheels for
	@"$(PYTHON)" -c 'import sys; v = sys.version_info[:2]; (3, 11) <= v <= (3, 14) or sys.exit("The course needs Python 3.11 to 3.14, this is %d.%d: install one of them, such as 3.14, and run make with PYTHON=python3.14." % v)'

# For those who work on the course:
sync: $(READY)  # cells of notebooks/*.py into the .ipynb
	$(BIN)/python tools/notebooks.py sync

publish: $(READY)  # outputs of the last `make course` into the .ipynb
	$(BIN)/python tools/notebooks.py publish

lock: $(READY)  # torch brings its own CUDA packages where it needs them, so they are not pinned here
	$(BIN)/python -m pip install -q uv
	( echo "# Every package the course uses, pinned for Linux, macOS and Windows. Renew with: make lock"; \
	  $(BIN)/uv pip compile -q --universal --python-version 3.11 --no-annotate --no-header pyproject.toml \
	  | grep -vE '^(nvidia-|cuda-|triton)' ) > requirements.lock.new && mv requirements.lock.new requirements.lock

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf build artifacts
