# make demo   two hosts, two tenants with the same subnet, real packets, one table; DATAPATH=openflow: by Open vSwitch
# make test   every test but the slow ones        make check  ruff, mypy, import-linter
# make test-openflow   the packet tests and every topology again, on Open vSwitch
# make bench  ratios against peers                make clean  labs down, caches and .venv away
.PHONY: demo test test-openflow slow check bench clean
BIN := .venv/bin
DATAPATH := bridge

demo:
	@.ci/install demo $(DATAPATH)
	@$(BIN)/hawse lab demo --datapath $(DATAPATH)

test:
	@.ci/install test
	@.ci/test

test-openflow:
	@.ci/install test
	@.ci/test-openflow

slow:
	@.ci/install test
	@$(BIN)/python -m pytest -q -m slow

check:
	@.ci/install test
	@mkdir -p build
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache >build/imports.txt || { cat build/imports.txt; exit 1; }

bench:
	@.ci/install bench
	@$(BIN)/python -m tests.bench

clean:
	@[ ! -x $(BIN)/hawse ] || $(BIN)/hawse lab down --all
	@rm -rf .venv build .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
