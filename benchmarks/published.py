"""Published: genz-llm, which evaluates one point per call, on a random sample of a problem's points.

It writes small files to a temporary directory on each call; that is part of its time.
"""

import contextlib
import io
import statistics
import time
import warnings
from typing import Any

import numpy as np
from problem import CAPACITY, CARDS, DIMS, INPUT_TOKENS, LINK_BW, LINK_LATENCY, OUTPUT_TOKENS, Problem, Stage

from genz_jax.parity.cases import GIB

GENZ: Any = None
MISSING: str | None = None
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    try:
        import GenZ as GENZ  # type: ignore[no-redef]
    except ImportError as error:
        MISSING = f"{error}; genz-llm 0.0.16 is in the dependency group bench"

TURN = 3
"""Points that it evaluates in its turn."""


def covers(problem: Problem) -> bool:
    """True if genz-llm has the problem's models."""
    return all(name in CARDS for name in problem.models)


class Published:
    """genz-llm on a sample of a problem's points, a few at a time.

    Args:
        problem: the problem; its models are genz-llm's.
        stage: prefill or decode.
        turns: how many turns it has.
    """

    def __init__(self, problem: Problem, stage: Stage, turns: int):
        self.stage: Stage = stage
        self.axes = {
            "model": problem.models,
            "batch": problem.batches,
            "tp": problem.tp,
            "flops": problem.flops,
            "mem_bw": problem.mem_bw,
        }
        random = np.random.default_rng(0)
        self.places = [{dim: int(random.integers(len(self.axes[dim]))) for dim in DIMS} for _ in range(TURN * turns)]
        self.latencies: list[float] = []
        self.seconds: list[float] = []
        self.processor_seconds = 0.0

    def take_turn(self) -> None:
        """Evaluate and time the next points."""
        for place in self.places[len(self.latencies) : len(self.latencies) + TURN]:
            start, busy = time.perf_counter(), time.process_time()
            self.latencies.append(self._latency({dim: self.axes[dim][k] for dim, k in place.items()}))
            self.seconds.append(time.perf_counter() - start)
            self.processor_seconds += time.process_time() - busy

    def _latency(self, point: dict[str, Any]) -> float:
        """Latency of a point, s."""
        system = GENZ.System(
            flops=point["flops"] / 1e12,
            offchip_mem_bw=point["mem_bw"] / GIB,
            off_chip_mem_size=CAPACITY * 1024,
            interchip_link_bw=LINK_BW,
            interchip_link_latency=LINK_LATENCY,
        )
        arguments: dict[str, Any] = {
            "model": point["model"],
            "batch_size": point["batch"],
            "input_tokens": INPUT_TOKENS,
            "system_name": system,
            "bits": "bf16",
            "tensor_parallel": point["tp"],
        }
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if self.stage == "prefill":
                result = GENZ.prefill_moddeling(**arguments)
            else:
                result = GENZ.decode_moddeling(**arguments, output_tokens=OUTPUT_TOKENS, Bb=1)
        return float(result["Latency"]) * 1e-3

    def worst_difference(self, latency: Any) -> float:
        """Greatest relative difference of a sweep's latencies from genz-llm's, at the points done so far."""
        found = [
            float(latency.isel({dim: k for dim, k in place.items() if dim in latency.dims}))
            for place in self.places[: len(self.latencies)]
        ]
        return float(np.max(np.abs(np.divide(found, self.latencies) - 1)))

    def record(self) -> dict[str, Any]:
        """What was measured, in the form of `Competitor.record`."""
        median = statistics.median(self.seconds)
        return {
            "name": "genz-llm",
            "calls": len(self.seconds),
            "sampled": True,
            "points_per_second": 1 / median,
            "ns_per_point": median * 1e9,
            "cores_busy": self.processor_seconds / sum(self.seconds),
        }
