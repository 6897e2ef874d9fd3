"""Registry: what the package knows of each kind of part of a `Model`, one record per kind."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

from genz_jax.base.fields import Number, Spec
from genz_jax.specs import Model
from genz_jax.work.operators.operator import Operator
from genz_jax.work.step import Deployment, Step

Build = Callable[[str, Any, Number, Step, Deployment], list[Operator]]
"""Operators of one layer on one device, from its name, the part, the model's width, the pass and the deployment."""


@dataclasses.dataclass(frozen=True)
class Layer:
    """One kind of part of a `Model`.

    Attributes:
        operators: builds the operators of one layer; the part's `layers` says how often they run.
        parameters: field of `ParameterCount` for what the operators store, but for what they count elsewhere
            (`Operator.stored_as`).
        sharded: names of the sizes that are split over T = tp·ep ranks, which T must divide. A second one, key-value
            heads, must divide the first and may also be replicated evenly over the ranks.
        experts: the part has `experts`, which ep must divide, and each token takes `top_k` of them; their parameters
            count as `experts`.
        role: "mixer" if the part mixes tokens, "feed-forward" if it does not, else "auxiliary". A module for
            multi-token prediction has one layer of each of the first two.
        preference: of several kinds of a role, a prediction module has that with the highest number.
    """

    operators: Build
    parameters: str = "other"
    sharded: tuple[str, ...] = ()
    experts: bool = False
    role: Literal["mixer", "feed-forward", "auxiliary"] = "auxiliary"
    preference: int = 0


_LAYERS: dict[type[Spec], Layer] = {}


def register(kind: type[Spec], layer: Layer) -> None:
    """Make a kind of part known; a kind that was known gets the new record.

    Args:
        kind: class of the part, a `Spec` with a number `layers`. Subclasses need a record of their own.
        layer: its record.
    """
    _LAYERS[kind] = layer


def layer(kind: type[Spec], **fields: Any) -> Callable[[Build], Build]:
    """Register the decorated function as what builds the operators of a kind.

    Args:
        kind: class of the part.
        **fields: the other fields of its `Layer`.

    Example:
        `@layer(gz.layers.FFN, parameters="ffn", role="feed-forward")`
    """

    def decorate(build: Build) -> Build:
        register(kind, Layer(build, **fields))
        return build

    return decorate


def layers_of(model: Model) -> list[tuple[str, Any, Layer]]:
    """Parts of a model in the order of its fields: name, part and record of each kind that it has.

    The parts of a tuple `projections` are named `projection_0`, `projection_1`, …

    Raises:
        ValueError: a part of a kind without a record.
    """
    found = []
    for field in dataclasses.fields(model):
        value = getattr(model, field.name)
        parts = [(field.name, value)]
        if isinstance(value, tuple):
            parts = [(f"{field.name.removesuffix('s')}_{i}", part) for i, part in enumerate(value)]
        for name, part in parts:
            if isinstance(part, Spec):
                found.append((name, part, record_of(name, part)))
    return found


def record_of(name: str, part: Spec) -> Layer:
    """Record of a part's kind.

    Raises:
        ValueError: there is none.
    """
    kind = type(part)
    if kind not in _LAYERS:
        raise ValueError(
            f"Model.{name}: no record says what a {kind.__name__} costs; add one with "
            f"genz_jax.work.layers.registry.register({kind.__name__}, Layer(…))"
        )
    return _LAYERS[kind]
