# make install | demo | check | test | test-all | bench | clean. Needs Python 3.11 or later, and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Python keeps what it compiled, also where the environment says no: else each of the thousands of commands that tests run
# compiles everything anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: install demo check lint test test-all packages bench clean

install: $(VENV)/.installed

# Debian's Python comes without the part that makes virtual environments; root can add it.
$(VENV)/.installed: pyproject.toml src/redkeep/__init__.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Python 3.11 or later is needed, and $(PYTHON) is older: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			sh tests/install-packages.sh python3-venv; \
		else \
			echo "$(PYTHON) cannot make virtual environments; as root: apt-get install python3-venv" >&2; exit 1; \
		fi; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@
	@echo "installed: $(BIN)/redkeep"

# At a terminal it stays until Ctrl-C; elsewhere nobody could end it.
demo: install
	@$(BIN)/redkeep demo $$([ -t 0 ] && [ -t 1 ] || echo --once)

check: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

# Two tests at a time share the machine's cores, and some measure how a real failover goes. What failed is run once more, alone:
# it has to pass there, and stands in the output both times. A run that did not come to its end (exit status 2 and up) has failed.
test: install packages check
	@$(BIN)/pytest -n 2 --dist loadfile -m "not long" || { \
		[ $$? = 1 ] || exit 1; echo; echo "once more, alone: what failed beside other tests"; \
		$(BIN)/pytest --exitfirst --last-failed --last-failed-no-failures none -m "not long"; }

# Also the long ones: whole changes of size, versions and hosts under load.
test-all: install packages check
	$(BIN)/pytest -n 2 --dist loadfile

# Debian packages that tests use: other servers than the bundled one, and what the lab's hosts are made of.
packages:
	@if [ "$$(id -u)" != 0 ]; then \
		echo "not root: the tests that need whole hosts (marker lab) and Debian's servers are skipped"; \
	elif ! command -v apt-get >/dev/null; then \
		echo "no apt-get: the tests that need Debian's packages are skipped"; \
	else \
		sh tests/install-packages.sh $$(cat tests/packages.txt tests/lab/packages.txt 2>/dev/null | sed 's/#.*//'); \
	fi

# Each prints its figures beside the other side's; a goal that this machine misses today does not stop the next.
bench: install packages
	-$(BIN)/python bench/startup.py
	-$(BIN)/python bench/creation.py --rounds 3
	-$(BIN)/python bench/check.py --rounds 3
	-$(BIN)/python bench/reshard.py --rounds 1 --keys 200000
	-@if [ "$$(id -u)" = 0 ]; then $(BIN)/python bench/deployment.py --rounds 1; else \
		echo "not root: bench/deployment.py, which needs whole hosts, is left out"; fi
	-@if [ "$$(id -u)" = 0 ]; then $(BIN)/python bench/rescue.py; else \
		echo "not root: bench/rescue.py, which mounts an image to compare with, is left out"; fi

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
