"""Precision: the number format of each kind of tensor."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import numpy as np
from jax.core import Tracer

from genz_jax.base import arrays as xp, units
from genz_jax.base.fields import COUNT, SHARE, Number, Rule, Spec, convert, near, number
from genz_jax.base.formats import FORMATS, format_text, read_format, storage_name
from genz_jax.base.label import Label
from genz_jax.base.units import brief
from genz_jax.specs.precision_text import DEFAULT_OF, LAYERS, MAIN, OTHERS, canonical_text, split_layers, split_text

_FORMAT_CODE = Rule(
    f"must be the name of a number format or its code, 0 to {len(FORMATS) - 1}: {', '.join(FORMATS)}",
    low_included=True,
    high=len(FORMATS) - 1,
    whole=True,
)

TENSORS = (*MAIN, *OTHERS)
"""Tensors that may have a format of their own, in a `Precision`."""

_ALWAYS = (*MAIN, "scores", "experts", "embedding", "accumulation", "state")
"""Tensors whose bytes a precision always has; those of the others are absent where they are as by default."""

_BYTES_ALONE = ("accumulation", "state")
_INPUTS = tuple(f"{layers}_activations" for layers in LAYERS)
_FIELDS = (*TENSORS, *_INPUTS)


Layers = Literal["weights", "attention", "ffn", "experts", "shared_experts", "embedding", "head"]
"""Kinds of linear layers by their formats; `weights` are those of no other kind."""


def _bytes(long_name: str, **options: Any) -> Any:
    return number(units.ONE, f"bytes per {long_name}", **options)


def _code(long_name: str, **options: Any) -> Any:
    return number(units.ONE, f"code of the format of {long_name}", rule=_FORMAT_CODE, **options)


class Precision(Spec):
    """Number formats: bytes per element of each kind of tensor, and the format of its arithmetic.

    A product of two tensors runs at the wider of their formats: linear layers at that of their weights and of their
    input activations, attention at that of `scores` and `kv_cache`. So weight-only quantization ("int4-bf16") saves
    bytes and no arithmetic.

    A kind of linear layers may have formats of its own; absent, they are those that hold by default, and follow them:

    - `attention`: projections of attention (also latent, compressed and their indexers) and of layers with a recurrent
      state, with their biases, convolutions and decays; else `weights`.
    - `ffn`: dense feed-forward layers; `experts`: routed ones; `shared_experts`: those of all tokens; else `weights`.
    - `head`: language model head, with its bias and the norm before it; else `embedding`, the table that tokens are
      looked up in. Tied, both are one matrix, stored and read in the format of `embedding`; `head` then says what
      format its product has.
    - `weights`: routers, norms, linear layers beside the layers, and the default of the others.
    - `attention_activations`, `ffn_activations` …: input activations of the layers; else `activations`.

    With `kv_outliers` s and `kv_rank` r the KV cache is compressed as GEAR does (arXiv 2403.05527): an element of N
    tokens of D channels takes b + s·2 + r·(N + D)/(N·D)·2 bytes, where b is `kv_cache`.
    """

    weights: Number = _bytes("weight")
    activations: Number = _bytes("activation")
    kv_cache: Number = _bytes("element of the KV cache")
    scores: Number = _bytes("attention score")
    experts: Number = _bytes("weight of routed experts")
    embedding: Number = _bytes("weight of the embedding")
    accumulation: Number = _bytes("element of partial sums that ranks reduce")
    state: Number = _bytes("element of recurrent states")
    weights_format: Number = _code("weights")
    activations_format: Number = _code("activations")
    kv_cache_format: Number = _code("the KV cache")
    scores_format: Number = _code("attention scores")
    experts_format: Number = _code("routed experts")
    embedding_format: Number = _code("the embedding")
    attention: Number | None = _bytes("weight of attention and recurrent layers", default=None)
    ffn: Number | None = _bytes("weight of dense feed-forward layers", default=None)
    shared_experts: Number | None = _bytes("weight of shared experts", default=None)
    head: Number | None = _bytes("weight of the language model head", default=None)
    attention_format: Number | None = _code("attention and recurrent layers", default=None)
    ffn_format: Number | None = _code("dense feed-forward layers", default=None)
    shared_experts_format: Number | None = _code("shared experts", default=None)
    head_format: Number | None = _code("the language model head", default=None)
    attention_activations: Number | None = _bytes("input of attention and recurrent layers", default=None)
    ffn_activations: Number | None = _bytes("input of dense feed-forward layers", default=None)
    experts_activations: Number | None = _bytes("input of routed experts", default=None)
    shared_experts_activations: Number | None = _bytes("input of shared experts", default=None)
    head_activations: Number | None = _bytes("input of the language model head", default=None)
    attention_activations_format: Number | None = _code("inputs of attention and recurrent layers", default=None)
    ffn_activations_format: Number | None = _code("inputs of dense feed-forward layers", default=None)
    experts_activations_format: Number | None = _code("inputs of routed experts", default=None)
    shared_experts_activations_format: Number | None = _code("inputs of shared experts", default=None)
    head_activations_format: Number | None = _code("inputs of the language model head", default=None)
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
        attention: Any = None,
        ffn: Any = None,
        experts: Any = None,
        shared_experts: Any = None,
        head: Any = None,
        embedding: Any = None,
        accumulation: Any = None,
        state: Any = None,
        kv_outliers: Any = 0.0,
        kv_rank: Any = 0.0,
        **others: Any,
    ):
        """Make a precision from format names (`formats.read_format` has their grammar) or bytes per element.

        Args:
            weights: format of weights; or a whole precision as text, such as "fp8-fp8-bf16/ffn=nvfp4-nvfp4".
            activations: format of activations; by default that of the weights, or bf16 where that is one of storage
                only, such as int4:128x16 or 4.85bit.
            kv_cache: format of the KV cache; by default that of the activations.
            compute: format of the arithmetic of all tensors, where it is not their own; needed for bytes.
            label: name shown to people; by default the formats as text.
            scores: format of attention scores and of queries in attention; by default that of the activations.
            attention: format of attention and recurrent layers, "weights" or "weights-activations"; likewise the next.
            ffn: format of dense feed-forward layers.
            experts: format of routed experts.
            shared_experts: format of shared experts.
            head: format of the language model head; by default that of the embedding.
            embedding: format of the embedding; by default that of the weights.
            accumulation: format of partial sums that ranks reduce; by default that of the activations.
            state: format of recurrent states; by default fp32.
            kv_outliers: share of the KV cache kept in 16 bits besides.
            kv_rank: rank of the 16-bit correction of each head's KV cache.
            **others: bytes of input activations of layers, `ffn_activations` and so on, and codes of formats,
                `weights_format` and so on, where they are not those of the names.

        Raises:
            ValueError: an unknown format, one that is given twice, or bytes without a format of their arithmetic.
        """
        given: dict[str, Any] = {"weights": weights, "activations": activations, "kv_cache": kv_cache}
        given |= {"scores": scores, "attention": attention, "ffn": ffn, "experts": experts, "head": head}
        given |= {"shared_experts": shared_experts, "embedding": embedding, "accumulation": accumulation}
        given |= {"state": state} | {name: others.pop(name, None) for name in _INPUTS}
        _take_apart(given)
        if isinstance(compute, str):
            compute = FORMATS.index(read_format("Precision.compute", compute).format)
        elif compute is not None:
            compute = convert("Precision.compute", compute, units.ONE, _FORMAT_CODE)
        codes = {name: others.pop(f"{name}_format", None) for name in given if name not in _BYTES_ALONE}
        if others:
            known = [field.name for field in dataclasses.fields(self)]
            raise ValueError(f"Precision has no field {next(iter(others))!r}{near(next(iter(others)), known)}")
        names = {}
        for name, format in _filled(given, codes, compute).items():
            setattr(self, name, None if format is None else format.size)
            if name not in _BYTES_ALONE:
                setattr(self, f"{name}_format", None if format is None else format.code)
            if format is not None:
                names[name] = format.text
        self.kv_outliers, self.kv_rank = kv_outliers, kv_rank
        self.label = label if label is not None else Label(canonical_text(names))

    def replace(self, **changes: Any) -> "Precision":
        known = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "label"}
        for name, value in changes.items():
            if name not in (*known, "label"):
                raise ValueError(f"Precision has no field {name!r}{near(name, known)}")
            if isinstance(value, str) or (value is None and name in known):
                # A format given by its name brings its own arithmetic, and its own input activations.
                known |= dict.fromkeys({f"{name}_format", f"{name}_activations"} & known.keys())
                known |= dict.fromkeys({f"{name}_activations_format"} & known.keys())
            elif known.get(name) is None and f"{name}_format" in known and known[f"{name}_format"] is None:
                known[f"{name}_format"] = self._resolved(name, "_format")
        return Precision(**known | changes)

    @classmethod
    def alike(cls, specs: "Sequence[Any]") -> "Sequence[Any]":
        """The precisions, each with all formats that any of them has, for `stack`."""
        own = [name for name in _FIELDS if name not in _ALWAYS and any(getattr(s, name) is not None for s in specs)]
        return [spec.replace(**{name: spec._resolved(name) for name in own}, label=spec.label) for spec in specs]

    def _resolved(self, name: str, suffix: str = "") -> Number:
        """Bytes (or the code) of a tensor's format: its own, or that which it has by default."""
        value = getattr(self, f"{name}{suffix}")
        return self._resolved(DEFAULT_OF[name], suffix) if value is None else value

    def kind(self, layers: Layers) -> Layers:
        """The kind of layers whose formats a kind has: itself, or where it has none of its own that of its default."""
        if layers in _ALWAYS or getattr(self, layers) is not None or getattr(self, _inputs(layers)) is not None:
            return layers
        return "embedding" if layers == "head" else "weights"

    def weight_bytes(self, layers: str) -> Number:
        """Bytes per weight of a kind of layers."""
        return self._resolved(layers)

    def input_bytes(self, layers: Layers) -> Number:
        """Bytes per element of the input activations of a kind of layers."""
        return self._resolved(_inputs(layers))

    def arithmetic(self, layers: Layers) -> Number:
        """Code of the format that a kind of layers runs at: the wider of its weights and its input activations."""
        return wider(self._resolved(layers, "_format"), self._resolved(_inputs(layers), "_format"))

    def kv_element(self, tokens: Number, channels: Number) -> Number:
        """Bytes per element of the KV cache of one head, for so many tokens and channels: b + 2s + 2r(N + D)/(N·D)."""
        size = tokens * channels
        low_rank = self.kv_rank * (tokens + channels) / xp.where(size > 0, size, 1.0)
        return self.kv_cache + 2.0 * (self.kv_outliers + xp.where(size > 0, low_rank, 0.0))

    @property
    def compute(self) -> Number:
        """Code of the format that linear layers run at that have none of their own: the wider of two formats."""
        return self.arithmetic("weights")

    @property
    def name(self) -> str:
        """The formats as text, which `Precision` reads; the same for the same formats. Or the label that was given."""
        return self.label.text


