.PHONY: check lint format types test slow

check: lint types  ## what CI asks beside the tests

lint:
	ruff check .
	ruff format --check .

format:
	ruff check --fix .
	ruff format .

types:
	pyright

test:
	pytest

slow:
	pytest -m slow
