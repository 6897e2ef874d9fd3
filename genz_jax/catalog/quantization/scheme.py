"""Scheme: which format each linear layer of a checkpoint has, and the text of the precision that says it."""

import math
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from genz_jax.base.formats import FORMAT_BYTES, FORMATS, read_format
from genz_jax.catalog.hugging_face.config import refusal, shown
from genz_jax.catalog.quantization.modules import Module

LARGE_BLOCK = 1024
"""Weights with one scale from which on the scale is left out: 32 bits for so many are 0.4 % of 8 bits."""


class Format(NamedTuple):
    """Format of the weights of a linear layer and of the activations that enter it.

    Attributes:
        weights: number format of the weights.
        activations: that of the activations.
        table: bits of a table that each matrix has besides, as codebooks are.
    """

    weights: str
    activations: str = "bf16"
    table: float = 0.0

    def bits(self, elements: float = float("inf")) -> float:
        """Bits of a weight in a matrix of so many."""
        return 8.0 * read_format("quantization", self.weights).bytes + self.table / elements

    @property
    def arithmetic(self) -> int:
        """Code of the format that the product runs at, the wider of the two."""
        tensors = (read_format("quantization", text) for text in (self.weights, self.activations))
        return min(FORMATS.index(tensor.format) for tensor in tensors)


PLAIN = Format("bf16")
"""Layers that are not quantized; those of 16 bits are all taken as bf16."""


class Scheme(NamedTuple):
    """What a config says of the formats of a checkpoint.

    Attributes:
        format_of: format of a linear layer, by the module.
        cache: format of the KV cache.
        claims: what says that some layers are quantized, by where it stands: whether a module is one of them.
    """

    format_of: Callable[[Module], Format]
    cache: str = "bf16"
    claims: Mapping[str, Callable[[Module], bool]] = MappingProxyType({})


def integers(bits: int, block: int = 0, scale: int = 16) -> str:
    """Format of whole numbers of so many bits with `scale` bits for each block of them; 0 for none."""
    scaled = block and block < LARGE_BLOCK
    if bits in (2, 4, 8):
        return f"int{bits}:{block}x{scale}" if scaled else f"int{bits}"
    return _bits_text(bits + scale / block if scaled else bits)


def _bits_text(bits: float) -> str:
    return f"{bits:.5g}bit"


def precision_text(formats: Iterable[tuple[Module, Format]], cache: str) -> str:
    """The precision as text: formats of attention and of the cache, and those of other kinds that differ.

    Where layers of one kind differ, bytes are exact: the kind has the mean of its bits. Of its formats it runs at the
    one whose products would take nearest to the time that the layers take, each in its own.
    """
    kinds: dict[str, list[tuple[Format, float]]] = {}
    for module, format in formats:
        kinds.setdefault(module.kind, []).append((format, module.elements))
    found = {kind: _joined(formats) for kind, formats in kinds.items()}
    main = found.get("attention", next(iter(found.values())))
    shown = [main.weights, main.activations, cache]
    text = shown[0] if len(set(shown)) == 1 else "-".join(shown)
    named = {kind: _kind_text(found[kind], main) for kind in ("ffn", "experts", "shared_experts") if kind in found}
    others = [f"{kind}={value}" for kind, value in named.items() if value != main.weights]
    embedding = found["embedding"].weights
    head = found.get("head", PLAIN)
    # A head in 16 bits runs in 16 bits, whatever activations the other layers have.
    if "head" in found and (value := head.weights if head == PLAIN else _kind_text(head, main)) != embedding:
        others.append(f"head={value}")
    if embedding != main.weights:
        others.append(f"embedding={embedding}")
    return "/".join([text, *others])


def _kind_text(format: Format, main: Format) -> str:
    same = format.activations == main.activations
    return format.weights if same else f"{format.weights}-{format.activations}"


