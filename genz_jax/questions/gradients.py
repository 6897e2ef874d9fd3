"""Gradients: figures and their slopes in numbers of any spec, at every point of a grid."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp

from genz_jax.base import units
from genz_jax.base.caches import QUESTIONS
from genz_jax.base.fields import field_at
from genz_jax.base.paths import leaves
from genz_jax.grid.space import read_space
from genz_jax.labelled import labels
from genz_jax.labelled.inputs import ModelLike, ParallelismLike, PlatformLike, PrecisionLike, WorkloadLike
from genz_jax.questions.sweep import ask
from genz_jax.serving.evaluate import Case, Question, figures_of, work_of
from genz_jax.specs import Engine, Speculation
from genz_jax.specs.assumptions import Assumptions
from genz_jax.specs.figures import Result
from genz_jax.specs.numbers import SPECS, find_number
from genz_jax.specs.reasons import Reason

if TYPE_CHECKING:
    import xarray as xr


class Slopes(Result):
    """Figures and their slopes, point by point: a slope for each figure and parameter."""

    values: tuple[Any, ...]
    slopes: tuple[tuple[Any, ...], ...]
    feasible: Any
    reason_code: Any
    names: tuple[str, ...] = eqx.field(static=True)
    metas: tuple[tuple[str, str], ...] = eqx.field(static=True)
    parameters: tuple[str, ...] = eqx.field(static=True)

    def figures(self) -> dict[str, tuple[Any, dict[str, Any]]]:
        """Values and metadata by name: of each figure, and `…_gradient` along `parameter`."""
        found: dict[str, tuple[Any, dict[str, Any]]] = {}
        for name, value, slopes, (unit, long_name) in zip(
            self.names, self.values, self.slopes, self.metas, strict=True
        ):
            found[name] = (value, {"units": unit, "long_name": long_name})
            # The unit of the figure: those of the parameters differ, and are beside them.
            meta = {"units": unit, "long_name": f"slope of {long_name}, per unit of the parameter"}
            found[f"{name}_gradient"] = (dict(zip(self.parameters, slopes, strict=True)), meta | {"dim": "parameter"})
        found["feasible"] = (self.feasible, {"units": units.ONE, "long_name": "the point runs"})
        meta = {"units": units.ONE, "codes": Reason, "long_name": "why the point does not run"}
        return found | {"reason": (self.reason_code, meta)}


def gradients(
    model: ModelLike,
    platform: PlatformLike,
    workload: WorkloadLike | None = None,
    parallelism: ParallelismLike | None = None,
    precision: PrecisionLike | None = None,
    *,
    figures: str | Sequence[str] = "latency",
    parameters: str | Sequence[str] = ("flops", "mem_bw", "link_bw"),
    speculation: Speculation | None = None,
    engine: Engine | None = None,
    stage: str = "request",
    assumptions: str | Assumptions = "default",
    progress: bool = True,
) -> "xr.Dataset":
    """Figures and their derivatives ∂figure/∂parameter in base units, at every point.

    Every figure is a function of one point, so that one forward derivative for each parameter has the slopes at all
    points, each computed on the axes that it depends on; no derivative is held for more than a block of points. Where
    an operator is in balance its slope is the mean of the slopes on both sides.

    Args:
        model: a catalogue name, a `gz.Model`, a list or mapping of these, with axes; all as for `gz.sweep`.
        platform: likewise.
        workload: likewise; by default one request of 1,024 + 128 tokens.
        parallelism: likewise; by default one device.
        precision: likewise; by default that of the model's checkpoint, else bf16.
        figures: figures of the stage that are real numbers.
        parameters: numbers of any spec, such as `mem_bw`, `network.1.bandwidth`, `rates.fp8`, `batch`, `tp`,
            `model.attention.kv_heads` or `precision.weights`. What a size is rounded to (heads on a rank, blocks of the
            cache) has the slope of the size before rounding.
        speculation: the draft model and its use.
        engine: what bounds a forward pass; by default `gz.Engine()`.
        stage: as for `gz.sweep`.
        assumptions: "default", "genz", or a `gz.Assumptions`.
        progress: show a progress bar when it takes more than two seconds.

    Returns:
        An `xarray.Dataset` of the figures, and of `…_gradient` with the dimension `parameter`; NaN where a point does
        not run.

    Raises:
        ValueError: no such parameter, a figure that has no slope, or what `gz.sweep` refuses.

    Example:
        >>> import genz_jax as gz
        >>> ds = gz.gradients("llama-3.1-8b", "H100-SXM", figures="tpot", parameters="mem_bw")
        >>> bool(ds.tpot_gradient.sel(parameter="mem_bw") < 0)  # more bandwidth, less time
        True
    """
    wanted = (figures,) if isinstance(figures, str) else tuple(figures)
    space = read_space(model, platform, workload, parallelism, precision, speculation, engine, stage)
    question = ask(stage, assumptions, wanted, False, False)
    moved = _read(parameters, space.case)
    dataset = space.evaluate(slopes_of(question, moved), question, progress)
    shown = {one.name: one for one in moved}
    texts = [shown[str(name)].unit for name in dataset.parameter.values]
    return dataset.assign_coords(parameter_unit=("parameter", texts))


@dataclasses.dataclass(frozen=True)
class Moved:
    """A number that figures have slopes in.

    Attributes:
        name: its name in the result.
        place: its place among the case's numbers.
        unit: its base unit.
        platform: it is the platform's.
    """

    name: str
    place: int
    unit: str
    platform: bool


def _read(given: str | Sequence[str], case: Case) -> tuple[Moved, ...]:
    """The numbers of those names.

    Raises:
        ValueError: none, or one that the case has not, or the code of a format.
    """
    names = (given,) if isinstance(given, str) else tuple(given)
    if not names:
        raise ValueError("parameters = []: an empty list; name at least one number, such as 'mem_bw' or 'batch'")
    specs = {what: part for what in SPECS if (part := getattr(case, what)) is not None}
    dotted = {path.replace(".", "_"): path for path in leaves(case.platform)}
    places = {path: place for place, path in enumerate(leaves(case))}
    found: dict[str, Moved] = {}
    for name in names:
        what, path = find_number(specs, dotted.get(name, name))
        full = f"{what}.{specs[what].full(path)}"
        if full not in places:
            raise ValueError(f"parameters: {name!r} is absent here, so that nothing has a slope in it; give it a value")
        if full.endswith("_format"):
            raise ValueError(f"parameters: {name!r} is the code of a number format, which has no slope; use its bytes")
        meta = field_at(case, full)
        shown = path.replace(".", "_") if what == "platform" else name
        found[full] = Moved(shown, places[full], meta["units"], what == "platform")
    return tuple(found.values())


@functools.lru_cache(maxsize=QUESTIONS)
def slopes_of(question: Question, moved: tuple[Moved, ...]) -> Callable[[Case], Slopes]:
    """The function from a case to its `Slopes`; the same object for the same question and parameters."""
    assert question.figures is not None
    names = question.figures
    asked = Question(question.stage, question.assumptions, tuple(dict.fromkeys((*names, "feasible", "reason"))))

    def slopes(case: Case) -> Slopes:
        numbers, structure = jax.tree.flatten(case)
        numbers = [jnp.asarray(number, jnp.result_type(float)) for number in numbers]

        given = jax.tree.unflatten(structure, numbers)
        work = work_of(given, asked)
        result = figures_of(work, given.platform, asked)
        known = labels.flat_figures(result)
        values = tuple(jnp.asarray(known[name][0]) for name in names)

        def figures(one: Moved, value: jax.Array) -> tuple[jax.Array, ...]:
            """The figures where one number has another value; those of a platform leave the work as it is."""
            changed = [*numbers[: one.place], value, *numbers[one.place + 1 :]]
            case = jax.tree.unflatten(structure, changed)
            found = figures_of(work if one.platform else work_of(case, asked), case.platform, asked)
            return tuple(jnp.asarray(labels.flat_figures(found)[name][0]) for name in names)

        for name, value in zip(names, values, strict=True):
            if not jnp.issubdtype(value.dtype, jnp.floating):
                raise ValueError(f"figures: {name!r} of {question.stage!r} is no real number, so it has no slope")
        found = []
        for one in moved:
            own = numbers[one.place]
            # One moves and the others have no derivative at all, which is less work than one of zero.
            _, change = jax.jvp(functools.partial(figures, one), (own,), (jnp.ones_like(own),))
            # Where no figure is known there is no slope either.
            found.append([jnp.where(jnp.isnan(v), jnp.nan, d) for v, d in zip(values, change, strict=True)])
        return Slopes(
            values,
            tuple(tuple(found[k][i] for k in range(len(moved))) for i in range(len(names))),
            result.feasible,  # type: ignore[attr-defined]
            result.reason_code,  # type: ignore[attr-defined]
            names,
            tuple((known[name][1]["units"], known[name][1]["long_name"]) for name in names),
            tuple(one.name for one in moved),
        )

    return slopes
