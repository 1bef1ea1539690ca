# make demo   two hosts, two tenants with the same subnet, real packets, one table
# make test   every test but the slow ones        make check  ruff, mypy, import-linter
# make bench  ratios against peers                make clean  labs down, caches and .venv away
.PHONY: demo test slow check bench clean
BIN := .venv/bin

demo:
	@.ci/install demo
	@$(BIN)/hawse lab demo

test:
	@.ci/install test
	@.ci/test

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
