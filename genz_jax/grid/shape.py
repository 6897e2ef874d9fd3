"""Shape: how a grid is cut into blocks of one shape."""

import dataclasses
import math
from collections.abc import Mapping

import jax

from genz_jax.labelled import labels
from genz_jax.serving.evaluate import Case

Dims = tuple[str, ...]

SMALL = 2**12
"""Points up to which a grid of one block is compiled quickly, and its lengths are rounded up to powers of two, above to
four binary digits: such a call takes milliseconds whatever it computes, and to compile for other lengths seconds."""


FEW = 2**13
"""Points up to which a quick compilation saves more than it costs: 1.6 s of 3.1 s for the figures of a request, for
0.4 µs more for each point of an evaluation, of which a search makes dozens."""


@dataclasses.dataclass(frozen=True)
class Blocking:
    """How large blocks are.

    Attributes:
        points: points of a block: enough to hide the cost of a call, few enough to reuse memory.
        work_points: points of a block along the axes that the operators' counts depend on, which are held for every
            operator.
        spread: points of a block from which it is spread over all local devices; fewer are done sooner by one.
    """

    points: int
    work_points: int = 2**12
    spread: int = 2**16

    def with_points(self, points: int | None) -> "Blocking":
        """The same with at most so many points, where a number is given."""
        return self if points is None else dataclasses.replace(self, points=min(points, self.points))


CPU = Blocking(2**19)
"""Measured on 2 cores, 10^7 points of one float32 figure: 41 ms at 2^15, 23 at 2^17, 22 at 2^19, 24 at 2^21."""

ACCELERATOR = Blocking(2**22)
"""Measured on an H100, 10^8 points of one float32 figure: 5.6e8 points/s at 2^22, 2.3e8 at 2^19."""


def blocking() -> Blocking:
    """The sizes of blocks for the kind of device that computes them."""
    return CPU if jax.default_backend() == "cpu" else ACCELERATOR


def axis_order(case: Case, sizes: Mapping[str, int]) -> Dims:
    """Dimensions from slow to fast: the platform's last, so that counts are reused, and of these the longest last."""
    others = work_dims(case)
    work = [dim for dim in sizes if dim in others]
    machine = sorted((dim for dim in sizes if dim not in others), key=lambda dim: sizes[dim])
    return (*work, *machine)


def work_dims(case: Case) -> set[str]:
    """Dimensions that the operators' counts depend on: those that not only the platform or an objective has."""
    axes = labels.axes_of(case).items()
    return {dim for path, axis in axes if not path.startswith(("platform.", "slo.")) for dim in axis.dims or ()}


def block_shape(
    sizes: Mapping[str, int], order: Dims, work: set[str], limits: Blocking | None = None, least: int = 2
) -> dict[str, int]:
    """Lengths of a block along each dimension: the slow ones are cut first.

    Args:
        sizes: lengths of the dimensions.
        order: dimensions from slow to fast.
        work: dimensions that the operators' counts depend on.
        limits: how large blocks are; by default as the device asks for.
        least: length that none is cut below, 1 or 2; at 2 an output's shape still shows what it depends on.
    """
    limits = limits or blocking()
    shape = {dim: sizes[dim] for dim in order}
    _cut(shape, [dim for dim in order if dim in work], limits.work_points, least)
    _cut(shape, list(order), limits.points, least)
    return shape


def _cut(shape: dict[str, int], dims: list[str], limit: int, least: int) -> None:
    """Shorten dimensions, slow ones first, until their product is at most `limit`."""
    for dim in dims:
        others = math.prod(shape[d] for d in dims if d != dim)
        longest = max(limit // others, least)
        # Blocks of equal length waste least on the last one.
        shape[dim] = math.ceil(shape[dim] / math.ceil(shape[dim] / longest)) if shape[dim] > longest else shape[dim]


def rounded_shape(case: Case, sizes: Mapping[str, int], order: Dims, limits: Blocking | None = None) -> dict[str, int]:
    """Lengths of a block; those of a grid of one block are round, so that most such grids share what is compiled."""
    shape = block_shape(sizes, order, work_dims(case), limits)
    if any(shape[dim] < sizes[dim] for dim in order):
        return shape
    rounded = {dim: round_up(n, 1) for dim, n in shape.items()}
    if math.prod(rounded.values()) > SMALL:
        rounded = {dim: round_up(n, 4) for dim, n in shape.items()}
    return rounded


def round_up(number: int, digits: int) -> int:
    """The next number that has so many binary digits and zeros after them."""
    step = 1 << max((number - 1).bit_length() - digits, 0)
    return math.ceil(number / step) * step
