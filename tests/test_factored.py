"""A function cut into terms and what joins them is the function."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from jax import lax

import genz_jax as gz
from genz_jax.grid import blocks, factored

CHIP = gz.platform("H100-SXM").replace(
    mem_bw=gz.geomspace("1 TB/s", "20 TB/s", 9), link_latency=gz.axis(["1 us", "3 us", "9 us"])
)
CHUNKS = gz.Workload(
    prefill_chunks=(gz.specs.PrefillChunk(128, 256),),
    decode_chunks=(gz.specs.DecodeChunk(4, 4, gz.axis([512, 1024], "context")),),
)
STAGES = [
    "decode",
    *(pytest.param(stage, marks=pytest.mark.slow) for stage in ("request", "chunked", "memory", "speculative_decode")),
]


@pytest.mark.parametrize("stage", STAGES)
def test_every_figure_of_every_stage_is_that_of_the_whole_function(stage, monkeypatch):
    workload = CHUNKS if stage == "chunked" else gz.Workload(gz.axis([1, 8, 64]), 300, 40)
    draft = gz.Speculation(gz.model("opt-125m"), 4, 0.8) if stage.startswith("spec") else None
    models = ["gpt2", "mixtral-8x7b", "falcon-mamba-7b"] if draft is None else "gpt2"

    def swept() -> xr.Dataset:
        spread = gz.Parallelism(tp=gz.axis([1, 2, 4]))
        details: dict[str, Any] = {"breakdown": True, "operators": True} if stage == "decode" else {}
        return gz.sweep(
            models, CHIP, workload, spread, "fp8", speculation=draft, stage=stage, progress=False, **details
        )

    whole = swept()
    monkeypatch.setattr(blocks, "FACTORED", 1)
    monkeypatch.setattr(factored, "SHARE", 2)
    monkeypatch.setattr(blocks, "BLOCK", 50)
    monkeypatch.setattr(blocks, "HELD", 3000)  # several regions
    factored.program_of.cache_clear()
    parts = swept()
    assert factored.program_of.cache_info().misses == 1
    assert set(parts) == set(whole)
    for name, variable in whole.items():
        assert parts[name].dims == variable.dims, name
        np.testing.assert_allclose(parts[name], variable, rtol=1e-12, err_msg=str(name))


def test_axes_of_one_value_stay_dimensions(monkeypatch):
    chip = CHIP.replace(flops=gz.axis(["1 PFLOP/s"]), link_latency="1 us")
    given: Any = (["gpt2"], chip, gz.Workload(gz.axis([4]), 300, 40))
    whole = gz.sweep(*given, progress=False)
    monkeypatch.setattr(blocks, "FACTORED", 1)
    monkeypatch.setattr(factored, "SHARE", 2)
    parts = gz.sweep(*given, progress=False)
    for name, variable in whole.items():
        assert parts[name].dims == variable.dims, name
        np.testing.assert_allclose(parts[name], variable, rtol=1e-12, err_msg=str(name))


def arrays(*shapes: tuple[int, ...]) -> list[np.ndarray]:
    return [np.random.default_rng(i).uniform(0.5, 2.0, shape) for i, shape in enumerate(shapes)]


def test_terms_are_what_depends_on_few_points():
    def function(given: list[Any]) -> Any:
        a, b, c = given
        return jnp.maximum(jnp.exp(a) * 2.0, jnp.log(b)) + jnp.sqrt(c)

    program = factored.Program(function, [jax.ShapeDtypeStruct(s, float) for s in ((2, 1), (1, 2), ())])
    split, region = factored.region_of(program, [100, 200], [10, 200], 10**6)
    assert region == (100, 200)
    assert sorted(map(sorted, split.axes)) == [[], [0], [1]]
    assert not {op.primitive.name for op in split.late} & {"exp", "log", "sqrt", "mul"}
    given = arrays((100, 1), (1, 200), ())
    terms = split.terms(given)
    assert sum(np.size(term) for term in terms) == 100 + 200 + 1
    np.testing.assert_allclose(split.joined(terms), function(given), rtol=1e-12)


def test_terms_of_a_region_are_no_more_than_may_be_held():
    def function(given: list[Any]) -> Any:
        a, b, c = given
        return jnp.maximum(a * b, c)

    program = factored.Program(function, [jax.ShapeDtypeStruct(s, float) for s in ((2, 1, 1), (1, 2, 1), (1, 1, 2))])
    split, region = factored.region_of(program, [64, 64, 1000], [1, 8, 1000], 1600)
    assert sum(np.prod([region[i] for i in axes]) for axes in split.axes) <= 1600
    assert region[0] < 64


def test_what_is_not_element_by_element_is_computed_as_it_is():
    def function(given: list[Any]) -> Any:
        return jnp.cumsum(given[0], axis=0) * given[1]

    with pytest.raises(factored.Unfit, match="cumsum"):
        factored.Program(function, [jax.ShapeDtypeStruct(s, float) for s in ((2, 1), (1, 2))])
    structure = jax.tree.structure([0, 0])
    assert factored.program_of(function, structure, ((2, 1), (1, 2)), "float64") is None


def test_the_same_operation_is_done_once():
    def function(x):
        return x["a"] * 2 + x["b"], x["a"] * 2 - x["b"], x["b"] + 2.0, x["b"] + 2.0

    example = {"a": jnp.ones((2, 1)), "b": jnp.ones((1, 2))}
    program = factored.Program(function, example)
    assert len(program.operations) == len({id(operation) for operation in program.operations}) == 4
    assert program.outputs[2] == program.outputs[3]


def test_dimensions_of_length_one_may_come_and_go():
    def function(x):
        flat = jnp.reshape(x["a"], (2,)) * 3
        return lax.broadcast_in_dim(flat, (2, 2), (0,)) + x["b"]

    example = {"a": jnp.ones((2, 1)), "b": jnp.ones((1, 2))}
    program = factored.Program(function, example)
    split = program.split(frozenset({frozenset({0}), frozenset({1})}))
    large = {"a": jnp.arange(5.0)[:, None], "b": jnp.arange(7.0)[None]}
    np.testing.assert_array_equal(split.join(split.terms(large)), large["a"] * 3 + large["b"])


def test_a_reshape_that_joins_dimensions_is_not_element_by_element():
    with pytest.raises(factored.Unfit):
        factored.Program(lambda x: jnp.reshape(x["a"] + x["b"], (4,)), {"a": jnp.ones((2, 1)), "b": jnp.ones((1, 2))})
