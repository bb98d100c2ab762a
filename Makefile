# All set-up is here: `make run` and `make test` create .venv and install by themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: run test test-native test-acceptance test-all native native-clean bench bench-kv mutation lint format lock clean
.DEFAULT_GOAL := run

$(STAMP): pyproject.toml requirements.lock
	@command -v $(PYTHON) >/dev/null || { echo "make: no $(PYTHON) here; install Python 3.11 or newer, or say PYTHON=/path/to/python3" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: $(PYTHON) is older than 3.11; say PYTHON=/path/to/a/newer/python3" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

run: $(STAMP)
	@exec $(BIN)/corelog up --data ./data

# On the interpreted form: tests put things into classes, which compiled ones don't allow.
test: native-clean
	$(BIN)/pytest -n 2 --dist loadgroup -m "not slow and not acceptance"

# The hot modules compiled, beside their sources; `make native-clean` goes back to the interpreted form.
native: $(STAMP)
	@command -v cc >/dev/null || { echo "make native: no C compiler here (Debian: gcc)" >&2; exit 2; }
	$(BIN)/python deploy/native/build.py

native-clean: $(STAMP)
	$(BIN)/python deploy/native/build.py --clean

test-native: native
	CORELOG_NATIVE=yes $(BIN)/pytest -n 2 --dist loadgroup -m "not slow and not acceptance" tests/actors/kv \
		tests/streams/test_replay.py tests/streams/log/test_frames.py tests/streams/log/test_segments_*.py

test-acceptance: $(STAMP)
	$(BIN)/pytest -m "acceptance and not slow" tests/acceptance

test-all: $(STAMP)
	$(BIN)/pytest -m "not acceptance"
	$(BIN)/pytest -m acceptance tests/acceptance

bench: $(STAMP)
	$(BIN)/python -m bench

# The better part of an hour. The compiled form. The interpreter counts, too: PYTHON=/usr/bin/python3 VENV=.venv-usr takes Debian's.
bench-kv: native
	$(BIN)/python -m bench.kv3
	$(BIN)/python -m bench.watch3
	$(BIN)/python -m bench.million3
	$(BIN)/python -m bench.leases3
	$(BIN)/python -m bench.steady3
	$(BIN)/python -m bench.kv3three

# 1,000 small faults in the pure modules of actors/kv, of which the tests are to notice 90%: the better part of an hour.
mutation: native-clean
	nice $(BIN)/python -m tests.mutation --mutants 1000 --seed 1

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock:
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --all-extras --group build pyproject.toml --output-file requirements.lock

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
