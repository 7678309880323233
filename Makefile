# `make demo` and `make test` are complete: each makes .venv with everything in it the first time (about three minutes).
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv

.PHONY: help env demo test clean

help:
	@echo "make demo   a running node on six cameras and how right it is, in demo_output/   (BAG=path for a recording of your own)"
	@echo "make test   the whole test run"
	@echo "make env    only the environment; then: source $(VENV)/bin/activate && renderocc --help"
	@echo "make clean  delete the environment and what the commands above made"

env:
	@$(PYTHON) renderocc_ros/bootstrap.py --venv $(VENV)

demo: env
	@$(VENV)/bin/python -m renderocc_model.cli demo $(if $(BAG),--bag $(BAG))

test:
	@$(PYTHON) renderocc_ros/bootstrap.py --venv $(VENV) --extra test
	@$(VENV)/bin/python -m pytest $(TESTS)

clean:
	rm -rf $(VENV) demo_output build install log .pytest_cache *.egg-info
