"""Fit: what a deployment leaves for the KV cache, how many requests it holds, and the fewest devices that would do."""

import dataclasses
from collections.abc import Callable

import numpy as np

from genz_jax.base import units
from genz_jax.labelled import labels
from genz_jax.labelled.inputs import read_case
from genz_jax.questions.estimate import refuse
from genz_jax.questions.search import candidates as c
from genz_jax.questions.search.largest import MOST
from genz_jax.questions.search.space import SearchSpace
from genz_jax.questions.sweep import ask
from genz_jax.serving.evaluate import compiled, slim
from genz_jax.serving.results import MemoryResult
from genz_jax.specs import Engine, Model, Parallelism, Platform, Precision, Workload
from genz_jax.specs.assumptions import Assumptions
from genz_jax.specs.reasons import Reason

_FIGURES = (
    "memory",
    "free",
    "weights",
    "activations",
    "buffers",
    "kv_cache",
    "feasible",
    "reason",
)

_FEW = 64
"""Devices up to which a deployment is looked for first."""


@dataclasses.dataclass(frozen=True)
class Fit:
    """Memory of a deployment in whole numbers. Print it for a summary.

    Attributes:
        capacity: memory of a device as its driver reports it, in B.
        usable: what of it weights, cache, activations and buffers may take, in B.
        memory: what they take, in B.
        kv_tokens: tokens that the KV caches of all replicas hold, at this length of a request.
        concurrency: requests of this length that they hold, as engines log it.
        largest_batch: requests at once that fit, with the activations of so many.
        least_devices: where it does not fit, the fewest devices on which it does, up to 4,096; None if there are none,
            or it fits.
        least: how they spread the model.
    """

    capacity: float
    usable: float
    memory: float
    kv_tokens: float
    concurrency: float
    largest_batch: float
    least_devices: int | None
    least: Parallelism | None

    @property
    def share(self) -> float:
        """Used share of what may be used; above 1 it does not fit."""
        return self.memory / self.usable

    @property
    def fits(self) -> bool:
        """Whether the requests fit."""
        return self.memory <= self.usable

    def __str__(self) -> str:
        taken, usable, whole = (units.show(value, units.BYTE) for value in (self.memory, self.usable, self.capacity))
        lines = [f"memory: {taken} of {usable} usable ({self.share:.1%}), of {whole} of a device"]
        if self.kv_tokens > 0:
            held = f"{self.kv_tokens:,.0f} tokens, {self.concurrency:,.1f} requests of this length"
            lines.append(f"KV cache: {held}; largest batch {self.largest_batch:,.0f}")
        if not self.fits:
            lines.append(self._advice())
        return "\n".join(lines)

    def _advice(self) -> str:
        if self.least_devices is None or self.least is None:
            return f"does not fit on up to {c.LARGEST:,} devices"
        sizes = {name: round(float(getattr(self.least, name) or 1)) for name in c.SIZES}
        spread = ", ".join(f"{name} {size}" for name, size in sizes.items() if size > 1) or "tp 1"
        return f"fits on {self.least_devices:,} device{'s' if self.least_devices > 1 else ''} ({spread})"