def wider(a: Number, b: Number) -> Number:
    """Code of the wider of two formats."""
    return xp.minimum(a, b)


def _inputs(layers: Layers) -> str:
    """Tensor of the input activations of a kind of layers."""
    return f"{layers}_activations" if layers in LAYERS else "activations"


class _Format(NamedTuple):
    """A tensor's format: bytes per element, code of its arithmetic, and its name in the text of the precision."""

    size: Any
    code: Any
    text: str

    def same(self, other: "_Format | None") -> bool:
        """True if the other is written alike and runs at the same format."""
        if other is None or self.text != other.text:
            return False
        return self.code is other.code or (isinstance(self.code, int) and self.code == other.code)


def _take_apart(given: dict[str, Any]) -> None:
    """Take texts of several formats apart: that of a whole precision, and those of layers with their activations."""
    weights = given["weights"]
    if isinstance(weights, str) and ("/" in weights or "-" in weights):
        for name, text in split_text(weights).items():
            if name != "weights" and given[name] is not None:
                raise ValueError(f"Precision.{name}: given twice, in {brief(weights)} and by itself; give it once")
            given[name] = text
    for name in OTHERS:
        if isinstance(value := given[name], str):
            given[name], inputs = split_layers(name, value)
            if inputs is not None and given[f"{name}_activations"] is not None:
                raise ValueError(f"Precision.{name}_activations: given twice, in {name} = {value!r} and by itself")
            if inputs is not None:
                given[f"{name}_activations"] = inputs
    if given["activations"] is None and isinstance(weights := given["weights"], str):
        if read_format("Precision.weights", weights).storage_only:
            given["activations"] = "bf16"


