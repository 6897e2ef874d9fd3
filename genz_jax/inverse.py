"""Inverse of a need that grows: the largest whole number that still fits."""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp

from genz_jax.fields import Number
from genz_jax.work.step import straight_through

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
    fixed, limit = jax.lax.stop_gradient((specs, usable))
    low, high = jax.lax.stop_gradient((low, high))
    at_low, at_high = need(low, fixed), need(high, fixed)
    shape = jnp.broadcast_shapes(*map(jnp.shape, (at_low, at_high, limit, low, high)))
    low, high, at_low, at_high = (jnp.broadcast_to(x, shape) for x in (low, high, at_low, at_high))
    low, at_low = (jnp.where(at_high <= limit, a, b) for a, b in ((high, low), (at_high, at_low)))

    def narrow(state: tuple) -> tuple:
        step, low, high, at_low, at_high = state
        gap = at_high - at_low
        share = jnp.where(gap > 0, (limit - at_low) / jnp.where(gap > 0, gap, 1.0), 0.5)
        share = jnp.where(step % HALVE == HALVE - 1, 0.5, share)
        tried = low + jnp.clip(jnp.floor(share * (high - low)), 1.0, jnp.maximum(high - low - 1.0, 1.0))
        tried = jnp.minimum(tried, high)
        there = jnp.broadcast_to(need(tried, fixed), shape)
        fits = (there <= limit) & (tried < high)
        open_ = high - low > 1
        low, at_low = (jnp.where(open_ & fits, a, b) for a, b in ((tried, low), (there, at_low)))
        high, at_high = (jnp.where(open_ & ~fits, a, b) for a, b in ((tried, high), (there, at_high)))
        return step + 1, low, high, at_low, at_high

    state = (jnp.int32(0), low, high, at_low, at_high)
    _, found, *_ = jax.lax.while_loop(lambda s: jnp.any(s[2] - s[1] > 1), narrow, state)
    here = need(found, specs)
    slope = jax.lax.stop_gradient(need(found + 1.0, fixed) - need(found, fixed))
    return straight_through(
        found, found + jnp.where(slope > 0, (usable - here) / jnp.where(slope > 0, slope, 1.0), 0.0)
    )
