# Every task by name. Each target sets up what it needs; `make` alone lists them.
.DEFAULT_GOAL := help
.PHONY: help book serve notebooks text address study benchmark clean

PYTHON ?= python3
BIN := .venv/bin

# One thread: more make small networks slower, and results depend on their number.
export OMP_NUM_THREADS := 1
export OPENBLAS_NUM_THREADS := 1
export MKL_NUM_THREADS := 1

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 14

.venv/book.stamp: requirements.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

book: .venv/book.stamp  ## the pages, from the stored outputs
	@$(BIN)/jupyter-book build . --warningiserror --nitpick --keep-going --quiet
	@echo "The book is in $(CURDIR)/_build/html/index.html"

serve: book  ## the pages on localhost
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory _build/html 8000

notebooks: .venv/book.stamp  ## execute the chapters that changed; FORCE=1 for all
	$(BIN)/python tools/notebooks.py $(if $(FORCE),--force)

text: .venv/book.stamp  ## write an edited NOTEBOOK=book/….ipynb back to its text
	$(BIN)/python tools/notebooks.py --back $(NOTEBOOK) $(if $(FORCE),--force)

address: .venv/book.stamp  ## write the address of _config.yml where else it stands
	$(BIN)/python tools/address.py
	$(BIN)/python tools/notebooks.py

study: .venv/book.stamp  ## run the long experiment studies/NAME.py, write its table
	$(BIN)/python tools/study.py $(NAME)

benchmark: .venv/book.stamp book  ## measure what each chapter costs
	$(BIN)/python benchmarks/chapters.py

# teachers:begin
.PHONY: assignments grade feedback publish lock pictures lint test

.venv/grading.stamp: requirements-grading.txt .venv/book.stamp
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-grading.txt
	touch $@

.venv/dev.stamp: requirements-dev.txt .venv/book.stamp
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch .venv/grading.stamp $@

assignments: .venv/grading.stamp  ## students' and instructors' notebooks, and nbgrader's course folder
	$(BIN)/python tools/assignments.py

grade: .venv/grading.stamp  ## SUBMITTED=folder: nbgrader, in a sandbox; ASSIGNMENT=… COURSE=… UNSAFE=1
	$(BIN)/python tools/grade.py $(SUBMITTED) $(if $(ASSIGNMENT),--assignment $(ASSIGNMENT)) \
	    $(if $(COURSE),--course $(COURSE)) $(if $(UNSAFE),--no-sandbox)

feedback: .venv/grading.stamp  ## ASSIGNMENT=…: tables and pages anew, with the points given by hand
	$(BIN)/python tools/grade.py --feedback --assignment $(ASSIGNMENT) \
	    $(if $(COURSE),--course $(COURSE))

publish: .venv/grading.stamp  ## the tree of the public repository, in FOLDER=build/public
	$(BIN)/python tools/publish.py $(FOLDER)

lock: .venv/dev.stamp  ## resolve pyproject.toml anew into the three requirements files
	$(BIN)/python tools/lock.py

pictures: .venv/dev.stamp book  ## draw the logo, and photograph a page for the README
	$(BIN)/python tools/pictures.py

lint: .venv/dev.stamp  ## style and types
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy

# Two processes, one file each: a chapter's cells share a kernel, a browser test its server.
test: .venv/dev.stamp lint book  ## everything: style, types, package, notebooks, pages, JupyterLab
	$(BIN)/pytest --numprocesses 2 --dist loadfile
# teachers:end

clean:  ## remove what was built, keep .venv
	rm -rf _build build
