"""Platform: an accelerator and the network between its like."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import equinox as eqx

from genz_jax.base import sense, units
from genz_jax.base.fields import (
    FRACTION,
    NOT_NEGATIVE,
    POSITIVE,
    SHARE,
    WHOLE,
    Number,
    Resource,
    Rule,
    Spec,
    choice,
    near,
    number,
    single,
)
from genz_jax.base.formats import FORMATS
from genz_jax.base.label import Label, label
from genz_jax.kernels import Kernels


def _rate(format: str, default: float, rule: Rule = NOT_NEGATIVE) -> Any:
    """Declare the rate of a format."""
    long_name = f"rate of {format} relative to bf16"
    return number(units.ONE, long_name, default, rule, role="relative rate", resource="compute")


class Rates(Spec):
    """Peak dense rate of each number format as a multiple of `Platform.flops`, which is the 16-bit rate.

    A rate of 0 stands for a format that the platform lacks: it runs at the nearest wider one that there is.
    """

    fp32: Number = _rate("fp32", 0.5, POSITIVE)
    tf32: Number = _rate("tf32", 0.5)
    bf16: Number = _rate("bf16", 1.0, POSITIVE)
    fp16: Number = _rate("fp16", 1.0)
    fp8: Number = _rate("fp8", 2.0)
    int8: Number = _rate("int8", 2.0)
    fp6: Number = _rate("fp6", 2.0)
    fp4: Number = _rate("fp4", 4.0)
    int4: Number = _rate("int4", 4.0)
    int2: Number = _rate("int2", 8.0)

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
    bandwidth: Number = number(units.BYTE_RATE, "one-way link bandwidth per device", role="rate", resource="network")
    latency: Number = number(
        units.SECOND,
        "latency of one hop",
        "1 us",
        rule=NOT_NEGATIVE,
        limits=sense.LATENCY,
        role="latency",
        resource="network",
    )
    topology: Number = choice("topology", TOPOLOGIES, "ring")


def _power_share(what: str, default: float, resource: Resource | None) -> Any:
    """Declare a share of the device power."""
    return number(units.ONE, f"share of power {what}", default, rule=SHARE, role="power", resource=resource)


class PowerSplit(Spec):
    """Shares of the device power: always drawn, and drawn while each resource is busy (arXiv 2406.01698)."""

    static: Number = _power_share("drawn always", 0.3, None)
    compute: Number = _power_share("of the busy matrix units", 0.4, "compute")
    memory: Number = _power_share("of the busy memory", 0.2, "memory")
    network: Number = _power_share("of the busy links", 0.1, "network")

    def _agree(self) -> None:
        shares = single(self.static, self.compute, self.memory, self.network)
        if shares is not None and sum(shares) > 1 + 1e-6:
            raise ValueError(f"PowerSplit: the shares add to {sum(shares):g}; must be at most 1, all of the power")


UNLIMITED = 2.0**24
"""Devices of a network level that joins any number of them."""


def _efficiency(of: str, resource: Resource) -> Any:
    """Declare an achieved share of a rate."""
    return number(units.ONE, f"achieved share of the {of}", 1.0, rule=FRACTION, role="efficiency", resource=resource)


class Platform(Spec):
    """An accelerator and the network between its like. Rates are dense vendor peaks; bandwidths are per device."""

    aliases: ClassVar[Mapping[str, str]] = {
        "link_bw": "network.0.bandwidth",
        "link_latency": "network.0.latency",
        "link_domain": "network.0.size",
    }

    flops: Number = number(units.FLOP_RATE, "peak dense 16-bit rate", role="rate", resource="compute")
    mem_bw: Number = number(units.BYTE_RATE, "memory bandwidth", role="rate", resource="memory")
    mem_capacity: Number = number(
        units.BYTE, "memory capacity", limits=sense.CAPACITY, role="capacity", resource="memory"
    )
    network: tuple[NetworkLevel, ...] = eqx.field(
        default=(NetworkLevel(UNLIMITED, "300 GB/s", "1 us"),),
        metadata={"long_name": "levels of links, the innermost first; `link_bw` and the like are of the first"},
    )
    rates: Rates = eqx.field(default=Rates(), metadata={"long_name": "peak rate of each number format over bf16's"})
    power: Number = number(
        units.WATT,
        "power of one device under full load",
        "700 W",
        rule=NOT_NEGATIVE,
        limits=sense.DEVICE_POWER,
        role="power",
    )
    power_split: PowerSplit = eqx.field(
        default=PowerSplit(), metadata={"long_name": "shares of the power that parts of the device take"}
    )
    onchip_bw: Number = number(
        units.BYTE_RATE, "on-chip memory bandwidth", 18000 * 2.0**30, role="rate", resource="memory"
    )
    offload_bw: Number = number(
        units.BYTE_RATE,
        "bandwidth to the memory for what does not fit, 0 for none",
        None,
        rule=NOT_NEGATIVE,
        absent=0.0,
        role="rate",
        resource="memory",
    )
    memory_reserve: Number = number(
        units.ONE, "share of the memory that is kept for the runtime", 0.1, SHARE, role="reserve", resource="memory"
    )
    runtime_memory: Number = number(
        units.BYTE, "memory that the runtime holds of the rest", 0.0, NOT_NEGATIVE, role="reserve", resource="memory"
    )
    compute_efficiency: Number = _efficiency("peak rate", "compute")
    memory_efficiency: Number = _efficiency("memory bandwidth", "memory")
    link_efficiency: Number = _efficiency("link bandwidth", "network")
    collective_overhead: Number = number(
        units.SECOND,
        "fixed time of a collective",
        "5 us",
        rule=NOT_NEGATIVE,
        limits=sense.LATENCY,
        role="latency",
        resource="network",
    )
    kernels: Kernels | None = eqx.field(
        default=None, metadata={"long_name": "measured kernels; None for ideal ones, at the roofline"}
    )
    label: Label = label()

    def __check_init__(self):
        if not self.network:
            raise ValueError(
                "Platform.network = (): must have at least one gz.specs.NetworkLevel(size, bandwidth, latency)"
            )

    @classmethod
    def alike(cls, specs: "Sequence[Platform]") -> "Sequence[Platform]":
        """Platforms of which all have kernels if one has, those without ideal ones."""
        if all(spec.kernels is None for spec in specs):
            return specs
        kernels = Kernels.alike([Kernels() if spec.kernels is None else spec.kernels for spec in specs])
        return [spec.replace(kernels=own) for spec, own in zip(specs, kernels, strict=True)]

    def ideal(self) -> "Platform":
        """The same device with ideal kernels: every operator takes the time of the roofline, a lower bound."""
        return self.replace(kernels=None)

    @property
    def basis(self) -> str:
        """What times on it rest on: ideal kernels, or whose measured ones."""
        if self.kernels is None:
            return "ideal kernels: no kernel is faster"
        return f"measured kernels: {self.kernels.label.text or 'of several platforms or given as numbers'}"

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
