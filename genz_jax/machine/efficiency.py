"""Efficiency: seconds of operators on kernels that have been measured, instead of at the roofline."""

import equinox as eqx
import jax.numpy as jnp

from genz_jax.base import arrays as xp
from genz_jax.base.fields import Number
from genz_jax.base.formats import Format
from genz_jax.kernels import Form, Job, Kernels
from genz_jax.kernels.choice import chosen
from genz_jax.work.loads import Load, LoadRange
from genz_jax.work.operators.operator import Operand, Operator

_WIDTHS = {"fp8": ("fp8", "int8", "fp6"), "fp4": ("fp4", "int4", "int2")}
"""Formats by the kernels that run them; all others run on those of bf16."""

_NODES = ((0.5 - 0.15**0.5, 5.0 / 18.0), (0.5, 8.0 / 18.0), (0.5 + 0.15**0.5, 5.0 / 18.0))
"""Places and weights of Gauss and Legendre's rule of three points on [0, 1]."""


class Efficiency(eqx.Module):
    """Forms of a platform's kernels for the formats of one precision.

    Attributes:
        kernels: all of the platform's.
        products: form of products by their kernel and second operand.
        byte: seconds of a byte of memory.
        flop: seconds of an operation, by second operand.
        cache_byte: seconds of a byte of the last cache.
    """

    kernels: Kernels
    products: dict[tuple[str, Operand], Form]
    byte: Number
    flop: dict[Operand, Number]
    cache_byte: Number

    @classmethod
    def of(
        cls, kernels: Kernels, codes: dict[Operand, Number], flop: dict[Operand, Number], byte: Number
    ) -> "Efficiency":
        """Those of kernels.

        Args:
            kernels: the platform's.
            codes: format that products run at, by second operand.
            flop: seconds of an operation, by second operand.
            byte: seconds of a byte of memory.
        """
        products = {}
        for operand, code in codes.items():
            for kind in ("gemm", "experts"):
                if (form := _of_format(kernels, kind, code)) is not None:
                    products[kind, operand] = form
        return cls(kernels, products, byte, flop, 1.0 / kernels.cache_bandwidth)

    def form(self, op: Operator) -> Form | None:
        """What runs an operator; None if its kernel is ideal."""
        return self.products.get((op.kernel, op.operand)) or getattr(self.kernels, op.kernel, None)

    def seconds(self, form: Form, op: Operator, load: Load) -> Number:
        """Seconds of all repeats of an operator, in the mean over the positions that it stands for."""
        if not load.ranges:
            return self._run(form, op, _per_run(load, op), op.sizes) * _runs(load, op)
        total: Number = 0.0
        for part in load.ranges:
            ends = [_per_run(end, op) for end in (part.first, part.last)]
            for place, weight in _NODES:
                at = _between(ends[0], ends[1], part, place)
                total = total + part.share * weight * self._run(form, op, *at)
        return total * _runs(load, op)

    def _run(self, form: Form, op: Operator, load: Load, sizes: dict[str, Number]) -> Number:
        """Seconds of one run."""
        flop, kernels = self.flop.get(op.operand, 0.0), self.kernels
        device = (kernels.processors, kernels.cache_capacity, self.cache_byte)
        return form.seconds(Job(load.flops, load.bytes, sizes, flop, self.byte, *device, op.output))

    def slowdown(self, latency: Number, bound_by_compute: Number) -> Number:
        """Factor by which a pass is slowed where it runs long at the power limit: 1 + δ·s·t/(t + τ).

        Args:
            latency: seconds of the pass, t.
            bound_by_compute: seconds of those of its operators that wait for the matrix units, the share s of t.
        """
        return 1.0 + self.kernels.derating * bound_by_compute / (latency + self.kernels.derating_time)


def _of_format(kernels: Kernels, kind: str, code: Number) -> Form | None:
    """The form of the kernels of a format; of formats without one, that of the next wider one that has one."""
    wide = getattr(kernels, f"{kind}_bf16")
    forms: list[Form] = [] if wide is None else [wide]
    place: Number = jnp.int8(0)
    for width, formats in _WIDTHS.items():
        form = getattr(kernels, f"{kind}_{width}")
        if form is not None:
            is_one = jnp.any(jnp.stack([code == Format[name].value for name in formats]), axis=0)
            place = jnp.where(is_one, jnp.int8(len(forms)), place)
            forms.append(form)
    return chosen(forms, place) if forms else None


def _runs(load: Load, op: Operator) -> Number:
    """How often an operator runs; never if it has nothing to do."""
    work = load.bytes if op.kind == "vector" else load.flops
    return jnp.where(work > 0, op.repeats, 0.0)


def _per_run(load: Load, op: Operator) -> Load:
    """Work of one run."""
    runs = xp.where(op.repeats > 0, op.repeats, 1.0)
    return Load(load.flops / runs, load.bytes / runs, load.onchip_bytes)


def _between(first: Load, last: Load, part: LoadRange, place: float) -> tuple[Load, dict[str, Number]]:
    """Work and sizes at a place of a range of positions, of which they are linear."""

    def at(a: Number, b: Number) -> Number:
        return a + place * (b - a)

    sizes = {name: at(size, part.last_sizes[name]) for name, size in part.first_sizes.items()}
    return Load(at(first.flops, last.flops), at(first.bytes, last.bytes), 0.0), sizes
