# The commands of this project. Each makes the environment in .venv first if it is missing or out of date.
#
#   make demo        the whole pipeline on the log in data/ -> report.html
#   make test        ruff, mypy, pytest
#   make results     the numbers on real logs (README)
#   make benchmark   the timings (benchmarks/results/)
#   make notebooks   run the notebooks in place
#   make lock        resolve requirements.lock anew
#   make clean       remove .venv and caches
#
# PYTHON=... names another interpreter (3.11 to 3.13).

USABLE := import sys, venv, ensurepip; raise SystemExit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	if $$p -c '$(USABLE)' >/dev/null 2>&1; then echo $$p; break; fi; done)

BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: demo test results benchmark notebooks lock clean
.DEFAULT_GOAL := demo

demo: $(STAMP)
	$(BIN)/causalrec demo -o report.html

test: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2  # two workers, a thread each

results: $(STAMP)
	$(BIN)/python benchmarks/real_logs.py

benchmark: $(STAMP) .venv/.benchmark
	for script in $(filter-out %/real_logs.py %/worlds.py %/page.py %/text_page.py %/uplift_page.py %/finetune_page.py %/debiased_worlds.py %/arm_worlds.py %/text_worlds.py %/natural_text.py %/vocab_text.py,$(wildcard benchmarks/*.py)); do echo "== $$script"; $(BIN)/python $$script || exit 1; done
	$(BIN)/python benchmarks/page.py

notebooks: $(STAMP)
	$(BIN)/jupyter nbconvert --to notebook --execute --inplace notebooks/*.ipynb

lock: python
	$(PYTHON) .ci/lock.py

clean:
	rm -rf .venv .pytest_cache .ruff_cache .mypy_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): requirements.lock pyproject.toml | python
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# what the timings are compared with: the dependency group "benchmark" of pyproject.toml
.venv/.benchmark: $(STAMP)
	$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]["benchmark"], sep="\n")' \
		| $(BIN)/python -m pip install --disable-pip-version-check -c requirements.lock -r /dev/stdin
	@touch $@

.PHONY: python
python:
	@$(or $(PYTHON),false) -c '$(USABLE)' 2>/dev/null || { \
		echo "causalrec needs Python 3.11, 3.12 or 3.13 with its venv module; found $(or $(PYTHON),none). \
	Install one (Debian: apt install python3 python3-venv), or name it: make $(firstword $(MAKECMDGOALS) demo) PYTHON=/path/to/python3" >&2; exit 1; }
