"""Memory: whether it all fits, and the bandwidth that is left when part of it is offloaded."""

import jax
import jax.numpy as jnp

from genz_jax.base.fields import Number
from genz_jax.specs import Platform
from genz_jax.specs.assumptions import Assumptions


def usable_memory(platform: Platform, assumptions: Assumptions) -> Number:
    """Bytes that weights, cache, activations and buffers may take: capacity · (1 − reserve) − runtime."""
    share, runtime = _kept(platform, assumptions)
    return platform.mem_capacity * share - runtime


def _kept(platform: Platform, assumptions: Assumptions) -> tuple[Number, Number]:
    """Share of the capacity that may be used, and bytes of it that the runtime holds."""
    if assumptions.memory_of == "published":
        return 1.0, 0.0
    return 1.0 - platform.memory_reserve, platform.runtime_memory


def excess(need: Number, limit: Number) -> jax.Array:
    """Bytes that are needed beyond the limit: max(need − limit, 0)."""
    return jnp.maximum(need - limit, 0.0)


def capacity_for(need: Number, platform: Platform, assumptions: Assumptions) -> Number:
    """Least capacity in bytes whose `usable_memory` holds so many bytes."""
    share, runtime = _kept(platform, assumptions)
    capacity = (need + runtime) / share
    # Sum and quotient may be rounded down; a step up for each is then enough.
    for _ in range(2):
        capacity = jnp.where(capacity * share - runtime < need, jnp.nextafter(capacity, jnp.inf), capacity)
    return capacity


def capacity_check(
    need: Number, limit: Number, platform: Platform, usable: Number | None = None
) -> tuple[Number, Number, Number]:
    """Compare what a device must hold with its capacity.

    What does not fit lies in slower memory behind a link (arXiv 2406.01698). Both stream at once, so that the whole is
    read at need / max(min(need, C)/BW, (need − C)/offload_bw).

    Args:
        need: bytes to hold.
        limit: bytes at which offloading starts.
        platform: the device.
        usable: bytes that the device itself holds then, C; by default the limit.

    Returns:
        Whether it runs; whether it offloads; the memory bandwidth in byte s-1.
    """
    fits = need <= limit  # never true of a need that is not a number
    if platform.offload_bw is None:
        return fits, jnp.zeros_like(fits), platform.mem_bw
    available = (platform.offload_bw > 0) & (need < jnp.inf)
    offloads = (need > limit) & available
    link = jnp.where(available, platform.offload_bw, 1.0)
    inside = jnp.minimum(need, limit if usable is None else usable)
    seconds = jnp.maximum(inside / platform.mem_bw, (need - inside) / link)
    bandwidth = jnp.where(offloads, need / jnp.where(offloads, seconds, 1.0), platform.mem_bw)
    return fits | available, offloads, bandwidth
