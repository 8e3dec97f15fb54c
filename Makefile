# Two commands do everything: `make run` and `make test`. Each makes or refreshes .venv by itself.
.DEFAULT_GOAL := help
SHELL := /bin/sh

PORT ?= 8080
HOST ?= 127.0.0.1
MODEL ?=
CONFIG ?=
IMAGE ?= lmi:cpu
# The Python that makes the environment's set-up run; tools/setup.py finds the CPython 3.11 itself.
BOOT ?= $(shell command -v python3 || command -v python3.11 || command -v python || echo python3)
PY := .venv/bin/python

.PHONY: run test check fast bench bench-engines bench-vllm bench-quantization peers soak image image-deepspeed lock docs format clean help serve-env test-env

serve-env:
	@$(BOOT) tools/setup.py serve

test-env:
	@$(BOOT) tools/setup.py test

run: serve-env ## serve a model on 127.0.0.1:8080: make run [PORT=…] [HOST=…] [MODEL=<hub id|folder|s3://…>] [CONFIG=<folder>]
	@exec .venv/bin/lmi serve $(if $(CONFIG),"$(CONFIG)",$(if $(MODEL),,examples/demo)) $(if $(MODEL),--model "$(MODEL)") --host "$(HOST)" --port "$(PORT)"

test: check ## everything that can be tested on this machine
	$(PY) -m pytest -m slow -n 2 --dist loadfile -rs --durations=15

check: test-env ## format, lint, layers, types, generated documents, fast tests
	$(PY) -m ruff format --check -q .
	$(PY) -m ruff check -q .
	.venv/bin/lint-imports --no-cache
	$(PY) -m mypy
	$(PY) tools/write_options_doc.py --check
	$(PY) tools/write_quantization_doc.py --check
	$(PY) tools/write_requests_doc.py --check
	$(PY) -m pytest -m "not slow" -n 2

docs: test-env ## write the generated documents anew
	$(PY) tools/write_options_doc.py
	$(PY) tools/write_quantization_doc.py
	$(PY) tools/write_requests_doc.py

format: test-env ## format the code and mend what the linter can
	$(PY) -m ruff format -q .
	$(PY) -m ruff check -q --fix .

bench: test-env ## what the serving layer costs, against its peers in the same run: make bench [ARGS=--quick]
	$(PY) -m benchmarks.layer_cost $(ARGS)

bench-engines: test-env ## engines offline, against their peers in the same run: make bench-engines [ARGS=--quick]
	$(PY) -m benchmarks.engines $(ARGS)

bench-vllm: test-env ## vLLM behind our server and its own: make bench-vllm [ARGS=--quick]
	$(PY) -m benchmarks.serving_vllm $(ARGS)

bench-quantization: test-env ## every quantisation by every engine: bytes, fidelity, rates: make bench-quantization [ARGS=--quick]
	$(PY) -m benchmarks.quantization $(ARGS)

peers: test-env ## install the engines that bench-engines compares with, each in an environment of its own
	$(PY) tools/peers.py $(ARGS)

soak: test-env ## a million frames of the wire, then ten minutes of mixed, rude traffic: make soak [ARGS="--minutes 2"]
	$(PY) -m benchmarks.wire_soak
	$(PY) -m benchmarks.soak $(ARGS)

image: ## build the CPU image with docker, podman or buildah: make image [IMAGE=lmi:cpu] [ARGS="--build-arg BASE=…"]
	sh tools/build_image.sh "$(IMAGE)" $(ARGS)

image-deepspeed: ## build the image with DeepSpeed, vLLM and the quantisers: make image-deepspeed [ARGS="--build-arg BASE=…"]
	DOCKERFILE=docker/deepspeed.Dockerfile sh tools/build_image.sh lmi:deepspeed $(ARGS)

lock: test-env ## resolve the dependencies anew into locks/: make lock [ARGS=--upgrade]
	$(PY) tools/lock.py $(ARGS)

clean: ## remove the environment and what the tools left behind
	rm -rf .venv .venv-peers-* .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build out *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
