# make demo    a sweep of 614,400 points with a figure and a file, in demo/
# make test    first tier: a case of everything, with few random examples
# make test-slow  second tier: all other cases, all random examples; beside PyTorch, transformers and genz-llm, which it
#              installs
# make test-all  both tiers
# make test-newest  first tier beside the newest jax and jaxlib, where there are newer ones, in an environment of its own
# make lint    ruff and pyright
# make bench   benchmarks beside genz-llm, NumPy, numba, C and the machine's limits, into benchmarks/
# make bench-gpu  genz_jax on a GPU, with a JAX that has one, beside its memory, into benchmarks/gpu/
# make tables  the README's tables of accuracy and speed
# make studies what platforms need, what scaling them brings, and the cheapest design, in studies/out/
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH ?= torch==2.13.0

.PHONY: demo test test-slow test-all test-newest lint bench bench-gpu tables studies clean

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable . --group dev
	touch $@

demo: $(VENV)/installed
	mkdir -p demo
	$(BIN)/genz-jax sweep -m llama-3.1-8b,llama-3.1-70b,mixtral-8x7b -p H100-SXM --precision fp8 \
		--set mem_capacity=192GB --axis flops=100TFLOP/s:10PFLOP/s:320:log --axis mem_bw=500GB/s:20TB/s:320:log \
		--axis tp=1,8 --batch 32 --input 2048 --output 256 \
		-o demo/sweep.nc --plot demo/design_space.png --plot-figure latency

# What is compiled is kept on the disk for the other workers, processes and tiers, Python's code too.
TESTS := test test-slow test-newest
$(TESTS): export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.cache/jax
$(TESTS): export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS ?= 0.1
$(TESTS): export PYTHONDONTWRITEBYTECODE =
# A worker takes files from the front of its half, and from the end of the other's when it is done: what a file compiles,
# one worker compiles.
PYTEST := python -m pytest -q -n 2 --dist worksteal

test: export HYPOTHESIS_PROFILE ?= quick
test: $(VENV)/installed
	$(BIN)/$(PYTEST) -m "not slow"

test-slow: $(VENV)/installed
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip install --quiet --group exact --group bench
	$(BIN)/python -m pip install --quiet --no-deps genz-llm==0.0.16 paretoset==1.2.5
	$(BIN)/$(PYTEST) -m "slow or hypothesis"

test-all: test
	$(MAKE) test-slow

test-newest: export HYPOTHESIS_PROFILE ?= quick
test-newest: $(VENV)/installed
	.ci/newest

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

bench: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --group bench
	$(BIN)/python -m pip install --quiet --no-deps genz-llm==0.0.16 paretoset==1.2.5
	$(BIN)/python -m pytest benchmarks --benchmark-only --benchmark-json=benchmarks/results.json \
		-p no:cacheprovider -o addopts=""
	$(BIN)/python benchmarks/report.py

bench-gpu: $(VENV)/installed
	mkdir -p benchmarks/gpu
	$(BIN)/python -m pytest benchmarks --gpu --benchmark-only --benchmark-json=benchmarks/gpu/results.json \
		-p no:cacheprovider -o addopts=""
	$(BIN)/python benchmarks/report.py --json benchmarks/gpu/results.json --out benchmarks/gpu

tables: $(VENV)/installed
	$(BIN)/python benchmarks/readme.py

studies: $(VENV)/installed
	for study in requirements scaling design_space tuning; do $(BIN)/python studies/$$study.py || exit; done

clean:
	rm -rf $(VENV) .venv-newest demo studies/out
