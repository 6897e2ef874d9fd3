"""Competitors: all ways to compute each kind of figure of a problem, under the names that the report uses."""

from collections.abc import Callable
from functools import partial
from typing import Any

import compiled_model
import device
import jax
import native
import numpy as np
import numpy_model
from contest import Arrays, Competitor, room_for
from native import Native
from problem import OUTPUT_TOKENS, Problem, Stage, Work, work
from results import ON_DEVICE, OURS, RESIDENT

import genz_jax as gz
from genz_jax.serving import evaluate

NUMPY, NUMBA, NUMEXPR = "NumPy", "numba", "numexpr"
NAIVE, FACTORED = "C, naive", "C, factored"
Call = Callable[[], Any]
ArraysOf = Callable[[Any], Arrays]
Kernel = Callable[[Native, bool], Arrays]


def forget() -> None:
    """Drop all that JAX has compiled and traced."""
    jax.clear_caches()
    evaluate.compiled.cache_clear()
    evaluate.function_of.cache_clear()


def ours(call: Call, arrays: ArraysOf) -> Competitor:
    """genz_jax, by a call that returns a Dataset."""
    return Competitor(OURS, call, arrays, forget)


def swept(problem: Problem, *figures: str, **asked: Any) -> Competitor:
    """`gz.sweep` of some figures, from specs to a labelled Dataset.

    Args:
        problem: the points.
        figures: names of figures, which are compared.
        asked: the stage, and what else `gz.sweep` takes.
    """
    arguments = problem.arguments()

    def call() -> Any:
        return gz.sweep(**arguments, figures=list(figures), progress=False, **asked)

    return ours(call, lambda dataset: {name: problem.values(dataset[name]) for name in figures})


def on_device(problem: Problem, *figures: str, stage: str) -> Competitor:
    """The same without labels, in one call whose results stay on the device."""
    call = device.on_device(problem.arguments(), stage=stage, figures=figures)
    return Competitor(ON_DEVICE, call, lambda found: {name: device.values(found, name) for name in figures})


