"""Sense: the sizes that a number may ever have, wide enough for any machine, and what one outside probably meant."""

import dataclasses

import numpy as np

from genz_jax.base import units


@dataclasses.dataclass(frozen=True)
class Sense:
    """Least and greatest size of a number that is not 0, in base units, and the units that people leave out."""

    low: float
    high: float
    meant: tuple[str, ...] = ()

    def broken(self, values: np.ndarray) -> np.ndarray | np.bool_:
        """Mask of the values outside."""
        size = np.abs(values)
        return (size > self.high) | ((size < self.low) & (values != 0))

    def text(self, value: float, unit: str) -> str:
        """The limits as text, and what the value probably meant."""
        low, high = (units.show(limit, unit) for limit in (self.low, self.high))
        rule = f"must be between {low} and {high}" if self.low else f"must be at most {high}"
        for spelt in self.meant:
            factor, _ = units.parse_any(f"1 {spelt}")
            if self.low <= abs(value) * factor <= self.high:
                return f"{rule}; did you mean '{value:g} {spelt}'?"
        return rule


# From a microcontroller to a wafer, and links so fast that their bandwidth does not count.
BY_UNIT = {
    units.BYTE: Sense(1.0, 1e30, ("GB", "MB")),
    units.BYTE_RATE: Sense(1e5, 1e30, ("TB/s", "GB/s")),
    units.FLOP_RATE: Sense(1e6, 1e30, ("TFLOP/s", "PFLOP/s")),
    units.SECOND: Sense(1e-15, 1e10, ("us",)),
    units.WATT: Sense(1e-6, 1e12),
    units.AREA: Sense(1e-12, 1.0, ("mm2",)),
    units.MONEY: Sense(1e-6, 1e15),
    units.MONEY_PER_HOUR: Sense(1e-9, 1e12),
    units.TOKEN: Sense(1e-6, 1e12),
    units.TOKEN_RATE: Sense(1e-9, 1e15),
    units.ONE: Sense(0.0, 1e15),
    "m": Sense(1e-3, 10.0),
    "m-2": Sense(1.0, 1e8),
    "m2 s flop-1": Sense(1e-24, 1e-15),
    "m2 byte-1": Sense(1e-18, 1e-9),
    "m2 s byte-1": Sense(1e-24, 1e-13),
    "W m-2": Sense(1.0, 1e9),
    "USD m-2": Sense(1.0, 1e9),
    "J flop-1": Sense(1e-21, 1e-3),
    "J byte-1": Sense(1e-18, 1.0),
}

CAPACITY = Sense(1e3, 1e30, ("GB", "MB"))
LATENCY = Sense(0.0, 1.0, ("us", "ns"))
DEVICE_POWER = Sense(1e-6, 1e6)
COUNT = Sense(0.0, 1e9)
LAYERS = Sense(0.0, 1e6)
ANY = Sense(0.0, np.inf)


def of(unit: str) -> Sense:
    """Limits of sense of numbers in a unit, where a field has none of its own."""
    return BY_UNIT.get(unit, ANY)
