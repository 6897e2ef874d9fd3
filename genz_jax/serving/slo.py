"""SLO: what a service promises, and by how much a result misses it."""

from typing import Any

import jax.numpy as jnp

from genz_jax.base import units
from genz_jax.base.fields import Number, Spec, field_at, number
from genz_jax.serving.results import RequestResult

_FIGURES = {name: name for name in ("ttft", "tpot", "throughput", "interactivity")} | {"e2e": "latency"}
"""Figure of a request that each limit of an `SLO` bounds."""

CEILINGS = {limit: name for limit, name in _FIGURES.items() if field_at(RequestResult, name)["better"] == "min"}
"""Those that are bounded from above."""

FLOORS = {limit: name for limit, name in _FIGURES.items() if field_at(RequestResult, name)["better"] == "max"}
"""Those that are bounded from below."""


def bounded_figure(limit: str, stage: str = "request") -> str:
    """Figure that a limit bounds: a sequence that is encoded is done when its batch is, whatever its micro-batch."""
    return "batch_time" if (limit, stage) == ("e2e", "encode") else (CEILINGS | FLOORS)[limit]


class SLO(Spec):
    """Service level objective of requests. A limit that is None is not set."""

    ttft: Number = number(units.SECOND, "time to first token, at most", None)
    tpot: Number = number(units.SECOND, "time per output token, at most", None)
    e2e: Number = number(units.SECOND, "end-to-end latency of a request, at most", None)
    throughput: Number = number(units.TOKEN_RATE, "output tokens per second, all requests together, at least", None)
    interactivity: Number = number(units.TOKEN_RATE, "output tokens per second of one request, at least", None)

    def limits(self) -> dict[str, Any]:
        """The limits that are set, by name."""
        named = {name: getattr(self, name) for name in (*CEILINGS, *FLOORS)}
        return {name: limit for name, limit in named.items() if limit is not None}

    def use(self, result: RequestResult) -> dict[str, Number]:
        """How much of each limit is used: figure/limit, or limit/figure for those from below. Met where at most 1."""
        used = {}
        for name, limit in self.limits().items():
            if name in CEILINGS:
                used[name] = getattr(result, CEILINGS[name]) / limit
            else:
                used[name] = limit / getattr(result, FLOORS[name])
        return used

    def met(self, result: RequestResult) -> Number:
        """True where every limit is met; false where the point does not run."""
        good: Number = result.feasible
        for used in self.use(result).values():
            good = jnp.logical_and(good, used <= 1.0)
        return good
