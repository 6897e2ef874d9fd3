"""Number formats: bytes per element with scales, and what the matrix units run a tensor of that format at."""

import enum
import re
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from genz_jax.base.units import brief


class Format(enum.IntEnum):
    """Number formats of the matrix units by code, wide to narrow."""

    fp32 = 0
    tf32 = 1
    bf16 = 2
    fp16 = 3
    fp8 = 4
    int8 = 5
    fp6 = 6
    fp4 = 7
    int4 = 8
    int2 = 9


FORMATS = tuple(format.name for format in Format)
"""Names of the formats, wide to narrow."""

FORMAT_BYTES: dict[str, float] = dict(zip(FORMATS, (4.0, 4.0, 2.0, 2.0, 1.0, 1.0, 0.75, 0.5, 0.5, 0.25), strict=True))
"""Bytes per element of each format."""

BLOCK_FORMATS: dict[str, tuple[str, float]] = {
    "nvfp4": ("fp4", 0.5 + 1.0 / 16.0),
    "mxfp4": ("fp4", 0.5 + 1.0 / 32.0),
    "mxfp6": ("fp6", 0.75 + 1.0 / 32.0),
    "mxfp8": ("fp8", 1.0 + 1.0 / 32.0),
}
"""Block-scaled formats: the format of the elements, and bytes per element with the scales.

NVFP4 has an 8-bit scale for 16 elements, the OCP microscaling formats (MX specification 1.0) one for 32.
"""

WIDER: dict[str, tuple[str, ...]] = {
    "fp32": (),
    "tf32": ("fp32",),
    "bf16": (),
    "fp16": ("bf16",),
    "fp8": ("bf16",),
    "int8": ("fp8", "bf16"),
    "fp6": ("fp8", "bf16"),
    "fp4": ("fp6", "fp8", "bf16"),
    "int4": ("fp4", "int8", "fp8", "bf16"),
    "int2": ("int4", "fp4", "int8", "fp8", "bf16"),
}
"""Formats tried, in order, where a platform has no rate for one; every platform has fp32 and bf16."""

_GROUPED = re.compile(r"(?P<element>[a-z]+[0-9]+):(?P<block>[0-9]+)x(?P<scale>[0-9]+)")
_BITS = re.compile(r"(?P<bits>[0-9]+(\.[0-9]+)?)bit")


class Tensor(NamedTuple):
    """How a tensor is stored: bytes per element, the format that its arithmetic has, and whether it is only stored.

    `name` is the format's text, the same for all spellings of one format.
    """

    bytes: float
    format: str
    name: str
    storage_only: bool = False


_NAMED = {name: Tensor(size, name, name) for name, size in FORMAT_BYTES.items()}
_NAMED |= {name: Tensor(size, element, name) for name, (element, size) in BLOCK_FORMATS.items()}
_NAME_OF = {(tensor.bytes, tensor.format): name for name, tensor in _NAMED.items()}


def read_format(where: str, text: str) -> Tensor:
    """Read a number format from text.

    One of `FORMATS` or `BLOCK_FORMATS`; `int4:128x16` for elements with a scale of 16 bits for each block of 128, so
    that an element takes (4 + 16/128)/8 bytes; or `4.85bit` for any number of bits per element, which runs at the
    narrowest integer format that holds it, as the mixed formats of weight-only quantization do.

    Args:
        where: field that the text was given for, for the message.
        text: the format.

    Raises:
        ValueError: no such format.
    """
    name = text.strip().lower()
    if name in _NAMED:
        return _NAMED[name]
    if (grouped := _GROUPED.fullmatch(name)) and grouped["element"] in FORMAT_BYTES and int(grouped["block"]):
        element, block, scale = grouped["element"], int(grouped["block"]), int(grouped["scale"])
        return _stored(FORMAT_BYTES[element] + scale / block / 8.0, element, f"{element}:{block}x{scale}")
    if (custom := _BITS.fullmatch(name)) and 0 < float(custom["bits"]) <= 32:
        bits = float(custom["bits"])
        holds = {2: "int2", 4: "int4", 8: "int8", 16: "bf16", 32: "fp32"}
        return _stored(bits / 8.0, next(f for size, f in holds.items() if bits <= size), _bits_text(bits))
    raise ValueError(
        f"{where} = {brief(text)}: unknown number format; known are {', '.join(_NAMED)}, elements with block "
        "scales such as int4:128x16, and any size up to 32 bits such as 4.85bit"
    )


def _stored(size: float, element: str, text: str) -> Tensor:
    return Tensor(size, element, _NAME_OF.get((size, element), text), True)


def _bits_text(bits: float) -> str:
    return f"{np.format_float_positional(bits, trim='-')}bit"


def format_text(size: float, format: str) -> str:
    """Text of a format of so many bytes per element that runs at `format`; `1.5B` where no text has that format.

    Blocks are those of scales of 16 bits, or the next size that makes them whole.
    """
    if (size, format) in _NAME_OF:
        return _NAME_OF[size, format]
    text, more = _bits_text(8.0 * size), size - FORMAT_BYTES[format]
    if more > 0:
        part = Fraction(8.0 * more).limit_denominator(1 << 20)
        scale, block = part.numerator, part.denominator
        while 0 < scale < 16:
            scale, block = 2 * scale, 2 * block
        text = f"{format}:{block}x{scale}"
    if _BITS.fullmatch(text) is None or 0 < 8.0 * size <= 32:
        tensor = read_format("format", text)
        if (tensor.bytes, tensor.format) == (size, format):
            return tensor.name
    return f"{size:g}B"


def storage_name(size: float) -> str:
    """Name of the first format of so many bytes per element, for tensors without arithmetic; "" if none has."""
    return next((name for name, tensor in _NAMED.items() if tensor.bytes == size), "")
