"""Platform: an accelerator and the network between its like."""

import equinox as eqx

from genz_jax.base import sense, units
from genz_jax.base.fields import FRACTION, NOT_NEGATIVE, SHARE, WHOLE, Label, Number, Spec, choice, near, number, single
from genz_jax.base.formats import FORMATS


class Rates(Spec):
    """Peak dense rate of each number format as a multiple of `Platform.flops`, which is the 16-bit rate.

    A rate of 0 stands for a format that the platform lacks: it runs at the nearest wider one that there is.
    """

    fp32: Number = number(units.ONE, "rate of fp32 relative to bf16", 0.5)
    tf32: Number = number(units.ONE, "rate of tf32 relative to bf16", 0.5, NOT_NEGATIVE)
    bf16: Number = number(units.ONE, "rate of bf16 relative to bf16", 1.0)
    fp16: Number = number(units.ONE, "rate of fp16 relative to bf16", 1.0, NOT_NEGATIVE)
    fp8: Number = number(units.ONE, "rate of fp8 relative to bf16", 2.0, NOT_NEGATIVE)
    int8: Number = number(units.ONE, "rate of int8 relative to bf16", 2.0, NOT_NEGATIVE)
    fp6: Number = number(units.ONE, "rate of fp6 relative to bf16", 2.0, NOT_NEGATIVE)
    fp4: Number = number(units.ONE, "rate of fp4 relative to bf16", 4.0, NOT_NEGATIVE)
    int4: Number = number(units.ONE, "rate of int4 relative to bf16", 4.0, NOT_NEGATIVE)
    int2: Number = number(units.ONE, "rate of int2 relative to bf16", 8.0, NOT_NEGATIVE)

    @classmethod
    def from_peaks(cls, peaks: dict[str, float]) -> "Rates":
        """Relative rates from absolute peaks by format; a format without a peak has the rate 0.

        By default fp16 has the rate of bf16, and fp32 that of tf32, or half the 16-bit rate.

        Args:
            peaks: flop s-1 by format name; `bf16` is needed.

        Raises:
            ValueError: an unknown format, or no bf16.
        """
        for name in peaks:
            if name not in FORMATS:
                raise ValueError(f"Rates: unknown format {name!r}{near(name, FORMATS)}")
        if "bf16" not in peaks:
            raise ValueError(f"Rates: no bf16 among {sorted(peaks)}; the 16-bit rate is the base of the others")
        full = dict.fromkeys(FORMATS, 0.0) | peaks
        full["fp32"] = peaks.get("fp32", peaks.get("tf32", peaks["bf16"] / 2))
        full["fp16"] = peaks.get("fp16", peaks["bf16"])
        return cls(**{name: rate / peaks["bf16"] for name, rate in full.items()})


TOPOLOGIES = ("ring", "switch")
"""Topologies of a network level, in the order of their codes."""


class NetworkLevel(Spec):
    """One level of the interconnect: the devices that it joins, and its links.

    On a `ring` (or torus) a message passes its neighbours one by one; on a `switch`, and on a full mesh, every device
    is one hop away.
    """

    size: Number = number(units.ONE, "devices within one domain of this level", rule=WHOLE)
    bandwidth: Number = number(units.BYTE_RATE, "one-way link bandwidth per device")
    latency: Number = number(units.SECOND, "latency of one hop", "1 us", rule=NOT_NEGATIVE, limits=sense.LATENCY)
    topology: Number = choice("topology", TOPOLOGIES, "ring")


class PowerSplit(Spec):
    """Shares of the device power: always drawn, and drawn while each resource is busy (arXiv 2406.01698)."""

    static: Number = number(units.ONE, "share of power drawn always", 0.3, rule=SHARE)
    compute: Number = number(units.ONE, "share of power of the busy matrix units", 0.4, rule=SHARE)
    memory: Number = number(units.ONE, "share of power of the busy memory", 0.2, rule=SHARE)
    network: Number = number(units.ONE, "share of power of the busy links", 0.1, rule=SHARE)

    def _agree(self) -> None:
        shares = single(self.static, self.compute, self.memory, self.network)
        if shares is not None and sum(shares) > 1 + 1e-6:
            raise ValueError(f"PowerSplit: the shares add to {sum(shares):g}; must be at most 1, all of the power")


UNLIMITED = 2.0**24
"""Devices of a network level that joins any number of them."""


LINK_ALIASES = {
    "link_bw": "network.0.bandwidth",
    "link_latency": "network.0.latency",
    "link_domain": "network.0.size",
}
"""Short names of the innermost network level's numbers."""


class Platform(Spec):
    """An accelerator and the network between its like. Rates are dense vendor peaks; bandwidths are per device."""

    flops: Number = number(units.FLOP_RATE, "peak dense 16-bit rate")
    mem_bw: Number = number(units.BYTE_RATE, "memory bandwidth")
    mem_capacity: Number = number(units.BYTE, "memory capacity", limits=sense.CAPACITY)
    network: tuple[NetworkLevel, ...] = (NetworkLevel(UNLIMITED, "300 GB/s", "1 us"),)
    rates: Rates = Rates()
    power: Number = number(
        units.WATT, "power of one device under full load", "700 W", rule=NOT_NEGATIVE, limits=sense.DEVICE_POWER
    )
    power_split: PowerSplit = PowerSplit()
    onchip_bw: Number = number(units.BYTE_RATE, "on-chip memory bandwidth", 18000 * 2.0**30)
    offload_bw: Number = number(
        units.BYTE_RATE,
        "bandwidth to the memory for what does not fit, 0 for none",
        None,
        rule=NOT_NEGATIVE,
        absent=0.0,
    )
    memory_reserve: Number = number(units.ONE, "share of the memory that is kept for the runtime", 0.1, rule=SHARE)
    runtime_memory: Number = number(units.BYTE, "memory that the runtime holds of the rest", 0.0, rule=NOT_NEGATIVE)
    compute_efficiency: Number = number(units.ONE, "achieved share of the peak rate", 1.0, rule=FRACTION)
    memory_efficiency: Number = number(units.ONE, "achieved share of the memory bandwidth", 1.0, rule=FRACTION)
    link_efficiency: Number = number(units.ONE, "achieved share of the link bandwidth", 1.0, rule=FRACTION)
    collective_overhead: Number = number(
        units.SECOND, "fixed time of a collective", "5 us", rule=NOT_NEGATIVE, limits=sense.LATENCY
    )
    label: Label = eqx.field(static=True, default=Label())

    @classmethod
    def _alias(cls, path: str) -> str:
        return LINK_ALIASES.get(path, path)

    @classmethod
    def _aliases(cls) -> tuple[str, ...]:
        return tuple(LINK_ALIASES)

    def __check_init__(self):
        if not self.network:
            raise ValueError("Platform.network = (): must have at least one gz.NetworkLevel(size, bandwidth, latency)")

    @property
    def name(self) -> str:
        """Name of the platform, for people."""
        return self.label.text

    @property
    def link_bw(self) -> Number:
        """One-way bandwidth per device of the innermost network level, byte s-1."""
        return self.network[0].bandwidth

    @property
    def link_latency(self) -> Number:
        """Hop latency of the innermost network level, s."""
        return self.network[0].latency
