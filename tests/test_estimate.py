import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import genz_jax as gz
from genz_jax.serving import results

CHIP = gz.platform("H100-SXM")


def latency(mem_bw: float | jax.Array, flops: float | jax.Array = 989.4e12) -> jax.Array:
    return gz.estimate("gpt2", CHIP.replace(mem_bw=mem_bw, flops=flops), stage="decode").latency


def test_defaults_are_what_the_docstring_says():
    plain = gz.estimate("gpt2", "H100-SXM")
    full = gz.estimate(
        gz.model("gpt2"), CHIP, gz.Workload(1, 1024, 128), gz.Parallelism(1, 1, 1), gz.Precision("bf16"),
        stage="request", assumptions=gz.Assumptions(),
    )  # fmt: skip
    assert isinstance(plain, results.RequestResult)
    for name, (value, _) in plain.figures().items():
        np.testing.assert_array_equal(value, full.figures()[name][0])


@pytest.mark.first(1)
@pytest.mark.parametrize(
    ("stage", "kind"),
    [
        ("prefill", results.PrefillResult),
        ("decode", results.DecodeResult),
        ("chunked", results.ChunkedResult),
        ("speculative_prefill", results.SpeculativePrefillResult),
        ("speculative_decode", results.SpeculativeDecodeResult),
    ],
)
def test_every_stage_has_its_result(stage, kind):
    workload = gz.Workload(prefill_chunks=(gz.specs.PrefillChunk(0, 128),)) if stage == "chunked" else None
    speculation = gz.Speculation(gz.model("gpt2"), 4, 0.8) if stage.startswith("speculative") else None
    result = gz.estimate("gpt2", CHIP, workload, stage=stage, speculation=speculation)
    assert type(result) is kind
    assert result.feasible
    assert result.reason == "feasible"
    assert result.bound in ("compute", "memory", "network")
    for name, (value, meta) in result.figures().items():
        assert np.ndim(value) == 0, name
        assert isinstance(value, np.ndarray | np.generic), name
        assert meta["units"], name
        assert np.isfinite(value), name


def test_what_does_not_fit_is_a_result_without_times():
    result = gz.estimate("llama-3.1-405b", CHIP, stage="decode")
    assert not result.feasible
    assert result.reason == "does_not_fit"
    assert np.isnan(result.latency)
    # Weights are 405.85 billion numbers of two bytes; the file of the model's hub page counts them.
    assert float(result.weights) == pytest.approx(2 * 405.85e9, rel=2e-3)
    assert "weights, KV cache and working memory exceed the memory" in str(result)


def test_a_result_prints_as_a_table():
    text = str(gz.estimate("gpt2", CHIP, stage="decode"))
    lines = text.splitlines()
    assert any(line.startswith("latency") and line.split()[2] in ("µs", "ms") for line in lines)
    assert any(line.startswith("bound") and "memory" in line for line in lines)
    assert any(line.startswith("feasible") and "yes" in line for line in lines)
    assert max(map(len, lines)) <= 140


def test_operators_on_demand():
    without = gz.estimate("gpt2", CHIP, stage="decode")
    result = gz.estimate("gpt2", CHIP, stage="decode", operators=True)
    assert without.operators is None
    times = [float(op.latency) for op in result.operators.values()]
    assert sum(times) == pytest.approx(float(result.latency), rel=1e-12)
    assert sum(map(float, result.breakdown.values())) == pytest.approx(float(result.latency), rel=1e-12)
    assert all(isinstance(op, results.OperatorResult) for op in result.operators.values())


def test_words_of_what_has_no_codes():
    result = gz.estimate("gpt2", CHIP, stage="decode")
    with pytest.raises(ValueError, match="DecodeResult has no coded field 'latency'"):
        result.words("latency")


# ------------------------------------------------------------------------------------------------------- transforms


def test_jit_gives_the_same():
    for bandwidth in (1e12, 3e12):
        assert float(jax.jit(latency)(bandwidth)) == pytest.approx(float(latency(bandwidth)), rel=1e-12)


@pytest.mark.slow
def test_vmap_is_many_points():
    bandwidths = jnp.geomspace(1e11, 1e13, 5)
    together = jax.vmap(latency)(bandwidths)
    np.testing.assert_allclose(together, [float(latency(x)) for x in bandwidths.tolist()], rtol=1e-12)


def test_gradients_are_those_of_finite_differences():
    check_grads(lambda x: jnp.log(latency(1e12 * jnp.exp(x))), (0.3,), order=1, modes=("fwd", "rev"), rtol=1e-6)


def test_gradients_of_every_hardware_number_are_finite():
    def total(platform: gz.Platform) -> jax.Array:
        result = gz.estimate("mixtral-8x7b", platform, gz.Workload(4), gz.Parallelism(tp=8), stage="decode")
        return result.latency + result.energy

    slope = jax.grad(total)(jax.tree.map(jnp.asarray, CHIP))
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(slope))
    assert slope.mem_bw < 0
    assert slope.network[0].bandwidth < 0
    assert slope.network[0].latency > 0


@pytest.mark.slow
def test_an_infeasible_point_has_no_gradient_that_is_nan_elsewhere():
    def both(x: jax.Array) -> jax.Array:
        small = gz.estimate("gpt2", CHIP.replace(mem_bw=x, mem_capacity=1e6), stage="decode").latency
        large = gz.estimate("gpt2", CHIP.replace(mem_bw=x), stage="decode").latency
        return jnp.where(jnp.isnan(small), large, small)

    slope = jax.grad(both)(2e12)
    assert float(slope) == pytest.approx(float(jax.grad(latency)(2e12)), rel=1e-12)


LOAD = gz.Workload(batch=gz.axis([1, 2]), input_tokens=128, output_tokens=64)
QUESTIONS = {
    "estimate": lambda: gz.estimate("gpt2", "H100-SXM", stage="decode").latency,
    "sweep": lambda: gz.sweep("gpt2", "H100-SXM", LOAD, progress=False).latency[1],
    "best": lambda: gz.sweep("gpt2", "H100-SXM", LOAD, reduce=gz.Best("latency"), progress=False).latency,
    "require": lambda: gz.require("mem_bw", "gpt2", "H100-SXM", LOAD, slo=gz.SLO(tpot="10 ms"), progress=False).mem_bw[
        1
    ],
    "search": lambda: (
        gz.search("gpt2", "H100-SXM", LOAD.replace(batch=4), chips=2, progress=False).dataset["latency"].min()
    ),
    "sensitivity": lambda: gz.sensitivity("gpt2", "H100-SXM", LOAD, progress=False)["latency_elasticity"].sum(),
    "parameter_count": lambda: gz.parameter_count("gpt2").total,
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_an_answer_is_a_constant_of_a_function_that_somebody_traces(question):
    answer = QUESTIONS[question]
    scale = jax.jit(lambda x: x * np.asarray(answer()).item())
    assert float(scale(2.0)) == pytest.approx(2.0 * np.asarray(answer()).item(), rel=1e-6)


def test_words_of_figures_that_are_not_there_are_none():
    found = gz.estimate("llama-3.2-1b", "H100-SXM")
    assert found.prefill.bound is None
    assert found.bound in ("compute", "memory", "network")
