"""Inputs: what a person gives (names, specs, lists of them) as one case."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from genz_jax import catalog
from genz_jax.axes import Axis
from genz_jax.evaluate import Case
from genz_jax.fields import Spec
from genz_jax.specs import Model, Parallelism, Platform, Precision, Speculation, Workload
from genz_jax.stack import stack

ModelLike = str | Model | Sequence[str | Model] | Mapping[str, str | Model] | np.ndarray
PlatformLike = str | Platform | Sequence[str | Platform] | Mapping[str, str | Platform] | np.ndarray
WorkloadLike = str | Workload | Sequence[str | Workload] | Mapping[str, str | Workload] | np.ndarray
ParallelismLike = Parallelism | Sequence[Parallelism] | Mapping[str, Parallelism]
PrecisionLike = str | Precision | Sequence[str | Precision] | Mapping[str, str | Precision] | np.ndarray


def precision(text: str) -> Precision:
    """A precision from text: one format, or weights-activations-cache, for example "fp8" or "int4-bf16-fp8".

    Raises:
        ValueError: an unknown format, or more than three.
    """
    weights, *rest = text.strip().split("-")
    if len(rest) > 2:
        raise ValueError(f"precision = {text!r}: must be one to three formats, weights-activations-cache")
    return Precision(weights, *rest[:1], kv_cache=rest[1] if len(rest) == 2 else None)


def _no_parallelism(text: str) -> Parallelism:
    raise ValueError(f"parallelism = {text!r}: must be a gz.Parallelism, for example gz.Parallelism(tp=8)")


def _shown(spec: Any) -> str:
    if isinstance(spec, Parallelism) and not any(isinstance(x, Axis) for x in (spec.tp, spec.ep, spec.pp)):
        return f"tp{float(spec.tp):g}-ep{float(spec.ep):g}-pp{float(spec.pp):g}"
    if isinstance(spec, Workload) and not spec.name:
        return _requests(spec)
    return getattr(spec, "name", "")


def _requests(workload: Workload) -> str:
    """A workload without a name, by its numbers, as far as they are single ones."""
    sizes = {"batch": workload.batch, "input": workload.input_tokens, "output": workload.output_tokens}
    single = {what: n for what, n in sizes.items() if not isinstance(n, Axis | Tracer) and np.ndim(n) == 0}
    return ", ".join(f"{what} {float(n):g}" for what, n in single.items())


def one_or_list(what: str, given: Any, kind: type[Spec], look_up: Callable[[str], Any]) -> tuple[Any, list[str]]:
    """The spec that was given, and the names along its dimension `what` if it was a list."""

    def read(item: Any) -> Any:
        if isinstance(item, str):
            return look_up(item)
        if not isinstance(item, kind):
            shown = f"a {type(item).__name__}" if isinstance(item, Spec) else repr(item)
            raise ValueError(f"{what} = {shown}: must be a name or a gz.{kind.__name__}, or a list of them")
        return item

    if isinstance(given, str | Spec) or given is None:
        return read(given), []
    if isinstance(given, Mapping):
        names, items = [str(name) for name in given], [read(item) for item in given.values()]
    elif isinstance(given, Sequence) or isinstance(given, np.ndarray):
        items = [read(item) for item in given]
        names = [_shown(item) or f"{what}{i}" for i, item in enumerate(items)]
    else:
        return read(given), []
    if not items:
        raise ValueError(f"{what} = []: an empty list; at least one is needed")
    for name in names:
        if names.count(name) > 1:
            raise ValueError(
                f"{what}: the name {name!r} stands twice; give a mapping {{name: spec}} with names of their own"
            )
    stacked = stack(items)
    label = np.array(names)
    return jax.tree.map(lambda leaf: Axis(leaf, (what,), None, {what: label}, listed=True), stacked), names


def read_case(
    model: ModelLike,
    platform: PlatformLike,
    workload: WorkloadLike | None,
    parallelism: ParallelismLike | None,
    precision_: PrecisionLike | None,
    speculation: Speculation | None,
) -> tuple[Case, dict[str, str]]:
    """The case that was asked for.

    Args:
        model: a catalogue name, a `Model`, a list of these, or a mapping of names to these. Likewise the others.
        platform: the platform or platforms.
        workload: the workload or workloads; by default one request of 1,024 + 128 tokens.
        parallelism: one or several; by default one device.
        precision_: one or several; by default bf16.
        speculation: the draft model and its use, for the speculative stages.

    Returns:
        The case, whose lists have become axes, and what to call its parts.

    Raises:
        ValueError: an unknown name, an empty list, or a name twice.
    """
    parts = {
        "model": one_or_list("model", model, Model, catalog.model),
        "platform": one_or_list("platform", platform, Platform, catalog.platform),
        "workload": one_or_list("workload", Workload() if workload is None else workload, Workload, catalog.workload),
        "parallelism": one_or_list(
            "parallelism", Parallelism() if parallelism is None else parallelism, Parallelism, _no_parallelism
        ),
        "precision": one_or_list("precision", "bf16" if precision_ is None else precision_, Precision, precision),
    }
    if speculation is not None and not isinstance(speculation, Speculation):
        raise ValueError(f"speculation = {speculation!r}: must be a gz.Speculation(draft, tokens, acceptance)")
    names = {what: ", ".join(labels) or _shown(spec) for what, (spec, labels) in parts.items() if what != "parallelism"}
    if speculation is not None:
        names["draft"] = _shown(speculation.draft)
    return Case(**{what: spec for what, (spec, _) in parts.items()}, speculation=speculation), names