def _joined(formats: Iterable[tuple[Format, float]]) -> Format:
    """One format for layers that have several."""
    sizes: dict[Format, float] = {}
    bits = 0.0
    for format, elements in formats:
        sizes[format] = sizes.get(format, 0.0) + elements
        bits += format.bits(elements) * elements
    total = sum(sizes.values())
    mean = bits / total
    if len(sizes) == 1 and not next(iter(sizes)).table:
        return next(iter(sizes))
    # Products of a format take time as its bytes.
    width = {format: FORMAT_BYTES[FORMATS[format.arithmetic]] for format in sizes}
    time = sum(width[format] * size for format, size in sizes.items()) / total
    off = {format: abs(math.log(width[format] / time)) for format in sizes}
    like = min(sizes, key=lambda format: (off[format], -sizes[format], format))
    return Format(_element_text(mean, like), like.activations)


def _element_text(bits: float, like: Format) -> str:
    """Format of weights of so many bits that run as another format does."""
    runs_at = FORMATS[like.arithmetic]
    least = 8.0 * read_format("quantization", runs_at).bytes
    if runs_at in ("bf16", "fp16") or bits < least:
        return _bits_text(bits)
    more = round((bits - least) * 1024)
    return f"{runs_at}:1024x{more}" if more else runs_at


# ---------------------------------------------------------------------------------------------- reading the values


def fail(where: str, problem: str) -> ValueError:
    """A quantization that cannot be read: the file, what is in the way, and what to give instead, in one line."""
    return ValueError(f"{refusal(where, problem, 300 - len(_INSTEAD))}{_INSTEAD}")


_INSTEAD = "; give the formats instead: --precision or precision=, e.g. fp8-fp8-bf16"


def whole(where: str, told: Mapping[str, Any], key: str, default: int | None = None, least: int = 1) -> int:
    """A whole number of a quantization.

    Raises:
        ValueError: it is missing or no whole number of at least `least`.
    """
    value = told.get(key)
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**31:
        raise fail(where, f"{key} = {shown(value)}: must be a whole number of {least} or more")
    return value


def flag(where: str, told: Mapping[str, Any], key: str, default: bool) -> bool:
    """True or false.

    Raises:
        ValueError: it is neither.
    """
    value = told.get(key)
    value = default if value is None else value
    if not isinstance(value, bool):
        raise fail(where, f"{key} = {shown(value)}: must be true or false")
    return value


def block_size(where: str, told: Mapping[str, Any], key: str = "group_size", default: int | None = None) -> int:
    """Weights with a scale of their own, 0 for a whole column or matrix (-1, 0 or null in configs)."""
    value = told.get(key)
    if value is None and default is None:
        return 0
    size = whole(where, told, key, default, -1)
    return max(size, 0)


def names_of(where: str, told: Mapping[str, Any], *keys: str) -> list[str]:
    """Names of modules under any of the keys.

    Raises:
        ValueError: no list of words.
    """
    found: list[str] = []
    for key in keys:
        if (value := told.get(key)) is not None:
            value = [value] if isinstance(value, str) else value
            if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
                raise fail(where, f"{key} = {str(value)[:60]}: must be a list of names of modules")
            found += value
    return found


def cache_format(where: str, told: Mapping[str, Any], *keys: str) -> str:
    """Format of the KV cache; bf16 where nothing is said.

    Raises:
        ValueError: a format that is not known.
    """
    for key in keys:
        scheme = told.get(key)
        if scheme is None or scheme == {} or scheme == []:
            continue
        if isinstance(scheme, Mapping):
            if (scheme.get("type"), scheme.get("num_bits")) in (("float", 8), ("int", 8)):
                return "fp8" if scheme["type"] == "float" else "int8"
            if (scheme.get("type"), scheme.get("num_bits"), scheme.get("group_size")) == ("float", 4, 16):
                return "nvfp4"
            raise fail(where, f"{key} of {scheme.get('num_bits')!r} bits of the type {scheme.get('type')!r}: not known")
        name = str(scheme).lower()
        if name in _CACHES:
            return _CACHES[name]
        raise fail(where, f"{key} = {str(scheme)[:40]!r}: a format of the KV cache that is not known")
    return "bf16"


_CACHES = {
    **dict.fromkeys(("fp8", "fp8_e4m3", "fp8_e5m2", "float8_e4m3fn", "fp8_inc"), "fp8"),
    "int8": "int8",
    "nvfp4": "nvfp4",
    **dict.fromkeys(("auto", "none", "bf16", "bfloat16", "fp16", "float16"), "bf16"),
}
