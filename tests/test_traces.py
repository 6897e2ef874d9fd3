"""Tracing is paid once per structure and shape, never per value, name or layer."""

from collections.abc import Iterator

import jax
import numpy as np
import pytest

import genz_jax as gz
from genz_jax.grid import shape
from genz_jax.serving.evaluate import Case, Question, compiled, evaluate, function_of
from genz_jax.specs import assumptions
from genz_jax.work import demand

CHIP = gz.platform("H100-SXM")
QUICK = {"stage": "decode", "figures": ["latency"], "progress": False}
DENSE = [name for name in gz.models() if name.startswith(("llama-2", "llama-3", "qwen2.5", "qwen3-", "opt-", "phi-"))]
DENSE = [name for name in DENSE if (m := gz.model(name)).attention and m.ffn and not (m.moe or m.local_attention)]


@pytest.fixture
def traces(monkeypatch) -> Iterator[list[str]]:
    """One entry for every time that Python walks through a decode step."""
    compiled.cache_clear()
    function_of.cache_clear()
    seen: list[str] = []
    real = demand._forward_pass

    def counted(model, step, deployment):
        seen.append(step.mode)
        return real(model, step, deployment)

    monkeypatch.setattr(demand, "_forward_pass", counted)
    yield seen
    compiled.cache_clear()
    function_of.cache_clear()


def grid(scale: float = 1.0, chip: gz.Platform = CHIP) -> gz.Platform:
    return chip.replace(mem_bw=gz.geomspace(scale * 1e12, scale * 2e13, 30), flops=gz.geomspace(1e14, 1e16, 31))


def test_a_sweep_of_many_blocks_is_traced_once(traces, monkeypatch):
    monkeypatch.setattr(shape, "CPU", shape.Blocking(50))
    gz.sweep("gpt2", grid(), gz.Workload(batch=gz.axis([1, 2, 4])), **QUICK)
    assert len(traces) == 1


def test_other_values_and_names_are_not_traced_again(traces):
    for i, (model, chip) in enumerate([("gpt2", "H100-SXM"), ("llama-3.1-70b", "H200"), ("qwen3-8b", "GB200")]):
        platform = grid(1.0 + i, gz.platform(chip)).replace(mem_capacity=f"{90 + i} GB")
        gz.sweep(
            model, platform, gz.Workload(batch=i + 1, input_tokens=100 * i + 7), precision=["fp8", "bf16"], **QUICK
        )
    assert len(traces) == 1


@pytest.mark.slow
def test_lists_of_other_names_are_not_traced_again(traces):
    for i in range(3):
        gz.sweep(DENSE[3 * i : 3 * i + 3], ["H100-SXM", "B200"], **QUICK)
        gz.sweep({f"name {i} {j}": name for j, name in enumerate(DENSE[:3])}, ["A100", "H200"], **QUICK)
    assert len(traces) == 1


@pytest.mark.slow
def test_the_number_of_models_costs_one_trace_at_most(traces):
    gz.sweep(DENSE[:3], CHIP, **QUICK)
    assert len(traces) == 1
    assert len(DENSE) >= 30
    gz.sweep(DENSE[:30], CHIP, **QUICK)
    assert len(traces) <= 2


@pytest.mark.slow
def test_models_of_many_kinds_are_one_trace(traces):
    gz.sweep(["gpt2", "mixtral-8x7b", "falcon-mamba-7b", "deepseek-v3", "gemma-3-27b"], CHIP, **QUICK)
    assert len(traces) == 1


def test_an_axis_of_one_value_costs_one_more_trace_at_most(traces):
    # What depends on such an axis cannot be seen from the shapes of the sweep itself.
    gz.sweep("gpt2", CHIP.replace(mem_bw=gz.axis(["2 TB/s"])), **QUICK)
    assert len(traces) <= 2


def test_estimates_of_other_numbers_are_traced_once(traces):
    generator = np.random.default_rng(1)
    for i, name in zip(range(20), DENSE, strict=False):
        chip = gz.platform(["H100-SXM", "H200", "A100", "B200"][i % 4])
        chip = chip.replace(mem_bw=float(generator.uniform(1e12, 9e12)), mem_capacity="10 TB")
        gz.estimate(name, chip, gz.Workload(i + 1, 10 * i + 1), gz.Parallelism(pp=1 + i % 2), stage="decode")
    assert len(traces) == 1


@pytest.mark.parametrize("value", [2, 2.0, np.float32(2), np.int64(2), "2", True + 1])
def test_the_kind_of_a_number_does_not_matter(value):
    leaf = gz.Workload(batch=value).batch
    plain = gz.Workload(batch=1).batch
    assert (np.asarray(leaf).dtype, np.shape(leaf), type(leaf)) == (np.asarray(plain).dtype, (), type(plain))


def equations(model: gz.Model, stage: str = "decode") -> int:
    case = Case(model, CHIP, gz.Workload(), gz.Parallelism(), gz.Precision())
    jaxpr = jax.make_jaxpr(lambda c: evaluate(c, Question(stage, assumptions.default)))(case)
    return len(jaxpr.jaxpr.eqns)


@pytest.mark.first(1)
@pytest.mark.parametrize("name", ["llama-3.1-70b", "mixtral-8x7b", "jamba-1.5-mini"])
def test_the_program_does_not_grow_with_the_layers(name):
    model = gz.model(name)
    parts = [path for path in model.paths() if path.endswith("layers")]
    few = model.replace(**dict.fromkeys(parts, 2))
    many = model.replace(**dict.fromkeys(parts, 80))
    assert equations(few) == equations(many)


@pytest.mark.slow
def test_the_program_grows_neither_with_batch_nor_devices():
    model = gz.model("gpt2")
    few = Case(model, CHIP, gz.Workload(), gz.Parallelism(), gz.Precision())
    many = Case(model, CHIP, gz.Workload(4096, 10**6, 10**5), gz.Parallelism(12, 1, 12), gz.Precision("int4", "fp8"))
    programs = [jax.make_jaxpr(lambda c: evaluate(c, Question("request", assumptions.default)))(c) for c in (few, many)]
    assert str(programs[0]) == str(programs[1])
