"""Inverse of a need that grows: the largest whole number that still fits."""

import functools
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp

from genz_jax.base.fields import Number

Specs = TypeVar("Specs")

HALVE = 3
"""Every so many steps the interval is halved, where interpolation may creep."""


def largest_that_fits(
    need: Callable[[Number, Specs], Number], specs: Specs, usable: Number, low: Number, high: Number
) -> jax.Array:
    """The largest whole number n from `low` to `high` with need(n) ≤ usable; `low` where no larger one fits.

    The interval around it shrinks by linear interpolation of the need, every third time by halving, until its ends are
    neighbours, so that the answer fits and its successor does not, whatever was rounded. Where the need grows evenly
    that takes three evaluations. The derivative is that of the real number at which need = usable (implicit function).

    Args:
        need: bytes for n and specs; does not fall with n.
        specs: what else the need depends on, as a pytree.
        usable: bytes that there are.
        low: whole number that is not asked whether it fits.
        high: the largest number that is tried.
    """
    return _largest(need, specs, usable, *jax.lax.stop_gradient((low, high)))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _largest(
    need: Callable[[Number, Specs], Number], specs: Specs, usable: Number, low: Number, high: Number
) -> jax.Array:
    """The search; its loop is the only place that evaluates the need, which may take long to compile."""
    there = jax.eval_shape(need, low, specs)
    shape = jnp.broadcast_shapes(there.shape, *map(jnp.shape, (usable, low, high)))
    low, high = (jnp.broadcast_to(x, shape) for x in (low, high))
    unknown = jnp.zeros(shape, there.dtype)

    def narrow(state: tuple) -> tuple:
        step, low, high, at_low, at_high = state
        gap = at_high - at_low
        share = jnp.where(gap > 0, (usable - at_low) / jnp.where(gap > 0, gap, 1.0), 0.5)
        share = jnp.where(step % HALVE == HALVE - 1, 0.5, share)
        between = low + jnp.clip(jnp.floor(share * (high - low)), 1.0, jnp.maximum(high - low - 1.0, 1.0))
        # The ends come first.
        tried = jnp.where(step == 0, high, jnp.where(step == 1, low, jnp.minimum(between, high)))
        there = jnp.broadcast_to(need(tried, specs), shape)
        fits = (step == 1) | ((there <= usable) & ((tried < high) | (step == 0)))
        open_ = (high - low > 1) | (step == 0)
        low, at_low = (jnp.where(open_ & fits, a, b) for a, b in ((tried, low), (there, at_low)))
        high, at_high = (jnp.where(open_ & ~fits, a, b) for a, b in ((tried, high), (there, at_high)))
        return step + 1, low, high, at_low, at_high

    state = (jnp.int32(0), low, high, unknown, unknown)
    return jax.lax.while_loop(lambda s: (s[0] == 0) | jnp.any(s[2] - s[1] > 1), narrow, state)[1]


@_largest.defjvp
def _slope(need: Callable[[Number, Specs], Number], primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    """Derivative of the real number at which need = usable."""
    found = _largest(need, *primals)
    here, change = jax.jvp(lambda specs: need(found, specs), primals[:1], tangents[:1])
    slope = need(found + 1.0, primals[0]) - here
    change = jnp.where(slope > 0, (tangents[1] - change) / jnp.where(slope > 0, slope, 1.0), 0.0)
    return found, jnp.broadcast_to(change, found.shape).astype(found.dtype)
