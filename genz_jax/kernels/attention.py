"""Attention: fused kernels of prefill and of decode."""

import jax.numpy as jnp

from genz_jax.base import arrays as xp
from genz_jax.base.fields import Number
from genz_jax.kernels.form import Form, Job, Overlap, achieved, count, exponent, launch, seconds, soft_max

_TILE = 128.0
"""Queries, and keys, of a tile of a prefill kernel."""

_BLOCK = 64.0
"""Tokens of the cache that a decode kernel reads at once."""

_MOST_SPLITS = 128.0


class SplitDecode(Form):
    """Decode attention that splits the context over the processors and combines the parts (Flash-Decoding).

    n = min(⌈S/128⌉, ⌈2P/(b·h_kv)⌉, 128) splits of ⌈S/n⌉ tokens, in whole blocks of 64;
    t = t₀ + t_s·log₂(1 + S/128) + ‖t_c·chunk/1024·d/128, bytes/(B·e_m)‖ₚ, where bytes count the parts too, 16 rows of
    4 bytes for each key-value head and split, written and read.
    """

    launch: Number = launch(0.0)
    combine_time: Number = seconds("time for each doubling of the context from 128 tokens", 0.0)
    chunk_time: Number = seconds("time of 1,024 tokens of one split, at heads of 128", 0.0)
    memory_efficiency: Number = achieved("memory", 1.0)
    exponent: float = exponent(2.0)

    def seconds(self, job: Job) -> Number:
        context, heads, size = job.sizes["context"], job.sizes["kv_heads"], job.sizes["head_dim"]
        pairs = job.sizes["batch"] * heads
        fits = jnp.minimum(jnp.ceil(context / (2.0 * _BLOCK)), _MOST_SPLITS)
        splits = jnp.minimum(fits, jnp.ceil(2.0 * job.processors / jnp.maximum(pairs, 1.0)))
        chunk = jnp.ceil(jnp.ceil(context / jnp.maximum(splits, 1.0)) / _BLOCK) * _BLOCK
        parts = jnp.ceil(context / jnp.maximum(chunk, 1.0))
        moved = job.bytes + 2.0 * 16.0 * 4.0 * pairs * parts * size
        chain = self.chunk_time * (chunk / 1024.0) * (size / 128.0)
        busy = soft_max(chain, moved * job.byte / self.memory_efficiency, self.exponent)
        return self.launch + self.combine_time * jnp.log2(1.0 + context / 128.0) + busy


class UnitDecode(Form):
    """Decode attention whose smallest piece of work is one key-value head of one sequence.

    t = t₀ + t_s·log₂(1 + S/128) + ‖max(1, U/o)·e·P·64 KiB/B·((1 − γ) + γ·d/128), bytes/(B·e_m)‖ₚ, with U = b·h_kv/P
    pieces on each processor, which runs o of them at once.
    """

    launch: Number = launch(0.0)
    combine_time: Number = seconds("time for each doubling of the context from 128 tokens", 0.0)
    unit: Number = count("time of a piece, over that of 64 KiB for each processor from memory", 0.0)
    occupancy: Number = count("pieces that a processor runs at once", 1.0)
    sized: Number = count("share of a piece's time that grows with the head size", 1.0)
    memory_efficiency: Number = achieved("memory", 1.0)
    exponent: float = exponent(2.0)

    def seconds(self, job: Job) -> Number:
        sizes = job.sizes
        pieces = sizes["batch"] * sizes["kv_heads"] / job.processors
        one = (
            self.unit
            * job.processors
            * 65536.0
            * job.byte
            * (1.0 - self.sized + self.sized * sizes["head_dim"] / 128.0)
        )
        chain = xp.maximum(1.0, pieces / xp.maximum(self.occupancy, 1e-6)) * one
        busy = soft_max(chain, job.bytes * job.byte / self.memory_efficiency, self.exponent)
        return self.launch + self.combine_time * jnp.log2(1.0 + sizes["context"] / 128.0) + busy


