"""Points per second of sweeps for more than latency: breakdown, energy, requests, gradients."""

from typing import Any

import competitors
import pytest
from contest import Arrays, room_for
from problem import HARDWARE, Problem, work

import genz_jax as gz

SIZES = [10**6, 10**7, 10**8]
QUICK = 10**4


def _problem(options: Any, points: int, arrays: float) -> Problem:
    """The hardware-only problem of that size, if that many arrays of it fit."""
    if options.quick and points != SIZES[0]:
        pytest.skip("--quick: one size")
    if why := room_for(arrays * 4.0 * points):
        pytest.skip(why)
    return Problem(*HARDWARE[QUICK if options.quick else points])


@pytest.mark.parametrize("points", SIZES)
def test_breakdown(hold: Any, options: Any, points: int) -> None:
    """Latency by part of the model."""
    problem = _problem(options, points, 30)
    counted = work(problem, "decode")
    asked = problem.arguments() | {"stage": "decode", "figures": ["latency"], "breakdown": True, "progress": False}

    def arrays(dataset: Any) -> Arrays:
        values = problem.values(dataset.breakdown)
        names = list(dataset.component.values)
        others = [i for i, name in enumerate(names) if name not in counted.parts]
        assert not values[..., others].any()
        return {name: values[..., names.index(name)] for name in counted.parts}

    hold(
        "breakdown",
        problem.points,
        competitors.ours(lambda: gz.sweep(**asked), arrays),
        [] if options.gpu else competitors.breakdown(problem, "decode"),
        flops_per_point=counted.flops_per_point,
    )


@pytest.mark.parametrize("points", SIZES)
def test_energy(hold: Any, options: Any, points: int) -> None:
    """Latency and energy."""
    problem = _problem(options, points, 6)
    hold(
        "energy",
        problem.points,
        competitors.swept(problem, "latency", "energy", stage="decode"),
        _on_device(problem, "latency", "energy", stage="decode")
        if options.gpu
        else competitors.energy(problem, "decode"),
        flops_per_point=work(problem, "decode").flops_per_point + 4.0,
    )


def _on_device(problem: Problem, *figures: str, stage: str) -> list[Any]:
    return [competitors.on_device(problem, *figures, stage=stage)]


@pytest.mark.parametrize("points", SIZES)
def test_request(hold: Any, options: Any, points: int) -> None:
    """TTFT, TPOT and latency of requests."""
    problem = _problem(options, points, 9)
    figures = ("ttft", "tpot", "latency")
    hold(
        "request",
        problem.points,
        competitors.swept(problem, *figures, stage="request"),
        _on_device(problem, *figures, stage="request") if options.gpu else competitors.request(problem),
        flops_per_point=sum(work(problem, stage).flops_per_point for stage in ("prefill", "decode")) + 2.0,
    )


@pytest.mark.parametrize("points", SIZES[:1])
def test_gradient(hold: Any, options: Any, points: int) -> None:
    """Latency and its derivatives by the peak rate and the memory bandwidth.

    Among more points some operator is in exact balance somewhere, where competitors take the slope of either side.
    """
    problem = _problem(options, points, 9)
    asked = problem.arguments() | {"stage": "decode", "figures": ["latency"], "parameters": ["flops", "mem_bw"]}

    def arrays(dataset: Any) -> Arrays:
        slopes = dataset.latency_gradient
        named = {"by_rate": "flops", "by_bandwidth": "mem_bw"}
        found = {key: problem.values(slopes.sel(parameter=name)) for key, name in named.items()}
        return found | {"latency": problem.values(dataset.latency)}

    hold(
        "gradient",
        problem.points,
        competitors.ours(lambda: gz.gradients(**asked, progress=False), arrays),
        [] if options.gpu else competitors.gradient(problem, "decode"),
        flops_per_point=2.0 * work(problem, "decode").flops_per_point,
    )
