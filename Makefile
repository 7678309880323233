# `make demo` and `make test` are complete: each makes .venv with everything in it the first time (three to six minutes).
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
DOCS_VENV ?= .venv-docs

.PHONY: help env demo test test-fast lint format types docs fuzz stops faults soak load command-faults lock clean

help:
	@echo "make demo            a running node on six cameras and how right it is, in demo_output/   (BAG=path for a recording of yours)"
	@echo "make test            the whole test run   (TESTS='test/test_rays.py -k stride' for a part of it)"
	@echo "make test-fast       the tests that need neither much time nor other processes, in about a minute"
	@echo "make lint            is the code formatted and free of lint?   (make format mends it)"
	@echo "make types           the annotations of renderocc_model and training, checked by mypy"
	@echo "make docs            the documentation as a site, in site/; every link is checked"
	@echo "make fuzz            damaged files and messages for every parser, a minute each   (FUZZ='--minutes 5 --target tf')"
	@echo "make faults          faults of cameras, clocks, TF, signals and files injected into the running node   (FAULTS='--minutes 5 --list')"
	@echo "make command-faults  every command stopped, starved and fed damaged inputs   (COMMAND_FAULTS='--runs 20')"
	@echo "make stops           the node started and stopped fifty times, by SIGINT, SIGTERM and the lifecycle   (STOPS=6)"
	@echo "make soak            the node under random faults for a long time   (SOAK='--minutes 30')"
	@echo "make load            the rates and sizes of images that the node keeps up with   (LOAD='--sizes 704x256')"
	@echo "make env             only the environment; then: source $(VENV)/bin/activate && renderocc --help"
	@echo "make lock            requirements-lock.txt and -ros: what the environment has, as exact versions with hashes   (needs uv)"
	@echo "make clean           delete the environment and what the commands above made"

env:
	@$(PYTHON) tools/make_environment.py --venv $(VENV)

demo: env
	@$(VENV)/bin/python -m renderocc_model.cli demo $(if $(BAG),--bag $(BAG))

test:
	@$(PYTHON) tools/make_environment.py --venv $(VENV) --extra test
	@$(VENV)/bin/python -m pytest -n 2 --dist loadfile $(TESTS)

test-fast:
	@$(PYTHON) tools/make_environment.py --venv $(VENV) --extra test
	@$(VENV)/bin/python -m pytest -n 2 --dist loadfile -m "not slow and not system and not realdata" $(TESTS)

lint:
	@$(PYTHON) tools/make_environment.py --venv $(VENV) --extra test
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/ruff check .

format:
	@$(PYTHON) tools/make_environment.py --venv $(VENV) --extra test
	@$(VENV)/bin/ruff check --fix .
	@$(VENV)/bin/ruff format .

types:
	@$(PYTHON) tools/make_environment.py --venv $(VENV) --extra test
	@$(VENV)/bin/mypy

fuzz:
	@$(PYTHON) tools/make_environment.py --venv $(VENV) --extra test
	@$(VENV)/bin/python -m pip install -q -r requirements-fuzz.txt || echo "no atheris for this Python: less is found"
	@PYTHONPATH=test $(VENV)/bin/python -m fuzz $(FUZZ)

stops:
	@$(PYTHON) tools/make_environment.py --venv $(VENV) --extra test
	@RENDEROCC_STOPS=$(or $(STOPS),50) $(VENV)/bin/python -m pytest test/test_stopping.py

# Campaigns: the options are shown by e.g. `make faults FAULTS=--help`; results lie in campaign_output.
CAMPAIGN = PYTHONPATH="$(CURDIR)/test:$$PYTHONPATH" $(VENV)/bin/python -m campaign

faults:
	@$(PYTHON) tools/make_environment.py --venv $(VENV) --extra test
	@$(CAMPAIGN).faults $(FAULTS)

soak:
	@$(PYTHON) tools/make_environment.py --venv $(VENV) --extra test
	@$(CAMPAIGN).soak $(SOAK)

load:
	@$(PYTHON) tools/make_environment.py --venv $(VENV) --extra test
	@$(CAMPAIGN).load $(LOAD)

command-faults:
	@$(PYTHON) tools/make_environment.py --venv $(VENV) --extra test
	@$(CAMPAIGN).commands $(COMMAND_FAULTS)

docs:
	@test -d $(DOCS_VENV) || $(PYTHON) -m venv $(DOCS_VENV)
	@$(DOCS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-docs.txt
	@NO_MKDOCS_2_WARNING=1 $(DOCS_VENV)/bin/mkdocs build --quiet
	@echo "wrote site/index.html"

LOCK = $(UV) pip compile --quiet --no-header --no-annotate --generate-hashes --python-version 3.11 \
	--python-platform x86_64-unknown-linux-gnu --constraint $(VENV)/lock/tested.txt
UV ?= uv

# pytest is left out: the environment's may be that of ROS, which is newer than requirements-test.txt allows.
lock: env
	@mkdir -p $(VENV)/lock
	@$(VENV)/bin/python -m pip freeze --exclude-editable | grep -v '^pytest==' > $(VENV)/lock/tested.txt
	@PYTHONPATH=tools $(VENV)/bin/python -c "import make_environment as b; print(*b.ROS_PACKAGES, *b.GENERATOR_PACKAGES, *b.GENERATOR_PINS, sep='\n')" > $(VENV)/lock/ros.in
	@$(LOCK) requirements.txt requirements-train.txt requirements-export.txt requirements-test.txt -o $(VENV)/lock/lock.txt
	@$(LOCK) $(VENV)/lock/ros.in --constraint $(VENV)/lock/lock.txt -o $(VENV)/lock/lock-ros.txt
	@for name in lock lock-ros; do (head -2 requirements-$$name.txt; cat $(VENV)/lock/$$name.txt) > $(VENV)/lock/new.txt && mv $(VENV)/lock/new.txt requirements-$$name.txt; done
	@echo "wrote requirements-lock.txt requirements-lock-ros.txt"

clean:
	rm -rf $(VENV) $(DOCS_VENV) site demo_output example_output fuzz_output campaign_output build install log .pytest_cache .mypy_cache .ruff_cache *.egg-info
