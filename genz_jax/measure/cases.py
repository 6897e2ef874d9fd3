"""Cases: what is timed, as functions on buffers that rotate, and where those buffers come from."""

import dataclasses
import math
import random
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import TypeVar

import torch  # pyright: ignore[reportMissingImports]

from genz_jax.measure.device import Device

ROTATED = 3.0
"""Caches that the copies of a weight fill together, so that none is left in the cache when its turn comes again."""

MOST_COPIES = 128
SHARE_OF_COPIES = 0.25
"""Of the memory, what copies may take."""

T = TypeVar("T")
Call = Callable[[], object]


@dataclasses.dataclass(frozen=True)
class Calls:
    """What is timed.

    Attributes:
        functions: the same work, each on buffers of its own.
        found: parameters that only the buffers tell.
    """

    functions: Sequence[Call]
    found: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Case:
    """One row of the table to be.

    Attributes:
        section, name, parameters: what the row says.
        build: makes the buffers, which live as long as what it returns.
        size: bytes of the buffers that cannot be done without.
        unable: why this device cannot run it, where that is known before it is tried.
        powered: measure the power of the board too.
    """

    section: str
    name: str
    parameters: Mapping[str, int | str]
    build: Callable[[], Calls]
    size: float = 0.0
    unable: str = ""
    powered: bool = False


@dataclasses.dataclass
class Stream:
    """Cases that take turns with those of other streams.

    Attributes:
        share: of the time, beside the shares of the others.
        cases: in the order of a draw.
        release: drops what its cases share.
        spent: seconds up to now.
    """

    share: float
    cases: list[Case]
    release: Callable[[], None] = lambda: None
    spent: float = 0.0


@dataclasses.dataclass(frozen=True)
class Bench:
    """What cases are built with.

    Attributes:
        device: where they run.
        kernels: fused kernels, Triton's or PyTorch's in their place.
        faulty: why a fused kernel cannot be used, by its name.
        tiny: few cases of tiny sizes, for tests.
    """

    device: Device
    kernels: ModuleType
    faulty: Mapping[str, str]
    tiny: bool = False

    def random(self, *shape: int, dtype: torch.dtype = torch.bfloat16, scale: float = 1.0) -> torch.Tensor:
        """Normally distributed numbers: zeros would draw less power and run at a higher clock."""
        drawn_in = torch.bfloat16 if dtype.itemsize == 1 else dtype
        made = torch.empty(*shape, device=self.device.place, dtype=drawn_in).normal_(std=scale)
        return made.to(dtype)

    def copies(self, size: float, most: int = MOST_COPIES) -> int:
        """How many buffers of so many bytes rotate."""
        wanted = math.ceil(ROTATED * self.device.cache / max(size, 1.0))
        room = int(SHARE_OF_COPIES * self.device.memory / max(size, 1.0))
        return max(1, min(most, wanted, room))

    def unable_fp8(self) -> str:
        """Why there are no fp8 products, if so."""
        return "" if self.device.fp8 is not None else "no fp8 on this GPU"


def drawn(items: Sequence[T], seed: int) -> list[T]:
    """Items in a random order that is always the same, so that the first of them are a sample of all."""
    order = list(items)
    random.Random(seed).shuffle(order)
    return order


def powered(cases: Sequence[Case], every: int) -> list[Case]:
    """The cases, of which the power is measured for one in so many."""
    return [dataclasses.replace(case, powered=i % every == every // 2) for i, case in enumerate(cases)]
