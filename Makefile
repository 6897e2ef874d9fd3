# make demo    a sweep of 614,400 points with a figure and a file, in demo/
# make test    all tests
# make test-slow  second tier, beside PyTorch, transformers and genz-llm, which it installs
# make lint    ruff and pyright
# make bench   benchmarks beside genz-llm, NumPy, numba, C and the machine's limits, into benchmarks/
# make bench-gpu  genz_jax on a GPU, with a JAX that has one, beside its memory, into benchmarks/gpu/
# make tables  the README's tables of accuracy and speed
# make studies what platforms need, what scaling them brings, and the cheapest design, in studies/out/
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH ?= torch==2.13.0

.PHONY: demo test test-slow lint bench bench-gpu tables studies clean

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

# What is compiled is kept on the disk for the other workers, processes and tiers.
test test-slow: export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.cache/jax
test test-slow: export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS ?= 0.1

test: $(VENV)/installed
	$(BIN)/python -m pytest -q -n 2 -m "not slow"

test-slow: $(VENV)/installed
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip install --quiet --group exact --group bench
	$(BIN)/python -m pip install --quiet --no-deps genz-llm==0.0.16 paretoset==1.2.5
	$(BIN)/python -m pytest -q -n 2 -m slow

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
	rm -rf $(VENV) demo studies/out
