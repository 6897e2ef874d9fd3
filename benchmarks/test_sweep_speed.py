"""Points per second of `gz.sweep` for latency: over hardware alone, and over models and deployments too."""

from typing import Any

import competitors
import jax
import numpy as np
import published
import pytest
from contest import TOLERANCE, room_for
from problem import HARDWARE, LLAMA_8B, LLAMA_70B, MIXTRAL, THIRTY, Problem, Stage, work
from published import Published

SIZES = list(HARDWARE)
MIXED = ((LLAMA_8B, LLAMA_70B, MIXTRAL), (1, 8, 64, 256), (1, 2, 4, 8))
FIVE = ("llama-3.1-8b", "mixtral-8x7b", "deepseek-v2-lite", "falcon-mamba-7b", "jamba-1.5-mini")
SLOW = 10**8
"""Points from which NumPy and numexpr are left out of sweeps over many deployments: minutes for a call."""


def _skip_large(points: int, arrays: float, options: Any) -> None:
    if options.quick and points > 10**6:
        pytest.skip("--quick: at most 10⁶ points")
    if why := room_for(arrays * 4.0 * points):
        pytest.skip(why)


@pytest.mark.parametrize("stage", ["decode", "prefill"])
@pytest.mark.parametrize("points", SIZES)
def test_hardware(hold: Any, options: Any, points: int, stage: Stage, benchmark: Any) -> None:
    """Latency over peak rate × memory bandwidth: one deployment of Llama 3.1 70B."""
    if stage == "prefill" and points != 10**6:
        pytest.skip("prefill: one size")
    _skip_large(points, 3, options)
    problem = Problem(*HARDWARE[points])
    counted = work(problem, stage)
    if options.gpu:
        others = [competitors.on_device(problem, "latency", stage=stage)]
    else:
        others = competitors.latency(problem, stage)
        if options.quick:
            others.append(competitors.on_device(problem, "latency", stage=stage))
    sample = None if options.gpu or published.MISSING else Published(problem, stage, options.calls(points))
    dataset = hold(
        f"hardware, {stage}",
        points,
        competitors.swept(problem, "latency", stage=stage),
        others,
        flops_per_point=counted.flops_per_point,
        extra=None if sample is None else sample.take_turn,
    )
    if sample is not None:
        _record_published(benchmark, sample, dataset.latency, "float32")


def _record_published(benchmark: Any, sample: Published, latency: Any, dtype: str) -> None:
    """Add genz-llm to the record, if its latencies are ours."""
    worst = sample.worst_difference(latency)
    assert worst <= TOLERANCE[dtype], f"differs from genz-llm by {worst:.2g}"
    record, ours = sample.record(), benchmark.extra_info["competitors"][0]
    ratio = ours["points_per_second"] / record["points_per_second"]
    record |= {"ratio": ratio, "worst_relative_difference": worst}
    benchmark.extra_info["competitors"].append(record)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("figures", ["latency", "all"])
@pytest.mark.parametrize("deployments", [1, 48])
def test_published(hold: Any, options: Any, benchmark: Any, deployments: int, figures: str, dtype: str) -> None:
    """A sweep beside genz-llm, which computes all its tables at every call, so that all figures are the like."""
    if options.gpu:
        pytest.skip("--gpu: genz-llm runs on the processor")
    if published.MISSING:
        pytest.skip(published.MISSING)
    models, batches, tp = MIXED
    if deployments == 1:
        problem = Problem(100, 100) if options.quick else Problem(1000, 1000)
    else:
        problem = Problem(10, 20, models, batches, tp) if options.quick else Problem(100, 200, models, batches, tp)
    names = ["latency"] if figures == "latency" else None
    arguments = problem.arguments()

    def call() -> Any:
        return competitors.gz.sweep(**arguments, stage="decode", figures=names, progress=False)

    sample = Published(problem, "decode", options.calls(problem.points))
    with jax.enable_x64(dtype == "float64"):
        dataset = hold(
            f"published, {'hardware' if deployments == 1 else '48 deployments'}, {figures}, {dtype}",
            problem.points,
            competitors.ours(call, lambda dataset: {"latency": problem.values(dataset.latency)}),
            [],
            flops_per_point=work(problem, "decode").flops_per_point,
            extra=sample.take_turn,
        )
    assert dataset.latency.dtype == dtype
    assert (len(dataset.data_vars) == 1) == (figures == "latency")
    _record_published(benchmark, sample, dataset.latency, dtype)


@pytest.mark.parametrize("side", [5, 50, 150, 450])
def test_deployments(hold: Any, options: Any, side: int) -> None:
    """Latency over 30 models of all kinds × batch × tensor parallel size × hardware."""
    if options.quick:
        if side > 5:
            pytest.skip("--quick: one size")
        problem = Problem(10, 20, FIVE, (1, 64), (1, 4))
    else:
        problem = Problem(side, side, THIRTY, (1, 8, 64, 256), (1, 2, 4, 8))
    points = problem.points
    _skip_large(points, 3, options)
    ours = competitors.swept(problem, "latency", stage="decode")
    if options.gpu:
        others = [competitors.on_device(problem, "latency", stage="decode")]
    else:
        others = competitors.latency(problem, "decode", interpreted=points < SLOW // 2)
    dataset = hold(
        f"{len(problem.models)} models × batch × tp × hardware",
        points,
        ours,
        others,
        flops_per_point=work(problem, "decode").flops_per_point,
    )
    assert np.isfinite(dataset.latency).mean() > 0.9
