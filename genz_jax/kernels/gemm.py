"""GEMM: products of activations with weights, as libraries with many tiles and as kernels with two tiles run them."""

import jax.numpy as jnp

from genz_jax.base import arrays as xp
from genz_jax.base.fields import Number
from genz_jax.kernels.form import Job, Overlap, achieved, count, exponent, seconds


class _Gemm(Overlap):
    """What both have: a time per depth, and a pass that brings the input to the format of the product."""

    exponent: float = exponent(4.0)
    depth_time: Number = seconds("time for each 1,024 of the depth k", 0.0)
    fill: Number = count("depth whose time a tile takes to begin and to end", 0.0)
    input_launch: Number = seconds("launch of the pass over the input, as that quantises it", 0.0)
    input_bytes: Number = count("bytes of that pass for each element of the input", 0.0)
    output_bytes: Number = count("bytes of an element of the result", 2.0)

    def seconds(self, job: Job) -> Number:
        depth, read = job.sizes["k"], self.input_bytes * _rows(job) * job.sizes["k"]
        before = self.input_launch + job.stream(read, read, self.memory_efficiency)
        return super().seconds(job) + self.depth_time * (depth / 1024.0) + before

    def _memory(self, job: Job) -> Number:
        moved = job.bytes - job.output + self.output_bytes * _rows(job) * job.sizes["n"]
        return moved * job.byte / self.memory_efficiency


def _rows(job: Job) -> Number:
    return job.sizes["batch"] * job.sizes["m"]


class Gemm(_Gemm):
    """A library that picks among many tiles: t = t₀ + t_k·k/1024 + ‖T_c, bytes/(B·e_m)‖ₚ.

    T_c = 2·max(P·τ², max(m, τ)·n)·(k + k₀)/(F·e_c): every processor of P runs at least one tile of τ×τ, and a tile
    takes k₀ of depth to fill and to drain. Where that is sooner, k is cut into s parts, whose sums are added up in t_s:
    T_c = 2·max(P·τ², s·max(m, τ)·n)·(k/s + k₀)/(F·e_c) + t_s.
    """

    tile: Number = count("rows and columns of the smallest tile", 0.0)
    splits: Number = count("parts that the depth is cut into where that is sooner", 1.0)
    split_time: Number = seconds("time to add the parts up", 0.0)

    def _compute(self, job: Job) -> Number:
        rows, n, k = _rows(job), job.sizes["n"], job.sizes["k"]
        least = job.processors * self.tile * self.tile
        area = xp.maximum(rows, self.tile) * n
        flop = 2.0 * job.flop / self.compute_efficiency
        whole = xp.maximum(least, area) * (k + self.fill) * flop
        parts = xp.maximum(self.splits, 1.0)
        split = xp.maximum(least, parts * area) * (k / parts + self.fill) * flop + self.split_time
        return xp.minimum(whole, split)


class TwoTileGemm(_Gemm):
    """A kernel with two tiles that never cuts the depth, as CUTLASS's row-wise scaled product in PyTorch.

    With tiles of 64×128 where all of them fit the processors at once, else in whole waves of tiles of 128×128; each
    tile walks all of k: T_c = 2·64·128·P·(k + k₀)/(F·e_s), or ⌈⌈m/128⌉⌈n/128⌉/P⌉·2·128²·P·(k + k₀)/(F·e_c).
    """

    small_efficiency: Number = achieved("compute", 1.0)

    def _compute(self, job: Job) -> Number:
        rows, n, k = _rows(job), job.sizes["n"], job.sizes["k"]
        wide = jnp.ceil(rows / 64.0) * jnp.ceil(n / 128.0)
        tall = jnp.where(rows > 64.0, jnp.ceil(n / 64.0) * jnp.ceil(rows / 128.0), jnp.inf)
        depth = (k + self.fill) * 2.0 * 128.0 * job.processors * job.flop
        waves = jnp.ceil(jnp.ceil(rows / 128.0) * jnp.ceil(n / 128.0) / job.processors)
        small, large = 64.0 * depth / self.small_efficiency, 128.0 * depth / self.compute_efficiency
        return jnp.where(jnp.minimum(wide, tall) <= job.processors, small, waves * large)
