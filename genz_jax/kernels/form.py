"""Form: what every kernel's time is made of, and the simplest kernel, a roofline with a launch time."""

import abc
import dataclasses
from typing import Any, Literal

import equinox as eqx
import jax.numpy as jnp

from genz_jax.base import arrays as xp, units
from genz_jax.base.fields import NOT_NEGATIVE, Number, Rule, Spec, number

EXPONENTS = (0.5, 1.0, 2.0, 4.0, float("inf"))
"""Exponents of the soft maximum: of each the norm takes square roots alone, no power."""

_CACHED = 0.6
"""Share of the cache that a kernel's tensors may take before some of them come from memory; all do at 1."""


class Job(eqx.Module):
    """One run of a kernel, and the device that it runs on.

    Attributes:
        flops: floating point operations.
        bytes: bytes that go to and from memory if no cache serves them.
        sizes: dimensions by name.
        flop: seconds of an operation at the peak rate of the format.
        byte: seconds of a byte at the memory bandwidth.
        processors: streaming multiprocessors (compute units) of the device.
        cache: bytes of its last cache.
        cache_byte: seconds of a byte at that cache's bandwidth.
        output: bytes of the result, which are among `bytes`.
    """

    flops: Number
    bytes: Number
    sizes: dict[str, Number]
    flop: Number
    byte: Number
    processors: Number
    cache: Number
    cache_byte: Number
    output: Number = 0.0

    def stream(self, bytes: Number, footprint: Number, efficiency: Number) -> Number:
        """Seconds of bytes that the cache serves where the footprint of all tensors fits it.

        bytes·((1 − s)/B_cache + s/(B·e)) with s = clip((footprint/C − 0.6)/0.4, 0, 1).
        """
        missed = xp.clip((footprint / xp.maximum(self.cache, 1.0) - _CACHED) / (1.0 - _CACHED), 0.0, 1.0)
        return bytes * ((1.0 - missed) * self.cache_byte + missed * (self.byte / efficiency))


def soft_max(a: Number, b: Number, exponent: float) -> Number:
    """(aᵖ + bᵖ)^(1/p) of two times: their maximum for p = ∞, their sum for p = 1; p is one of `EXPONENTS`."""
    if exponent == 1.0:
        return a + b
    if exponent == 0.5:
        return a + b + 2.0 * jnp.sqrt(a * b)
    largest = xp.maximum(a, b)
    if exponent == float("inf"):
        return largest
    ratio = xp.minimum(a, b) / xp.where(largest > 0, largest, 1.0)
    square = ratio * ratio
    if exponent == 2.0:
        return largest * jnp.sqrt(1.0 + square)
    return largest * jnp.sqrt(jnp.sqrt(1.0 + square * square))


SHARE_OF_PEAK = Rule("must be above 0 and at most 1.5", high=1.5)
"""A share of a data sheet's rate; some caches and clocks give more than the sheet says."""


def launch(default: float) -> Any:
    """Declare the time of a run that does nothing."""
    return seconds("time of a run that does nothing", default)


def seconds(long_name: str, default: float) -> Any:
    """Declare a time that a kernel takes beside its work."""
    return number(units.SECOND, long_name, default, NOT_NEGATIVE, role="latency")


def achieved(what: Literal["compute", "memory"], default: float) -> Any:
    """Declare the share of a peak rate that a kernel reaches when nothing else holds it up."""
    name = "peak rate" if what == "compute" else "memory bandwidth"
    return number(
        units.ONE, f"share of the {name} that it reaches", default, SHARE_OF_PEAK, role="efficiency", resource=what
    )


def count(long_name: str, default: float) -> Any:
    """Declare a number of things, which need not be whole."""
    return number(units.ONE, long_name, default, NOT_NEGATIVE)


def exponent(default: float) -> Any:
    """Declare the exponent of the soft maximum of compute and memory time, part of the compiled program."""
    return eqx.field(
        static=True,
        default=default,
        converter=_exponent,
        metadata={"long_name": "exponent of the soft maximum of compute and memory time"},
    )


def _exponent(value: float) -> float:
    if float(value) not in EXPONENTS:
        raise ValueError(f"exponent = {value}: must be one of {', '.join(f'{p:g}' for p in EXPONENTS)}")
    return float(value)


class Form(Spec):
    """Base of all forms: constants with a formula for the seconds of one run."""

    @abc.abstractmethod
    def seconds(self, job: Job) -> Number:
        """Seconds of one run."""

    @property
    def constants(self) -> dict[str, float]:
        """Its constants, by name, in base units."""
        named = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value if isinstance(value, float) else float(value) for name, value in named.items()}


class Overlap(Form):
    """Roofline with a launch time: t = t₀ + ‖FLOPs/(F·e_c), bytes/(B·e_m)‖ₚ."""

    launch: Number = launch(0.0)
    compute_efficiency: Number = achieved("compute", 1.0)
    memory_efficiency: Number = achieved("memory", 1.0)
    exponent: float = exponent(float("inf"))

    def seconds(self, job: Job) -> Number:
        return self.launch + soft_max(self._compute(job), self._memory(job), self.exponent)

    def _compute(self, job: Job) -> Number:
        """Seconds of the matrix units."""
        return job.flops * job.flop / self.compute_efficiency

    def _memory(self, job: Job) -> Number:
        """Seconds of the memory."""
        return job.bytes * job.byte / self.memory_efficiency
