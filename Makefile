# `make run`: set-up and the main job, from nothing. `make test`: set-up and the tests. `make help` lists the rest.

PYTHON ?= python3
VENV ?= .venv
PIP_ARGS ?=
BIN := $(VENV)/bin
# The step cache and downloads stay inside the checkout, so that `make clean` leaves nothing behind.
export HASTEN_CACHE ?= $(CURDIR)/.hasten/cache

.DEFAULT_GOAL := help
.PHONY: help run test quick surgery-table surgery-peers bench-peers lint manifests-check images images-check images-test images-lock compile clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "variables: PYTHON=$(PYTHON) VENV=$(VENV) PIP_ARGS=$(PIP_ARGS)"

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/laptop.stamp: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check $(PIP_ARGS) -e '.[laptop]'
	@touch $@

$(VENV)/dev.stamp: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check $(PIP_ARGS) -e '.[dev]'
	@touch $@ $(VENV)/laptop.stamp

run: $(VENV)/laptop.stamp ## get the tree sample and make its detector fast; results in runs/trees
	$(BIN)/hasten sample trees
	$(BIN)/hasten run pipelines/examples/trees.yaml --out runs/trees --resume

test: lint ## everything that CI checks
	$(BIN)/python -m pytest

quick: $(VENV)/dev.stamp ## the tests that take seconds
	$(BIN)/python -m pytest -m "not slow"

surgery-table: $(VENV)/dev.stamp ## every row of the surgery table: before, after, max error
	$(BIN)/python tests/benchmarks/surgery_table.py

surgery-peers: $(VENV)/dev.stamp ## the same graphs through onnxslim, onnxsim and polygraphy
	$(BIN)/python tests/benchmarks/surgery_peers.py

bench-peers: $(VENV)/dev.stamp ## INT8 of hasten, NNCF, ONNX Runtime, Neural Compressor and Olive side by side; hours, resumes
	$(BIN)/python -m pip install --disable-pip-version-check -q $(PIP_ARGS) transformers
	nice -n 5 $(BIN)/python tests/benchmarks/bench_peers.py

lint: $(VENV)/dev.stamp ## style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

manifests-check: $(VENV)/dev.stamp ## build the manifests with kustomize and validate them; the compiled pipelines are up to date
	$(BIN)/python -m pytest -q tests/manifests tests/pipelines/test_compile.py tests/pipelines/test_scheduling.py

images: ## build the three container images with docker, or buildah where there is no docker
	sh images/build.sh light torch tensorrt

images-check: $(VENV)/dev.stamp ## lint the Dockerfiles and check that their lock files are up to date
	$(BIN)/hadolint images/light/Dockerfile images/torch/Dockerfile images/tensorrt/Dockerfile
	sh images/lock.sh --check $(BIN)/uv

images-test: $(VENV)/dev.stamp ## build `light` and `torch` with buildah, work in them, print their sizes; root, many minutes
	$(BIN)/python -m pytest -m nightly tests/images

images-lock: $(VENV)/dev.stamp ## write the lock files of the images anew
	sh images/lock.sh --upgrade $(BIN)/uv

compile: $(VENV)/laptop.stamp ## compile the pipelines to manifests/pipelines
	$(BIN)/hasten compile --out manifests/pipelines

clean: ## remove the environment, the step cache, the samples and the results
	rm -rf $(VENV) .hasten runs build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
