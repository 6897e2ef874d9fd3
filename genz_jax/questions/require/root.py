"""Root: where a rising function of many independent points crosses 1, exactly where it is piecewise linear."""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

STEPS = 200
"""Evaluations after which the search gives up; bisection of the 80 octaves of `SPAN` to float64 needs 60."""

SPAN = 2.0**40
"""Factor around the starting value within which a crossing is looked for."""


class Crossing(eqx.Module):
    """The crossing of each point.

    `use` is the function's value there and `aux` its auxiliary output; `found` is false where the search has not
    converged.
    """

    u: Float[Array, "..."]
    use: Float[Array, "..."]
    aux: Any
    found: Bool[Array, "..."]


class _State(eqx.Module):
    u: Float[Array, "..."]
    low: Float[Array, "..."]
    high: Float[Array, "..."]
    use: Float[Array, "..."]
    aux: Any
    found: Bool[Array, "..."]
    steps: jax.Array


def tolerance(dtype: jnp.dtype) -> float:
    """Relative rounding of a sum over the operators of a pass: 32 units in the last place."""
    return 32.0 * float(jnp.finfo(dtype).eps)


def crossing(
    use: Callable[[jax.Array], tuple[jax.Array, jax.Array]],
    start: Float[Array, "..."],
    low: Float[Array, "..."],
    skip: Bool[Array, "..."],
) -> Crossing:
    """The greatest u > 0 with use(u) ≤ 1, point by point.

    Newton's method on use(u) with its derivative by u, safeguarded by the bracket of what was seen. A roofline latency
    is a sum of max(aᵢ, bᵢ·u) + cᵢ in the reciprocal u of a rate, so that `use` is convex and piecewise linear: every
    step then lands where a line that supports it crosses 1, never below the crossing, and after finitely many steps
    on the piece that holds it, where the next step is exact. Elsewhere the bracket halves on a log scale.

    Args:
        use: a function that does not fall, with an auxiliary output; each point's value depends on its own u alone.
        start: where to begin.
        low: a value of u for which use(u) ≤ 1, or 0 where that is the limit u → 0.
        skip: points that are not searched.

    Returns:
        The crossing, to rounding.
    """
    close_enough = tolerance(start.dtype)
    finest = 4.0 * float(jnp.finfo(start.dtype).eps)
    positive = jnp.finfo(start.dtype).tiny

    def step(state: _State) -> _State:
        u = state.u
        # The derivative by ln u keeps its size whatever the unit of u.
        value, slope, aux = jax.jvp(use, (u,), (u,), has_aux=True)
        good = value <= 1.0 + close_enough
        low = jnp.where(good, jnp.maximum(state.low, u), state.low)
        high = jnp.where(good, state.high, jnp.minimum(state.high, u))
        rises = slope > positive
        newton = u * (1.0 + (1.0 - value) / jnp.where(rises, slope, 1.0))
        known = jnp.isfinite(high)
        safe_high = jnp.where(known, high, 1.0)
        middle = jnp.where(
            known, jnp.where(low > 0, jnp.sqrt(jnp.maximum(low, positive)) * jnp.sqrt(safe_high), high / 64), u * 64
        )
        inside = rises & (newton > low) & (newton < high)
        narrow = known & (low > 0) & (safe_high <= low * (1.0 + finest))
        done = state.found | narrow | (rises & (jnp.abs(value - 1.0) <= close_enough))
        following = jnp.where(inside, newton, jnp.where(done, u, middle))
        return _State(
            jnp.where(state.found, u, following),
            low,
            high,
            jnp.where(state.found, state.use, value),
            jnp.where(state.found, state.aux, aux),
            done,
            state.steps + 1,
        )

    def unfinished(state: _State) -> jax.Array:
        return jnp.logical_not(jnp.all(state.found)) & (state.steps < STEPS)

    first = _State(
        start,
        jnp.broadcast_to(low, start.shape),
        jnp.full_like(start, jnp.inf),
        jnp.ones_like(start),
        jnp.zeros(start.shape, jax.eval_shape(use, start)[1].dtype),
        jnp.broadcast_to(skip, start.shape),
        jnp.zeros((), jnp.int32),
    )
    last = jax.lax.while_loop(unfinished, step, first)
    return Crossing(last.u, last.use, last.aux, last.found)


def greatest_whole(
    good: Callable[[jax.Array], jax.Array], shape: tuple[int, ...], dtype: jnp.dtype, high: float = 2.0**24
) -> Float[Array, "..."]:
    """The greatest whole number below `high` for which `good` holds, 0 where it does not hold at 1.

    Args:
        good: true up to some number and false beyond, point by point.
        shape: shape of the points.
        dtype: their type; whole numbers below 2^24 are exact in all of them.
        high: not tried any more.
    """

    def halve(_: Any, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, top = ends
        middle = jnp.floor((low + top) / 2.0)
        holds = good(jnp.maximum(middle, 1.0)) & (middle >= 1.0)
        return jnp.where(holds, middle, low), jnp.where(holds, top, middle)

    ends = (jnp.zeros(shape, dtype), jnp.full(shape, high, dtype))
    rounds = math.ceil(math.log2(high))
    return jax.lax.fori_loop(0, rounds, halve, ends)[0]