def axes(problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    """Peak rates and memory bandwidths in float32."""
    return problem.flops.astype(np.float32), problem.mem_bw.astype(np.float32)


def watts() -> np.ndarray:
    """Watts that a device draws always, and by busy compute, memory and links."""
    chip = gz.Platform(1e15, 1e12, 1e11)
    split = chip.power_split
    shares = (split.static, split.compute, split.memory, split.network)
    return np.array([float(chip.power) * float(share) for share in shares], np.float32)


def _in_c(problem: Problem, works: list[Work], run: Kernel, resident: bool = True) -> list[Competitor]:
    """Naive and factored C, into memory of its own for each result and, if asked, of an earlier one."""
    if native.missing():
        return []
    found = []
    for suffix, kept in (("", False), (RESIDENT, True)):
        if kept and not resident:
            continue
        code = Native(*axes(problem), *works, resident=kept)
        found += [
            Competitor(f"{name}{suffix}", lambda code=code, factored=factored: run(code, factored))
            for name, factored in ((NAIVE, False), (FACTORED, True))
        ]
    return found


def _if_room(problem: Problem, arrays: float, competitor: Competitor) -> list[Competitor]:
    """The competitor, if that many arrays of all points fit in memory."""
    return [] if room_for(arrays * 4.0 * problem.points) else [competitor]


def latency(problem: Problem, stage: Stage, interpreted: bool = True) -> list[Competitor]:
    """Competitors for latency.

    Args:
        problem: the points.
        stage: prefill or decode.
        interpreted: NumPy and numexpr too, which pass over memory for each operator.
    """
    counted, (rate, bandwidth) = work(problem, stage), axes(problem)
    found = []
    if interpreted:
        numpy = Competitor(NUMPY, lambda: {"latency": numpy_model.latency(counted, rate, bandwidth)})
        found += _if_room(problem, 5, numpy)
    if NUMBA not in compiled_model.MISSING:
        by_numba = partial(compiled_model.numba_latency, counted, rate, bandwidth)
        found.append(Competitor(NUMBA, by_numba, forget=compiled_model.forget))
    if interpreted and NUMEXPR not in compiled_model.MISSING:
        found.append(Competitor(NUMEXPR, partial(compiled_model.numexpr_latency, counted, rate, bandwidth)))
    fits = room_for(5 * 4.0 * problem.points) is None
    return found + _in_c(problem, [counted], lambda code, factored: code.latency(factored), fits)


def energy(problem: Problem, stage: Stage) -> list[Competitor]:
    """Competitors for latency and energy."""
    counted, grid, power = work(problem, stage), axes(problem), watts()
    numpy = Competitor(NUMPY, lambda: numpy_model.energy(counted, *grid, power))
    in_c = _in_c(problem, [counted], lambda code, factored: code.energy(factored, power))
    return [*_if_room(problem, 6, numpy), *in_c]


def breakdown(problem: Problem, stage: Stage) -> list[Competitor]:
    """Competitors for latency by part."""
    counted, grid = work(problem, stage), axes(problem)
    parts = counted.parts
    works = [counted.part(name) for name in parts]

    def run(code: Native, factored: bool) -> Arrays:
        return dict(zip(parts, code.breakdown(factored).values(), strict=True))

    numpy = Competitor(NUMPY, lambda: numpy_model.breakdown(counted, *grid))
    return [*_if_room(problem, len(parts) + 3, numpy), *_in_c(problem, works, run)]


def request(problem: Problem) -> list[Competitor]:
    """Competitors for TTFT, TPOT and latency of a request."""
    prefill, decode, grid = work(problem, "prefill"), work(problem, "decode"), axes(problem)
    numpy = Competitor(NUMPY, lambda: numpy_model.request(prefill, decode, *grid, OUTPUT_TOKENS))
    in_c = _in_c(problem, [prefill, decode], lambda code, factored: code.request(factored, OUTPUT_TOKENS))
    return [*_if_room(problem, 6, numpy), *in_c]


def gradient(problem: Problem, stage: Stage) -> list[Competitor]:
    """Competitors for latency and its derivatives, which are written by hand."""
    counted, grid = work(problem, stage), axes(problem)
    found = _if_room(problem, 8, Competitor(NUMPY, lambda: numpy_model.gradient(counted, *grid)))
    if native.missing():
        return found
    for suffix, kept in (("", False), (RESIDENT, True)):
        code = Native(*grid, counted, resident=kept)
        found.append(Competitor(f"{FACTORED}{suffix}", code.gradient))
    return found


def best(problem: Problem, stage: Stage) -> list[Competitor]:
    """Competitors for the least latency over all deployments and which one has it."""
    counted, grid = work(problem, stage), axes(problem)

    def arrays(found: Arrays) -> Arrays:
        return {"least": found["least"]}

    found = _if_room(problem, 3, Competitor(NUMPY, lambda: numpy_model.best(counted, *grid), arrays))
    if NUMBA not in compiled_model.MISSING:
        by_numba = partial(compiled_model.numba_best, counted, *grid)
        found.append(Competitor(NUMBA, by_numba, arrays, compiled_model.forget))
    if native.missing():
        return found
    code = Native(*grid, counted)
    naive = Competitor(NAIVE, lambda: code.best(False), arrays)
    return [*found, naive, Competitor(FACTORED, lambda: code.best(True), arrays)]


def least_bandwidth(problem: Problem, limits: np.ndarray, arrays: ArraysOf) -> list[Competitor]:
    """Competitors for the least bandwidth at which decode takes no longer than each of some limits, by bisection.

    Args:
        problem: the rates.
        limits: the limits.
        arrays: what of the answers is compared.
    """
    counted, (rate, bandwidth) = work(problem, "decode"), axes(problem)
    limit = limits.astype(np.float32)
    found = [Competitor(NUMPY, lambda: numpy_model.least_bandwidth(counted, rate, limit), arrays)]
    if native.missing():
        return found
    code = Native(rate, bandwidth, counted)
    return [*found, Competitor(NAIVE, lambda: code.least_bandwidth(limit), arrays)]