def _filled(given: dict[str, Any], codes: dict[str, Any], compute: Any) -> dict[str, _Format | None]:
    """Formats of all tensors; None for one that is as by default, also where that is written."""
    found: dict[str, _Format | None] = {}
    for name in ("weights", *DEFAULT_OF, "state"):
        value, source = given[name], DEFAULT_OF.get(name, "")
        while source and found[source] is None:
            source = DEFAULT_OF[source]
        default, code = found.get(source), codes.get(name)
        if value is None and code is None and name not in _ALWAYS:
            found[name] = None
        elif value is None and default is not None:
            found[name] = default if code is None else default._replace(code=code)
        else:
            made = _read(name, "fp32" if name == "state" and value is None else value, code, compute)
            if name == "accumulation" and default is not None and 0 < _single(made.size) == _single(default.size):
                made = made._replace(text=default.text)  # equal in bytes, which is all that it has
            spare = name not in _ALWAYS and isinstance(value, str) and made.same(default)
            found[name] = None if spare else made
    return found


def _read(name: str, value: Any, code: Any, compute: Any) -> _Format:
    """The format of a tensor from its text or its bytes."""
    code = compute if code is None else code
    if isinstance(value, str):
        tensor = read_format(f"Precision.{name}", value)
        text = storage_name(tensor.bytes) or tensor.name if name in _BYTES_ALONE else tensor.name
        return _Format(tensor.bytes, FORMATS.index(tensor.format) if code is None else code, text)
    if code is None and value is not None and name not in _BYTES_ALONE:
        raise ValueError(
            f"Precision.compute: {name} is given in bytes, so compute must name the format of its arithmetic, "
            f"one of {', '.join(FORMATS)}"
        )
    return _Format(value, code, _shown(value, code))


def _shown(value: Any, code: Any) -> str:
    """Text of a format that is given in numbers; `*` for what is no single number."""
    size, at = _single(value), 0.0 if code is None else _single(code)
    if not (0 < size <= 4 and 0 <= at < len(FORMATS)):
        return "*"
    return format_text(size, FORMATS[int(at)]) if code is not None else storage_name(size) or f"{size:g}B"


def _single(value: Any) -> float:
    """A single number as it is, -1 for anything else."""
    plain = isinstance(value, float | int | np.number | np.ndarray | jax.Array) and not isinstance(value, Tracer)
    return float(value) if plain and np.ndim(value) == 0 else -1.0