class _Prefill(Overlap):
    exponent: float = exponent(4.0)
    tile_time: Number = seconds("time that a tile of queries takes beside its products", 0.0)
    chain: Number = count("share of the longest chain that is not hidden", 0.0)


def _keys(job: Job) -> Number:
    """Keys that a query sees, in the mean."""
    heads = job.sizes["batch"] * job.sizes["heads"] * job.sizes["queries"] * job.sizes["head_dim"]
    return job.flops / (4.0 * xp.where(heads > 0, heads, 1.0))


class BalancedPrefill(_Prefill):
    """Prefill attention whose tiles are spread evenly, as cuDNN's.

    Of queries in q = ⌈Q/128⌉ tiles each sees key tiles of x = 4·128²·P·((1 − δ)d + 128δ)/(F·e_c) each and takes e more;
    w = b·h·(tiles·x + q·e)/P is the mean load of a processor, λ = ⌈S/128⌉·x + e the longest chain, and
    t = t₀ + ‖max(λ, w + l·λ), bytes/(B·e_m)‖ₚ.
    """

    flat: Number = count("share of a tile's time that does not shrink with the head size", 0.0)

    def _compute(self, job: Job) -> Number:
        sizes = job.sizes
        size = (1.0 - self.flat) * sizes["head_dim"] + self.flat * 128.0
        tile = 4.0 * _TILE * _TILE * job.processors * size * job.flop / self.compute_efficiency
        queries, context = jnp.ceil(sizes["queries"] / _TILE), jnp.ceil(sizes["context"] / _TILE)
        filled = context * _TILE / xp.maximum(sizes["context"], 1.0)
        tiles = queries * (_keys(job) * filled / _TILE + 0.5)
        load = sizes["batch"] * sizes["heads"] * (tiles * tile + queries * self.tile_time) / job.processors
        longest = context * tile + self.tile_time
        return xp.maximum(longest, load + self.chain * longest)


class PairedPrefill(_Prefill):
    """Prefill attention of two blocks on a processor, longest first, as FlashAttention-2.

    A block of 128 queries takes g = r·(keys·c + e) in the mean, with r = min(Q, 128)/128 and keys in tiles; the last
    λ = S/128·c·κ + r·e. U = b·h·⌈Q/128⌉ blocks are N = 1 (U ≤ P) or 2⌈U/2P⌉ rounds: T = max(λ, N·g + l·(λ − g)). Grids
    of fewer than 0.8·2P blocks of 64 split the keys n ways: T = S/128·c·κ/n + r·e + parts of 8 bytes in memory.
    """

    alone: Number = count("time of a tile when its block has the processor's partner gone, over that of a pair", 1.0)

    def _compute(self, job: Job) -> Number:
        sizes, pair = job.sizes, 2.0 * job.processors
        tile = 4.0 * _TILE * _TILE * job.processors * sizes["head_dim"] * job.flop / self.compute_efficiency
        heads = xp.maximum(sizes["batch"] * sizes["heads"], 1e-9)
        part = xp.minimum(sizes["queries"], _TILE) / _TILE
        end = part * self.tile_time
        one = part * (_keys(job) / _TILE + 0.5) * tile + end
        longest = sizes["context"] / _TILE * tile * self.alone + end
        blocks = heads * jnp.ceil(sizes["queries"] / _TILE)
        rounds = jnp.where(blocks <= job.processors, 1.0, 2.0 * jnp.ceil(blocks / pair))
        whole = xp.maximum(longest, rounds * one + self.chain * (longest - one))
        grid = heads * jnp.ceil(sizes["queries"] / 64.0)
        ways = xp.minimum(jnp.floor(pair / grid), jnp.ceil(sizes["context"] / _TILE))
        moved = 8.0 * heads * sizes["queries"] * sizes["head_dim"] * ways * job.byte / self.memory_efficiency
        split = (longest - end) / xp.maximum(ways, 1.0) + end + moved
        return jnp.where((grid < 0.8 * pair) & (ways > 1.0), split, whole)