def fit(
    model: str | Model,
    platform: str | Platform,
    workload: str | Workload | None = None,
    parallelism: Parallelism | None = None,
    precision: str | Precision | None = None,
    *,
    engine: Engine | None = None,
    assumptions: str | Assumptions = "default",
) -> Fit:
    """What fits beside the weights, and the fewest devices that would do where the requests do not fit.

    With R = usable − weights − activations − buffers of a device, at the largest batch that fits, and K its cache for
    one request of this length, a replica holds R/K requests: `concurrency` = dp · R/K, and `kv_tokens` = concurrency ·
    (input + output tokens), as engines log them, in whole blocks.

    Args:
        model: a catalogue name or a `gz.Model`.
        platform: a catalogue name or a `gz.Platform`.
        workload: the requests; by default one of 1,024 + 128 tokens.
        parallelism: how the model is spread; by default on one device.
        precision: number formats; by default those of the model's checkpoint, else bf16.
        engine: what bounds a pass; by default `gz.Engine()`.
        assumptions: "default", "genz", or a `gz.Assumptions`.

    Returns:
        The numbers, as floats.

    Raises:
        ValueError: as for `gz.estimate`.

    Example:
        >>> import genz_jax as gz
        >>> room = gz.fit("llama-3.1-70b", "H100-SXM", gz.Workload(32, 2048, 256), gz.Parallelism(tp=2), "fp8")
        >>> room.least_devices is None, room.concurrency > 32  # it fits
        (True, True)
    """
    case, names = read_case(model, platform, workload, parallelism, precision, None, engine, "memory")
    if axes := labels.axes_of(case):
        raise ValueError(f"{next(iter(axes))} is an axis: fit takes one point; use gz.sweep with stage='memory'")
    question = ask("memory", assumptions, _FIGURES, False, False)
    case = slim(case)
    assert case.engine is not None
    # Larger batches are tried than are given, which may take several passes.
    case = dataclasses.replace(case, engine=case.engine.replace(single_pass=False))

    def held(batch: float) -> MemoryResult:
        part = dataclasses.replace(case, workload=case.workload.replace(batch=batch))
        return compiled(question, quick=True)(part)

    load, replicas = case.workload, float(case.parallelism.dp)
    found = held(float(load.batch))
    refuse(case, names, Reason(int(found.reason_code)), question.assumptions)
    largest = replicas * _greatest(lambda requests: bool(held(requests * replicas).free >= 0))
    served = max(largest, replicas)
    full = held(served)
    usable = float(full.memory + full.free)
    room = max(usable - float(full.weights + full.activations + full.buffers), 0.0)
    one = float(full.kv_cache) / (served / replicas)
    concurrency = replicas * room / one if one > 0 else np.inf
    length = float(load.input_tokens + load.output_tokens * load.beams)
    least = None
    if not bool(found.feasible):
        place = dataclasses.replace(question, figures=("feasible", "reason"))
        least = _least(SearchSpace(case, names, [case.precision], place))
    return Fit(
        capacity=float(case.platform.mem_capacity),
        usable=usable,
        memory=float(found.memory),
        kv_tokens=float(np.floor(concurrency * length)) if np.isfinite(concurrency) else np.inf,
        concurrency=concurrency,
        largest_batch=largest,
        least_devices=None if least is None else int(least["devices"]),
        least=None if least is None else Parallelism(**{name: int(least[name]) for name in c.SIZES}),
    )


def _greatest(good: Callable[[int], bool]) -> int:
    """The greatest whole number up to `MOST` that is good, by doubling and halving; 0 if not even 1 is."""
    if not good(1):
        return 0
    low, high = 1, 2
    while high <= MOST and good(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if good(middle) else (low, middle)
    return low


def _least(space: SearchSpace) -> dict[str, int] | None:
    """Sizes of the deployment on the fewest devices on which the requests fit; of several that with the largest tp."""
    batch = int(space.case.workload.batch)
    for first, last in ((1, _FEW), (_FEW + 1, c.LARGEST)):
        allowed = {"tp": None, "ep": None, "pp": None, "cp": np.ones(1, int), "dp": np.arange(1, min(batch, last) + 1)}
        columns, _ = space.candidates(np.arange(first, last + 1), allowed, np.array([batch]), None)
        if not c.length(columns):
            continue
        reasons = space.evaluate(columns, False)["reason"].values
        rows = np.flatnonzero(reasons == Reason.feasible.value)
        if rows.size:
            best = rows[np.lexsort((-columns["tp"][rows], columns["devices"][rows]))[0]]
            return {name: int(column[best]) for name, column in columns.items()}
    return None
