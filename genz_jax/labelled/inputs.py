"""Inputs: what a person gives (names, specs, lists of them) as one case."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from genz_jax import catalog
from genz_jax.base.axes import Axis
from genz_jax.base.fields import Spec
from genz_jax.catalog.hugging_face import checkpoints
from genz_jax.catalog.precisions import precision
from genz_jax.labelled import context_limit
from genz_jax.serving.evaluate import Case
from genz_jax.specs import Engine, Model, Parallelism, Platform, Precision, Speculation, Workload
from genz_jax.specs.stack import stack
from genz_jax.work.sharding import generates_nothing, why_nothing_is_generated

ModelLike = str | Model | Sequence[str | Model] | Mapping[str, str | Model] | np.ndarray
PlatformLike = str | Platform | Sequence[str | Platform] | Mapping[str, str | Platform] | np.ndarray
WorkloadLike = str | Workload | Sequence[str | Workload] | Mapping[str, str | Workload] | np.ndarray
ParallelismLike = Parallelism | Sequence[Parallelism] | Mapping[str, Parallelism]
PrecisionLike = str | Precision | Sequence[str | Precision] | Mapping[str, str | Precision] | np.ndarray


def _no_parallelism(text: str) -> Parallelism:
    raise ValueError(f"parallelism = {text!r}: must be a gz.Parallelism, for example gz.Parallelism(tp=8)")


def _shown(spec: Any) -> str:
    if isinstance(spec, Parallelism) and not any(isinstance(x, Axis) for x in jax.tree.leaves(spec)):
        shown = [f"{name}{float(getattr(spec, name)):g}" for name in ("tp", "ep", "pp")]
        outer = {name: float(getattr(spec, name) or 1) for name in ("cp", "dp")}
        return "-".join(shown + [f"{name}{size:g}" for name, size in outer.items() if size > 1])
    if isinstance(spec, Workload) and not spec.name:
        return _label_of_sizes(spec)
    return getattr(spec, "name", "")


def _label_of_sizes(workload: Workload) -> str:
    """Label for an unnamed workload from its scalar sizes; swept sizes are left out."""
    sizes = {"batch": workload.batch, "input": workload.input_tokens, "output": workload.output_tokens}
    single = {what: n for what, n in sizes.items() if not isinstance(n, Axis | Tracer) and np.ndim(n) == 0}
    return ", ".join(f"{what} {float(n):g}" for what, n in single.items())


def one_or_list(
    what: str, given: Any, kind: type[Spec], look_up: Callable[[str], Any] | None = None
) -> tuple[Any, list[str]]:
    """The spec that was given, and the names along its dimension `what` if it was a list."""
    items, names = _items(what, given, kind, look_up)
    return (_listed(what, items, names), names) if names else (items[0], [])


def _items(
    what: str, given: Any, kind: type[Spec], look_up: Callable[[str], Any] | None = None
) -> tuple[list[Any], list[str]]:
    """The specs that were given, and their names if it was a list."""

    def read(item: Any) -> Any:
        if isinstance(item, str) and look_up is not None:
            return look_up(item)
        if not isinstance(item, kind):
            shown = f"a {type(item).__name__}" if isinstance(item, Spec) else repr(item)
            raise ValueError(f"{what} = {shown}: must be a name or a gz.{kind.__name__}, or a list of them")
        return item

    if isinstance(given, str | Spec) or given is None:
        return [read(given)], []
    if isinstance(given, Mapping):
        names, items = [str(name) for name in given], [read(item) for item in given.values()]
    elif isinstance(given, Sequence) or isinstance(given, np.ndarray):
        items = [read(item) for item in given]
        names = [_shown(item) or f"{what}{i}" for i, item in enumerate(items)]
    else:
        return [read(given)], []
    if not items:
        raise ValueError(f"{what} = []: an empty list; at least one is needed")
    for name in names:
        if names.count(name) > 1:
            raise ValueError(
                f"{what}: the name {name!r} stands twice; give a mapping {{name: spec}} with names of their own"
            )
    return items, names


def _listed(dim: str, items: Sequence[Any], names: Sequence[str]) -> Any:
    """Specs as one whose numbers are axes of the dimension."""
    label = np.array(names)
    return jax.tree.map(lambda leaf: Axis(leaf, (dim,), None, {dim: label}, listed=True), stack(items))


def _own_precision(models: Sequence[Model], names: Sequence[str]) -> tuple[Any, str]:
    """The precision of the checkpoints of models, along their dimension where it differs, and its name."""
    own = [checkpoints.own_precision(model) for model in models]
    texts = list(dict.fromkeys(one.name for one in own))
    return (own[0] if len(texts) == 1 else _listed("model", own, names)), ", ".join(texts)


def read_case(
    model: ModelLike,
    platform: PlatformLike,
    workload: WorkloadLike | None,
    parallelism: ParallelismLike | None,
    precision_: PrecisionLike | None,
    speculation: Speculation | None,
    engine: Engine | None = None,
    stage: str | None = None,
) -> tuple[Case, dict[str, str]]:
    """The case that was asked for.

    Args:
        model: a catalogue name, a `Model`, a list of these, or a mapping of names to these. Likewise the others.
        platform: the platform or platforms.
        workload: the workload or workloads; by default one request of 1,024 + 128 tokens.
        parallelism: one or several; by default one device.
        precision_: one or several; by default that of the model's checkpoint, along the models where theirs differ.
        speculation: the draft model and its use, for the speculative stages.
        engine: what bounds a pass of prefill; by default `Engine()`.
        stage: what is asked, to refuse models that cannot do it and warn of contexts beyond them.

    Returns:
        The case, whose lists have become axes, and what to call its parts.

    Raises:
        ValueError: an unknown name, an empty list, a name twice, or embedding models alone for a stage that generates.
    """
    models, labels = _items("model", model, Model, catalog.model)
    parts = {
        "model": (_listed("model", models, labels) if labels else models[0], labels),
        "platform": one_or_list("platform", platform, Platform, catalog.platform),
        "workload": one_or_list("workload", Workload() if workload is None else workload, Workload, catalog.workload),
        "parallelism": one_or_list(
            "parallelism", Parallelism() if parallelism is None else parallelism, Parallelism, _no_parallelism
        ),
    }
    if precision_ is None:
        own, text = _own_precision(models, labels)
        parts["precision"] = own, [text]
    else:
        parts["precision"] = one_or_list("precision", precision_, Precision, precision)
    if speculation is not None and not isinstance(speculation, Speculation):
        raise ValueError(f"speculation = {speculation!r}: must be a gz.Speculation(draft, tokens, acceptance)")
    if speculation is not None and isinstance(speculation.draft, str):
        raise ValueError(
            f"Speculation.draft = {speculation.draft!r}: must be a model, such as gz.model({speculation.draft!r})"
        )
    names = {what: ", ".join(labels) or _shown(spec) for what, (spec, labels) in parts.items() if what != "parallelism"}
    if speculation is not None and speculation.draft is None:
        _refuse_without_module(parts["model"][0], parts["model"][1] or [names["model"] or "the model"])
    if speculation is not None:
        names["draft"] = "multi-token prediction" if speculation.draft is None else _shown(speculation.draft)
    if engine is not None and not isinstance(engine, Engine):
        raise ValueError(f"engine = {engine!r}: must be a gz.Engine(tokens_per_step)")
    engine = Engine() if engine is None else engine
    case = Case(**{what: spec for what, (spec, _) in parts.items()}, speculation=speculation, engine=engine)
    if stage not in (None, "encode"):
        refuse_to_generate(case.model, names["model"])
    if speculation is not None and speculation.draft is not None:
        refuse_to_generate(speculation.draft, names["draft"])
    if stage is not None:
        context_limit.warn_beyond(case, names["model"], stage)
    return case, names


def refuse_to_generate(model: Model, name: str) -> None:
    """Refuse a model, or a list of models, of which none generates.

    Raises:
        ValueError: it has no language model head, or sees both ways.
    """
    model = model.replace(lm_head=_values(model.lm_head), bidirectional=_values(model.bidirectional))
    if np.all(generates_nothing(model)):
        raise ValueError(why_nothing_is_generated(model, name))


def _values(number: Any) -> np.ndarray | None:
    """The values of a number; None where it is absent or only traced."""
    if number is None or isinstance(number, Tracer):
        return None
    return np.asarray(number.values if isinstance(number, Axis) else number)


def _refuse_without_module(model: Model, names: list[str]) -> None:
    """Raise ValueError if a model is to draft its own tokens and has no module for it."""
    layers = model.mtp_layers.values if isinstance(model.mtp_layers, Axis) else model.mtp_layers
    if isinstance(layers, Tracer):
        return
    lacking = np.broadcast_to(np.asarray(layers) < 1, (len(names),) if len(names) > 1 else ())
    if lacking.any():
        named = ", ".join(np.atleast_1d(names)[np.atleast_1d(lacking)])
        raise ValueError(
            f"speculation.draft is None, but {named} has no module for multi-token prediction (mtp_layers = 0); give a "
            "draft model, gz.Speculation(gz.model(…)), or set mtp_layers"
        )
