"""Requirement: the value of a target that just meets an objective, and what sets it or stands in the way."""

import enum
from typing import Any

import equinox as eqx

from genz_jax.base import units
from genz_jax.base.fields import Number
from genz_jax.serving.slo import CEILINGS
from genz_jax.serving.targets import Target
from genz_jax.specs.figures import Result


class Obstacle(enum.IntEnum):
    """Why no value of the target meets the objective."""

    met = 0
    compute = 1
    memory = 2
    network = 3
    capacity = 4
    mapping = 5


OBSTACLES = {
    Obstacle.met: "the objective can be met",
    Obstacle.compute: "bound by the matrix units whatever the target",
    Obstacle.memory: "bound by the memory bandwidth whatever the target",
    Obstacle.network: "bound by the links whatever the target",
    Obstacle.capacity: "weights, KV cache and working memory exceed the memory",
    Obstacle.mapping: "the model cannot be spread as asked",
}


class Limit(enum.IntEnum):
    """What sets the value of the target."""

    ttft = 0
    tpot = 1
    e2e = 2
    throughput = 3
    interactivity = 4
    capacity = 5
    none = 6


LIMITS = {
    Limit.ttft: "time to first token",
    Limit.tpot: "time per output token",
    Limit.e2e: "end-to-end latency",
    Limit.throughput: "throughput",
    Limit.interactivity: "tokens per second of one request",
    Limit.capacity: "memory capacity",
    Limit.none: "nothing: any value meets the objective",
}


class Requirement(Result):
    """The value of a target that just meets an objective, point by point.

    `best` has the figure of each limit at the best value of the target: without end for a rate, 0 for a latency, 1 for
    an efficiency or a count.
    """

    value: Number
    residual: Number
    feasible: Number
    reason_code: Number
    limit_code: Number
    best: dict[str, Number]
    target: Target = eqx.field(static=True)

    def figures(self) -> dict[str, tuple[Any, dict[str, Any]]]:
        """Values and metadata by name; the value has the name of the target."""
        target = self.target
        meets = f"{target.extreme} {target.long_name} that meets the objective"
        found = {
            target.name: (self.value, {"units": target.unit, "long_name": meets}),
            "residual": (self.residual, _meta("share of the limit that is used there, less 1")),
            "feasible": (self.feasible, _meta("some value meets the objective")),
            "reason": (self.reason_code, _meta("why no value does", codes=Obstacle, meanings=OBSTACLES)),
            "limit": (self.limit_code, _meta("what sets the value", codes=Limit, meanings=LIMITS)),
        }
        for name in (limit.name for limit in Limit if limit.name in self.best):
            unit = units.SECOND if name in CEILINGS else units.TOKEN_RATE
            meta = _meta(f"{LIMITS[Limit[name]]} at the best {target.long_name}") | {"units": unit}
            found[f"best_{name}"] = (self.best[name], meta)
        return found


def _meta(long_name: str, **more: Any) -> dict[str, Any]:
    return {"units": units.ONE, "long_name": long_name, **more}
