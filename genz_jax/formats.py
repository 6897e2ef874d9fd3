"""Number formats: bytes per element with scales, and what the matrix units run a tensor of that format at."""

import enum
import re
from typing import NamedTuple

from genz_jax.units import brief


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
    """How a tensor is stored: bytes per element, the format that its arithmetic has, and whether it is only stored."""

    bytes: float
    format: str
    storage_only: bool = False


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
    if name in FORMAT_BYTES:
        return Tensor(FORMAT_BYTES[name], name)
    if name in BLOCK_FORMATS:
        element, size = BLOCK_FORMATS[name]
        return Tensor(size, element)
    if (grouped := _GROUPED.fullmatch(name)) and grouped["element"] in FORMAT_BYTES and int(grouped["block"]):
        scale = int(grouped["scale"]) / int(grouped["block"]) / 8.0
        return Tensor(FORMAT_BYTES[grouped["element"]] + scale, grouped["element"], True)
    if (custom := _BITS.fullmatch(name)) and 0 < float(custom["bits"]) <= 32:
        bits = float(custom["bits"])
        holds = {2: "int2", 4: "int4", 8: "int8", 16: "bf16", 32: "fp32"}
        return Tensor(bits / 8.0, next(f for size, f in holds.items() if bits <= size), True)
    raise ValueError(
        f"{where} = {brief(text)}: unknown number format; known are {', '.join((*FORMATS, *BLOCK_FORMATS))}, elements "
        "with block scales such as int4:128x16, and any size up to 32 bits such as 4.85bit"
    )
