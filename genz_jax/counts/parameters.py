"""Parameters: how many a model has, by what they are for, as sums of what its operators store."""

import dataclasses

import jax
import numpy as np

from genz_jax import catalog
from genz_jax.base.fields import Number
from genz_jax.base.units import brief
from genz_jax.specs import Model, Parallelism, Precision
from genz_jax.specs.assumptions import Assumptions
from genz_jax.work.layers.embedding import embedding, head
from genz_jax.work.layers.registry import layers_of
from genz_jax.work.operators.operator import Operator
from genz_jax.work.prediction_module import prediction_module
from genz_jax.work.step import Deployment, Segment, Step
from genz_jax.work.steps import layer_operators

_ONE_BYTE = Deployment(Parallelism(), Precision("int8"), Assumptions())
_PASS = Step("encode", 1.0, 1.0, 1.0, 1.0, 1.0, (Segment("", True, 1.0, 1.0, 1.0, prompt=True),))
"""A pass of one token; what is stored does not depend on it."""


@dataclasses.dataclass(frozen=True)
class ParameterCount:
    """Parameters of a model, each field a count or an array of counts.

    Attributes:
        total: all parameters but those for multi-token prediction; a head that is tied to the embedding counts once.
        active: parameters that a token meets: the total without the routed experts that it does not take.
        attention: projections, biases, sinks, compressors and indexers of attention layers.
        ssm: state space, delta net and linear attention layers.
        ffn: dense feed-forward layers, shared experts, and the projections of latent experts.
        experts: routed experts.
        router: routers and the gates of shared experts.
        embedding: input embedding, with those of single layers.
        head: language model head, 0 where it is tied to the embedding.
        norms: all norms, those of queries and keys included.
        other: learned positions, `Projection`s, and what else has no field of its own.
        mtp: modules for multi-token prediction, which share embedding and head; not in the total.
    """

    total: Number
    active: Number
    attention: Number
    ssm: Number
    ffn: Number
    experts: Number
    router: Number
    embedding: Number
    head: Number
    norms: Number
    other: Number
    mtp: Number

    def __str__(self) -> str:
        def shown(value: Number) -> str:
            return f"{float(value):>22,.0f}" if np.ndim(value) == 0 else f"array of shape {np.shape(value)}"

        return "\n".join(f"{field.name:<12}{shown(getattr(self, field.name))}" for field in dataclasses.fields(self))


def parameter_count(model: str | Model) -> ParameterCount:
    """Count the parameters of a model.

    The counts are sums of what the operators of all layers store on one device, in a format of one byte: the shapes of
    all weights, biases and norms, as PyTorch's `Module.parameters` gives them. They are exact for whole numbers up to
    2^53. Modules for multi-token prediction are those of `prediction_module`.

    Args:
        model: name in the catalogue, or a model; its numbers may be arrays that broadcast together.

    Returns:
        The counts, NumPy float64 (JAX arrays under `jax.jit`).

    Raises:
        ValueError: an unknown name, what is no model, or a model with axes.

    Example:
        >>> import genz_jax as gz
        >>> count = gz.parameter_count("mixtral-8x7b")
        >>> int(count.total), int(count.active)
        (46702792704, 12879925248)
    """
    spec = catalog.model(model) if isinstance(model, str) else model
    if not isinstance(spec, Model):
        raise ValueError(f"model = {brief(model)}: must be a name or a gz.Model")
    for leaf in jax.tree.leaves(spec):
        if not hasattr(leaf, "dtype"):
            raise ValueError(f"model {spec.name!r} has the axis {leaf!r}: parameter_count takes numbers and arrays")
    counts, idle = _stored(spec)
    total = sum(counts.values())
    module, _ = _stored(prediction_module(spec))
    mtp = sum(count for name, count in module.items() if name != "embedding")
    counts |= {"total": total, "active": total - idle, "mtp": spec.mtp_layers * mtp}
    return ParameterCount(**{name: _whole(value) for name, value in counts.items()})


def _stored(model: Model) -> tuple[dict[str, Number], Number]:
    """Parameters by what they are for, and the routed experts that a token does not take."""
    counts: dict[str, Number] = {
        field.name: 0.0 for field in dataclasses.fields(ParameterCount) if field.name not in ("total", "active", "mtp")
    }

    def add(ops: list[Operator], usual: str) -> dict[str, Number]:
        own: dict[str, Number] = {}
        for op in ops:
            elsewhere: Number = 0.0
            for field, stored in op.stored_as.items():
                own[field] = own.get(field, 0.0) + stored * op.repeats
                elsewhere = elsewhere + stored
            own[usual] = own.get(usual, 0.0) + (op.stored - elsewhere) * op.repeats
        for field, count in own.items():
            if field not in counts:
                raise ValueError(f"parameters = {field!r}: a layer's must count for one of {', '.join(counts)}")
            counts[field] = counts[field] + count
        return own

    idle: Number = 0.0
    with np.errstate(all="ignore"):  # absent parts divide by zero in what does not count
        for name, part, layer in layers_of(model):
            own = add(layer_operators(name, part, layer, model.hidden_size, _PASS, _ONE_BYTE), layer.parameters)
            if layer.experts:
                idle = idle + own.get("experts", 0.0) * (1.0 - part.top_k / part.experts)
        add(embedding(model, _PASS, _ONE_BYTE), "embedding")
        # In this pass the last norm is the embedding's.
        add(head(model.replace(final_norms=0), _PASS, _ONE_BYTE), "head")
    return counts, idle


def _whole(count: Number) -> Number:
    """The whole number that a count is but for rounding, where means of layers were multiplied by their number."""
    return count if isinstance(count, jax.Array) else np.rint(count)
