"""Points per second of answers: the least bandwidth that meets an objective, the best parallelism of all."""

from typing import Any

import competitors
import numpy as np
import pytest
from contest import Arrays, room_for
from problem import Problem, work

import genz_jax as gz

REQUIREMENTS = {10**4: (100, 100), 10**5: (250, 400), 10**6: (1000, 1000)}
"""Peak rates and limits of TPOT, by their number of points."""


@pytest.mark.parametrize("points", list(REQUIREMENTS))
def test_requirement(hold: Any, options: Any, points: int) -> None:
    """The least memory bandwidth that meets each limit of TPOT, at each peak rate.

    What is compared is the TPOT that the answers give, as share of the limit: near the fastest that is possible, the
    bandwidth itself is ill-conditioned.
    """
    if options.quick and points > 10**4:
        pytest.skip("--quick: at most 10⁴ points")
    rates, count = REQUIREMENTS[points]
    problem, limits = Problem(rates, 2), np.geomspace(4e-3, 100e-3, count)
    counted = work(problem, "decode")
    asked = problem.arguments(mem_bw=1e12) | {"slo": gz.SLO(tpot=gz.axis(limits, dim="limit")), "progress": False}

    def share(found: Arrays) -> Arrays:
        bandwidth = np.where(np.isnan(found["mem_bw"]), np.inf, found["mem_bw"])
        time = np.full(bandwidth.shape, float(counted.fixed[0]))
        for i in range(counted.flops.shape[1]):
            moved = counted.bytes[0, i] / bandwidth.astype(float) + counted.onchip[0, i]
            time += np.maximum(counted.flops[0, i] / problem.flops[:, None], moved)
        used = time / limits
        assert (used[np.isfinite(bandwidth)] < 1 + 1e-5).all()
        return {"used": np.where(np.isfinite(bandwidth), used, 0.0)}

    def arrays(dataset: Any) -> Arrays:
        return share({"mem_bw": dataset.mem_bw.transpose("flops", "limit").values[None]})

    hold(
        "requirement",
        points,
        competitors.ours(lambda: gz.require("mem_bw", **asked), arrays),
        [] if options.gpu else competitors.least_bandwidth(problem, limits, share),
        flops_per_point=counted.flops_per_point,
    )


BATCHES = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192)
TP = (1, 2, 4, 8)
BEST = {10**6: (100, 100), 10**7: (250, 400), 10**8: (1000, 1000), 10**9: (2500, 4000)}
"""Peak rates and memory bandwidths, by about the number of points with all batches and tensor parallel sizes."""


@pytest.mark.parametrize("points", list(BEST))
def test_best_parallelism(hold: Any, options: Any, points: int) -> None:
    """The least TPOT over tensor parallel sizes and batches, at each rate and bandwidth, without the whole."""
    if options.quick and points > 10**6:
        pytest.skip("--quick: at most 10⁶ points")
    rates, bandwidths = (20, 30) if options.quick else BEST[points]
    problem = Problem(rates, bandwidths, batches=BATCHES, tp=TP)
    asked = problem.arguments() | {"stage": "request", "figures": ["tpot"], "progress": False}

    def call() -> Any:
        return gz.sweep(**asked, reduce=gz.Best("tpot", over=["tp", "batch"]))

    counted = work(problem, "decode")
    best = hold(
        "best parallelism",
        problem.points,
        competitors.ours(call, lambda dataset: {"least": dataset.tpot.transpose("flops", "mem_bw").values}),
        [] if options.gpu else competitors.best(problem, "decode"),
        flops_per_point=counted.flops_per_point + 1.0,
    )
    assert np.isin(best.tp, TP).all()
    assert np.isin(best.batch, BATCHES).all()


@pytest.mark.parametrize("points", [10**9])
def test_best_of_all(hold: Any, options: Any, points: int) -> None:
    """The least energy of a request over all points that run within limits of TTFT and TPOT, without the whole."""
    rates, bandwidths = (20, 30) if options.quick else BEST[points]
    if why := room_for(2e9):
        pytest.skip(why)
    problem = Problem(rates, bandwidths, batches=BATCHES, tp=TP)
    figures = ["ttft", "tpot", "energy", "feasible"]
    asked = problem.arguments() | {"stage": "request", "figures": figures, "progress": False}
    goals = gz.SLO(ttft="2 s", tpot="20 ms")

    def call() -> Any:
        return gz.sweep(**asked, reduce=gz.Best("energy"), slo=goals)

    best = hold(
        "best of all",
        problem.points,
        competitors.ours(call, lambda dataset: {"energy": dataset.energy.values}),
        [],
        flops_per_point=sum(work(problem, stage).flops_per_point for stage in ("prefill", "decode")),
    )
    assert best.feasible
    assert best.ttft <= 2
    assert best.tpot <= 20e-3
