"""Precision: the number format of each kind of tensor."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from genz_jax import units
from genz_jax.fields import COUNT, SHARE, Label, Number, Rule, Spec, convert, near, number
from genz_jax.formats import FORMATS, read_format

_FORMAT_CODE = Rule(
    f"must be the name of a number format or its code, 0 to {len(FORMATS) - 1}: {', '.join(FORMATS)}",
    low_included=True,
    high=len(FORMATS) - 1,
    whole=True,
)

TENSORS = ("weights", "activations", "kv_cache", "scores", "experts", "embedding", "accumulation", "state")
"""Tensors that have a format each, in a `Precision`."""


class Precision(Spec):
    """Number formats: bytes per element of each kind of tensor, and the format of its arithmetic.

    A product of two tensors runs at the wider of their formats: linear layers at that of `weights` and `activations`,
    experts and the head likewise, attention at that of `scores` and `kv_cache`. So weight-only quantization
    ("int4-bf16") saves bytes and no arithmetic.

    With `kv_outliers` s and `kv_rank` r the KV cache is compressed as GEAR does (arXiv 2403.05527): an element of N
    tokens of D channels takes b + s·2 + r·(N + D)/(N·D)·2 bytes, where b is `kv_cache`.
    """

    weights: Number = number(units.ONE, "bytes per weight")
    activations: Number = number(units.ONE, "bytes per activation")
    kv_cache: Number = number(units.ONE, "bytes per element of the KV cache")
    scores: Number = number(units.ONE, "bytes per attention score")
    experts: Number = number(units.ONE, "bytes per weight of routed experts")
    embedding: Number = number(units.ONE, "bytes per weight of embedding and head")
    accumulation: Number = number(units.ONE, "bytes per element of partial sums that ranks reduce")
    state: Number = number(units.ONE, "bytes per element of recurrent states")
    weights_format: Number = number(units.ONE, "code of the format of weights", rule=_FORMAT_CODE)
    activations_format: Number = number(units.ONE, "code of the format of activations", rule=_FORMAT_CODE)
    kv_cache_format: Number = number(units.ONE, "code of the format of the KV cache", rule=_FORMAT_CODE)
    scores_format: Number = number(units.ONE, "code of the format of attention scores", rule=_FORMAT_CODE)
    experts_format: Number = number(units.ONE, "code of the format of routed experts", rule=_FORMAT_CODE)
    embedding_format: Number = number(units.ONE, "code of the format of embedding and head", rule=_FORMAT_CODE)
    kv_outliers: Number = number(units.ONE, "share of the KV cache that is kept in 16 bits besides", 0.0, rule=SHARE)
    kv_rank: Number = number(units.ONE, "rank of the 16-bit correction of each head's KV cache", 0.0, rule=COUNT)
    label: Label = eqx.field(static=True, default=Label())

    def __init__(
        self,
        weights: Any = "bf16",
        activations: Any = None,
        kv_cache: Any = None,
        compute: Any = None,
        label: Label | None = None,
        *,
        scores: Any = None,
        experts: Any = None,
        embedding: Any = None,
        accumulation: Any = None,
        state: Any = "fp32",
        kv_outliers: Any = 0.0,
        kv_rank: Any = 0.0,
        **formats: Any,
    ):
        """Make a precision from format names (`formats.read_format` has their grammar) or bytes per element.

        Args:
            weights: format of weights.
            activations: format of activations; by default that of the weights, or bf16 where that is one of storage
                only, such as int4:128x16 or 4.85bit.
            kv_cache: format of the KV cache; by default that of the activations.
            compute: format of the arithmetic of all tensors, where it is not their own; needed for bytes.
            label: name shown to people; by default the formats.
            scores: format of attention scores and of queries in attention; by default that of the activations.
            experts: format of the weights of routed experts; by default that of the weights.
            embedding: format of embedding and head; by default that of the weights.
            accumulation: format of partial sums that ranks reduce; by default that of the activations.
            state: format of recurrent states.
            kv_outliers: share of the KV cache kept in 16 bits besides.
            kv_rank: rank of the 16-bit correction of each head's KV cache.
            **formats: codes of formats, `weights_format` and so on, where they are not those of the names.

        Raises:
            ValueError: an unknown format, or bytes without a format of their arithmetic.
        """
        given: dict[str, Any] = {"weights": weights, "activations": activations, "kv_cache": kv_cache}
        given |= {"scores": scores, "experts": experts, "embedding": embedding}
        given |= {"accumulation": accumulation, "state": state}
        if activations is None and isinstance(weights, str) and read_format("Precision.weights", weights).storage_only:
            given["activations"] = "bf16"
        for name, source in _SAME_AS.items():
            if given[name] is None:
                given[name] = given[source]
                if f"{source}_format" in formats:
                    formats.setdefault(f"{name}_format", formats[f"{source}_format"])
        if isinstance(compute, str):
            compute = FORMATS.index(read_format("Precision.compute", compute).format)
        elif compute is not None:
            compute = convert("Precision.compute", compute, units.ONE, _FORMAT_CODE)
        for name, value in given.items():
            where = f"Precision.{name}"
            tensor = read_format(where, value) if isinstance(value, str) else None
            setattr(self, name, value if tensor is None else tensor.bytes)
            if name in ("accumulation", "state"):
                continue
            code = formats.pop(f"{name}_format", compute)
            if code is None and tensor is not None:
                code = FORMATS.index(tensor.format)
            if code is None and value is not None:
                raise ValueError(
                    f"Precision.compute: {name} is given in bytes, so compute must name the format of its arithmetic, "
                    f"one of {', '.join(FORMATS)}"
                )
            setattr(self, f"{name}_format", code)
        if formats:
            known = [field.name for field in dataclasses.fields(self)]
            raise ValueError(f"Precision has no field {next(iter(formats))!r}{near(next(iter(formats)), known)}")
        self.kv_outliers, self.kv_rank = kv_outliers, kv_rank
        self.label = label if label is not None else Label(_formats_text(given))

    def replace(self, **changes: Any) -> "Precision":
        known = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for name in changes:
            if name not in known:
                raise ValueError(f"Precision has no field {name!r}{near(name, known)}")
        # A format given by its name brings its own arithmetic.
        stale = {f"{name}_format" for name, value in changes.items() if isinstance(value, str)} - set(changes)
        values = {name: value for name, value in known.items() if name not in stale}
        return Precision(**values | {"label": Label(f"{self.name} changed")} | changes)

    def kv_element(self, tokens: Number, channels: Number) -> Number:
        """Bytes per element of the KV cache of one head, for so many tokens and channels: b + 2s + 2r(N + D)/(N·D)."""
        size = tokens * channels
        low_rank = self.kv_rank * (tokens + channels) / jnp.where(size > 0, size, 1.0)
        return self.kv_cache + 2.0 * (self.kv_outliers + jnp.where(size > 0, low_rank, 0.0))

    @property
    def compute(self) -> Number:
        """Code of the format that linear layers run at: the wider of weights and activations."""
        return wider(self.weights_format, self.activations_format)

    @property
    def name(self) -> str:
        """Name of the precision, for people; `inputs.precision` reads it."""
        return self.label.text


_SAME_AS = {
    "activations": "weights",
    "kv_cache": "activations",
    "scores": "activations",
    "experts": "weights",
    "embedding": "weights",
    "accumulation": "activations",
}
"""Tensor whose format another has by default, in the order in which they are filled in."""


def wider(a: Number, b: Number) -> Number:
    """Code of the wider of two formats."""
    return jnp.minimum(a, b) if any(isinstance(x, jax.Array) for x in (a, b)) else np.minimum(a, b)


def _formats_text(given: dict[str, Any]) -> str:
    """Formats as text: weights-activations-cache, and those of other tensors that are not as by default."""
    main = [given[name] for name in ("weights", "activations", "kv_cache") if isinstance(given[name], str)]
    text = main[0] if len(set(main)) == 1 else "-".join(main)
    default = {name: given[source] for name, source in _SAME_AS.items()} | {"state": "fp32"}
    others = [name for name in TENSORS[3:] if isinstance(given[name], str) and given[name] != default[name]]
    return "/".join([text, *(f"{name}={given[name]}" for name in others)])
