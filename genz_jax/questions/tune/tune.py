"""Tuning: the best hardware, parallelism and batch under budgets and service level objectives, by gradient."""

from collections.abc import Mapping, Sequence
from typing import Any

from genz_jax.labelled.inputs import WorkloadLike
from genz_jax.machine.cost import CostFunction, CostModel
from genz_jax.questions.tune.inputs import (
    SLOLike,
)
from genz_jax.questions.tune.problem import Budget
from genz_jax.questions.tune.result import TuneResult
from genz_jax.questions.tune.tuner import build_problem
from genz_jax.serving.goals import Objective
from genz_jax.specs import Engine, Model, Parallelism, Platform, Precision
from genz_jax.specs.assumptions import Assumptions


def tune(
    objective: str | Objective,
    model: str | Model,
    platform: str | Platform,
    workload: WorkloadLike | None = None,
    parallelism: Parallelism | None = None,
    precision: str | Precision | None = None,
    *,
    bounds: Mapping[str, Sequence[Any]],
    over: Sequence[str] | None = None,
    budget: Budget | Mapping[str, Any] | None = None,
    slo: SLOLike = None,
    weights: Sequence[float] | Mapping[str, float] | None = None,
    cost_model: CostModel | CostFunction | None = None,
    engine: Engine | None = None,
    assumptions: str | Assumptions = "default",
    starts: int = 1024,
    steps: int = 180,
    seed: int = 0,
    check_grid: bool | int = False,
    progress: bool = True,
) -> TuneResult:
    """Find the design that is best by one figure, under limits of money, power, area, latency and memory.

    All starts descend at once in one compiled scan: Adam in the logarithms of the variables on an augmented Lagrangian,
    projected onto the bounds, with maxima smoothed less and less and exact at the end. The best are polished by cutting
    planes on the exact model, which give the multipliers of the limits and a lower bound. What memory must hold is a
    limit like the others, so that nothing is offloaded. Batch is tuned as a real number, then whole numbers around it
    are tried, until none of the eight around the best is better, and all else is polished anew. Parallel sizes are not
    relaxed, for heads and experts divide or do not, so that between two sizes there is nothing that a slope could
    follow, and rounding may lead to a size that the model does not allow: every choice within the bounds that it does
    allow gets starts of its own, and within each the problem is smooth. That is exact over the whole numbers, as long
    as there are no more choices than starts; of more, those go on that promise most at scattered designs, and the
    certificate says how many.

    Args:
        objective: a figure of cost (`price`, `power`, `area`, `cost_per_hour`, or of all devices `system_price` …), of
            cost and speed (`cost_per_million_tokens`), or of a request (`latency`, `throughput` …); throughput,
            throughput per device and interactivity are maximised, all else minimised. Or a function of the
            `RequestResult` and the `Platform` that is minimised.
        model: a catalogue name or a `gz.Model`.
        platform: the platform whose other numbers are kept.
        workload: one workload, or a list or mapping of them that the same design must serve.
        parallelism: how the model is spread where that is not tuned.
        precision: number formats; by default that of the model's checkpoint, else bf16.
        bounds: least and greatest value by name: any continuous number of a platform (`flops`, `mem_bw`,
            `mem_capacity`, `link_bw`, `network.1.bandwidth` …), `batch`, `tp`, `ep`, `cp`, `pp`, `dp`.
        over: which of the bounded numbers are tuned; by default all.
        budget: upper limits of cost, a `gz.Budget` or a dict of its fields.
        slo: a `gz.SLO` for all workloads, one for each as a list or by name, or "catalogue" for those that the
            catalogue has.
        weights: shares of the workloads in the objective, which is the mean of theirs; by default equal.
        cost_model: constants of cost, or a function of a platform that returns a `CostResult`.
        engine: what bounds a forward pass; by default `gz.Engine()`.
        assumptions: "default", "genz", or a `gz.Assumptions`.
        starts: how many starts.
        steps: steps of the descent.
        seed: of the places of the starts.
        check_grid: compare with the best of a dense grid of that many points; True for a million.
        progress: show a progress bar when it takes more than two seconds.

    Returns:
        The optimum, what holds it back and what that is worth, and a certificate; print it for a table.

    Raises:
        Infeasible: no design within the bounds meets all limits (a `ValueError`); which are missed, and by how much.
        ValueError: an unknown name, a bound that cannot be, or no parallel sizes that can.

    Example:
        >>> import genz_jax as gz
        >>> bounds = {"flops": ("50 TFLOP/s", "5 PFLOP/s"), "mem_bw": ("500 GB/s", "20 TB/s")}
        >>> found = gz.tune("price", "llama-3.1-8b", "H100-SXM", bounds=bounds, slo=gz.SLO(tpot="5 ms"), starts=16)
        >>> [held.name for held in found.active]  # the bound that keeps the price from being less
        ['flops']
    """
    for name, count in (("starts", starts), ("steps", steps)):
        if isinstance(count, bool) or not (count >= 1 and count == int(count)):
            raise ValueError(f"{name} = {count!r}: must be a whole number of 1 or more")
    tuner = build_problem(
        objective,
        model,
        platform,
        workload,
        parallelism,
        precision,
        bounds=bounds,
        over=over,
        budget=budget,
        slo=slo,
        weights=weights,
        cost_model=cost_model,
        engine=engine,
        assumptions=assumptions,
    )
    return tuner.run(starts, steps, seed, 1_000_000 if check_grid is True else int(check_grid), progress)
