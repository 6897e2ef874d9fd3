"""What a tuning is given: specs, bounds, limits and weights as arrays, and the parallel sizes that can be."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from genz_jax import catalog
from genz_jax.base import units
from genz_jax.base.axes import Axis
from genz_jax.base.fields import WHOLE, convert, field_at, near
from genz_jax.labelled import labels
from genz_jax.labelled.inputs import read_case
from genz_jax.machine.network import too_small
from genz_jax.questions.tune.problem import SPREAD, Budget, Form, Limit
from genz_jax.serving.evaluate import Case
from genz_jax.serving.slo import SLO
from genz_jax.serving.stage import as_arrays, replica_devices
from genz_jax.specs import Engine, Platform
from genz_jax.specs.reasons import REASONS, Reason
from genz_jax.work.sharding import mapping_reason
from genz_jax.work.step import Deployment

SLOLike = SLO | Mapping[str, SLO] | Sequence[SLO | None] | str | None

CHOICES = 2**20
"""Choices of parallel sizes that are looked at, at most."""


@dataclasses.dataclass(frozen=True)
class Variable:
    """A number that is tuned: its name, path in a case, bounds in base units, and unit."""

    name: str
    path: str
    low: float
    high: float
    unit: str

    @property
    def spread(self) -> bool:
        """True for a parallel size."""
        return self.name in SPREAD


def read_tuned_case(
    model: Any, platform: Any, workload: Any, parallelism: Any, precision: Any, engine: Engine | None
) -> tuple[Case, tuple[str, ...], dict[str, str]]:
    """The case with workloads of shape (w, 1), the names of the workloads, and what to call the parts."""
    case, shown = read_case(model, platform, workload, parallelism, precision, None, engine, "request")
    names = [shown["workload"]]
    for path, axis in labels.axes_of(case).items():
        if axis.dims != ("workload",) or not axis.listed:
            raise ValueError(f"{path} is an axis: tune takes single numbers; give what is tuned in bounds")
        names = [str(name) for name in axis.coords["workload"]]

    def column(leaf: Any) -> Any:
        values = (leaf.values if isinstance(leaf, Axis) else np.asarray(leaf, float)).reshape(-1, 1)
        return np.broadcast_to(values, (len(names), 1))

    load = jax.tree.map(column, case.workload, is_leaf=lambda leaf: isinstance(leaf, Axis))
    labels.refuse_bare_arrays(dataclasses.replace(case, workload=type(case.workload)()))
    return dataclasses.replace(case, workload=load), tuple(names), shown


def read_variables(case: Case, bounds: Mapping[str, Sequence[Any]], over: Sequence[str] | None) -> tuple[Variable, ...]:
    """The variables with their bounds in base units.

    Raises:
        ValueError: no such number, no bounds for it, or bounds that cannot be.
    """
    names = list(bounds if over is None else over)
    if not names:
        raise ValueError("bounds = {}: nothing to tune; give e.g. bounds={'mem_bw': ('1 TB/s', '20 TB/s')}")
    variables = []
    for name in names:
        if name not in bounds:
            raise ValueError(
                f"bounds: none for {name!r}; give its least and greatest value, e.g. ('1 TB/s', '20 TB/s')"
            )
        path, unit, rule = _find(case.platform, name)
        ends = bounds[name]
        if isinstance(ends, str) or not hasattr(ends, "__len__") or len(ends) != 2:
            raise ValueError(f"bounds[{name!r}] = {ends!r}: must be the least and the greatest value")
        low, high = (float(convert(f"bounds[{name!r}]", end, unit, rule)) for end in ends)
        if not 0 < low <= high:
            raise ValueError(f"bounds[{name!r}]: from {low:g} to {high:g}; must be above 0 and rise")
        if path in (v.path for v in variables):
            raise ValueError(f"bounds: {name!r} stands twice")
        variables.append(Variable(name, path, low, high, unit))
    return tuple(variables)


def _find(platform: Platform, name: str) -> tuple[str, str, Any]:
    """Path in a case, unit and rule of a number that can be tuned."""
    if name in SPREAD:
        return f"parallelism.{name}", units.ONE, WHOLE
    if name == "batch":
        return "workload.batch", units.ONE, WHOLE
    path = platform.full(name)
    known = [*(p for p in platform.paths() if not p.startswith("rates.")), *platform.aliases, "batch", *SPREAD]
    if path not in platform.paths():
        raise ValueError(f"bounds: no number {name!r} of a platform, batch or parallel size{near(name, known)}")
    meta = field_at(platform, path)
    if meta["rule"].whole:
        raise ValueError(f"bounds: {name!r} is a whole number; of these {', '.join(SPREAD)} and batch can be tuned")
    return f"platform.{path}", meta["units"], meta["rule"]


def read_limits(names: tuple[str, ...], budget: Any, slo: SLOLike) -> list[tuple[Limit, float]]:
    """All limits and their values; memory first."""
    held: list[tuple[Limit, float]] = [(Limit("memory", "memory", k), 1.0) for k in range(len(names))]
    if budget is not None:
        if not isinstance(budget, Budget):
            unknown = [name for name in budget if name not in {f.name for f in dataclasses.fields(Budget)}]
            if unknown:
                known = [f.name for f in dataclasses.fields(Budget)]
                raise ValueError(f"budget: no limit {unknown[0]!r}{near(unknown[0], known)}")
            budget = Budget(**budget)
        held += [(Limit("budget", name), float(bound)) for name, bound in budget.limits().items()]
    for k, one in enumerate(_read_slos(names, slo)):
        if one is not None:
            held += [(Limit("slo", name, k), float(bound)) for name, bound in one.limits().items()]
    return held


def _read_slos(names: tuple[str, ...], slo: SLOLike) -> list[SLO | None]:
    if slo is None or isinstance(slo, SLO):
        return [slo] * len(names)
    if isinstance(slo, str):
        if slo != "catalogue":
            raise ValueError(f"slo = {slo!r}: must be a gz.SLO, one for each workload, or 'catalogue'")
        found = []
        for name in names:
            notes = catalog.about("workload", name).notes
            limits = {limit: notes[limit] for limit in ("ttft", "tpot") if limit in notes}
            found.append(SLO(**limits) if limits else None)
        return found
    if isinstance(slo, Mapping):
        if unknown := [name for name in slo if name not in names]:
            raise ValueError(f"slo: no workload {unknown[0]!r}{near(str(unknown[0]), names)}")
        return [slo.get(name) for name in names]
    if len(slo) != len(names):
        raise ValueError(f"slo: {len(slo)} for {len(names)} workloads; give one for each, None for none")
    return list(slo)


def read_weights(names: tuple[str, ...], weights: Any) -> np.ndarray:
    """Shares of the workloads, which add up to 1, as a column."""
    if isinstance(weights, Mapping):
        if unknown := [name for name in weights if name not in names]:
            raise ValueError(f"weights: no workload {unknown[0]!r}{near(str(unknown[0]), names)}")
        weights = [weights.get(name, 0.0) for name in names]
    shares = np.ones(len(names)) if weights is None else np.asarray(weights, float)
    if shares.shape != (len(names),) or not (np.isfinite(shares).all() and (shares >= 0).all() and shares.sum() > 0):
        raise ValueError(f"weights = {weights!r}: must be {len(names)} numbers of 0 or more, one for each workload")
    return (shares / shares.sum())[:, None]


def choices_of(case: Case, form: Form, variables: tuple[Variable, ...], shown: dict[str, str]) -> np.ndarray:
    """All parallel sizes within the bounds that the model, the network and the batch allow, (s, m).

    Sizes join the table one by one, and rows that break a rule leave it before the next one does. Only tp and ep join
    before the first look: 6 key-value heads go over 4 · 3 ranks, but not over 4.

    Args:
        case: the specs, workloads of shape (w, 1).
        form: structure of the problem.
        variables: the variables with their bounds.
        shown: what to call the parts.

    Raises:
        ValueError: no choice is left, or more than `CHOICES` are to be tried.
    """
    given = {v.name: v for v in variables}
    load = case.workload
    if "batch" in given:
        load = load.replace(batch=np.full_like(load.batch, given["batch"].high))
    model, load, platform, formats = as_arrays((case.model, load, case.platform, case.precision))

    def reasons(sizes: dict[str, np.ndarray]) -> np.ndarray:
        spread = as_arrays(case.parallelism.replace(**{name: size[None] for name, size in sizes.items()}))
        deployment = Deployment(spread, formats, form.assumptions)
        shape = (load.batch.shape[0], sizes["tp"].size)
        code = np.broadcast_to(mapping_reason(model, deployment, load), shape).max(axis=0)
        small = too_small(replica_devices(deployment), platform)[0]
        return np.where(code > 0, code, np.where(small, Reason.network_too_small.value, 0))

    table = {name: np.ones(1) for name in SPREAD}
    for name in SPREAD:
        fixed = getattr(case.parallelism, name)
        least, most = (given[name].low, given[name].high) if name in given else [float(np.asarray(fixed or 1.0))] * 2
        sizes = np.arange(round(least), round(most) + 1, dtype=float)
        rows = table[name].size
        if rows * sizes.size > CHOICES:
            asked = ", ".join(n for n in SPREAD if n in given)
            raise ValueError(
                f"tune: more than {CHOICES:,} choices of parallel sizes within the bounds of {asked}; narrow them"
            )
        table = {other: np.repeat(column, sizes.size) for other, column in table.items()}
        table[name] = np.tile(sizes, rows)
        if name == "tp":
            continue
        code = reasons(table)
        if not (code == 0).any():
            why = REASONS[Reason(int(code[0]))]
            raise ValueError(f"tune: no parallel sizes within the bounds that {shown['model']} can have ({why})")
        table = {other: column[code == 0] for other, column in table.items()}
    return np.stack([table[name] for name in SPREAD])
