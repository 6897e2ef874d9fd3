"""The text of a precision: formats of weights, activations and KV cache, and those of other tensors by name.

`int4:128x16-bf16-fp8/ffn=nvfp4-nvfp4/embedding=bf16`: up to three formats, of weights, activations and cache; then
`tensor=format`, or `layers=weights-activations` for layers whose input activations have a format of their own.
"""

from collections.abc import Mapping

from genz_jax.base.formats import BLOCK_FORMATS, FORMATS
from genz_jax.base.units import brief

MAIN = ("weights", "activations", "kv_cache")
"""Tensors whose formats stand first, in that order."""

LAYERS = ("attention", "ffn", "experts", "shared_experts", "head")
"""Kinds of linear layers whose weights and input activations may have formats of their own."""

OTHERS = ("scores", *LAYERS, "embedding", "accumulation", "state")
"""What may be named after the first formats, in the order of the canonical text."""

DEFAULT_OF = {
    "activations": "weights",
    "kv_cache": "activations",
    "scores": "activations",
    "attention": "weights",
    "ffn": "weights",
    "experts": "weights",
    "shared_experts": "weights",
    "embedding": "weights",
    "head": "embedding",
    "accumulation": "activations",
    **{f"{layers}_activations": "activations" for layers in LAYERS},
}
"""Tensor whose format another has by default, in the order in which they are filled in."""


def split_text(text: str) -> dict[str, str]:
    """Formats by tensor of the text of a precision, as they are written.

    Raises:
        ValueError: more than three formats first, an unknown name, a name twice, or a name without a format.
    """
    first, *named = text.split("/")
    formats = first.split("-")
    if len(formats) > 3:
        raise ValueError(f"{_what(text)}: must begin with one to three formats, weights-activations-cache")
    found: dict[str, str] = dict(zip(MAIN, formats, strict=False))
    for part in named:
        name, equals, value = (word.strip() for word in part.partition("="))
        name = name.lower()
        if not equals or name not in OTHERS:
            raise ValueError(
                f"{_what(text)}: {brief(part)} must be name=format, as in embedding=bf16; names are {', '.join(OTHERS)}"
            )
        if name in found:
            raise ValueError(f"{_what(text)}: {name} is given twice; give it once")
        found[name] = value
    return found


def _what(text: str) -> str:
    return f"precision = {brief(text)}"


def split_layers(name: str, value: str) -> tuple[str, str | None]:
    """Formats of the weights and of the input activations of a kind of layers; None where only one is written.

    Raises:
        ValueError: two formats of what has no input activations of its own, or more than two.
    """
    weights, *rest = value.split("-")
    if len(rest) > (1 if name in LAYERS else 0):
        must = "one or two formats, weights-activations" if name in LAYERS else "one format"
        raise ValueError(f"Precision.{name} = {brief(value)}: must be {must}")
    return weights, rest[0] if rest else None


def canonical_text(names: Mapping[str, str]) -> str:
    """The text of a precision, without what is as by default.

    Args:
        names: names of the formats of all tensors of `MAIN` and of those others that have one.
    """
    names = dict(names)
    for tensor, source in DEFAULT_OF.items():
        names.setdefault(tensor, names[source])
    main = [names[tensor] for tensor in MAIN]
    # A format of storage alone, written once, would leave the activations in bf16.
    alone = len(set(main)) == 1 and main[0] in (*FORMATS, *BLOCK_FORMATS)
    parts = [main[0] if alone else "-".join(main)]
    default = {tensor: names[source] for tensor, source in DEFAULT_OF.items()} | {"state": "fp32"}
    for tensor in OTHERS:
        value, activations = names.get(tensor, default[tensor]), f"{tensor}_activations"
        own = [names[activations]] if tensor in LAYERS and names[activations] != default[activations] else []
        if own or value != default[tensor]:
            parts.append(f"{tensor}={'-'.join([value, *own])}")
    return "/".join(parts)
