"""What waits for memory alone: copies, fills, and the fused kernels between products."""

import functools
import itertools
from collections.abc import Callable

import torch  # pyright: ignore[reportMissingImports]

from genz_jax.measure import attention
from genz_jax.measure.cases import Bench, Calls, Case, drawn, powered

POWERS = range(10, 32)
"""Powers of two that are copied and filled, in bytes."""

TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384)
HIDDEN = (1024, 2048, 2880, 4096, 5120, 7168, 8192, 12288, 16384)
INTERMEDIATE = (768, 2048, 3072, 6144, 8192, 12288, 14336, 24576, 28672)
HEADS = (*attention.HEADS, (32, 4, 128))
EVERY = 40


def memory(bench: Bench) -> list[Case]:
    """All of them."""
    powers, tokens, hidden, intermediate, heads = POWERS, TOKENS, HIDDEN, INTERMEDIATE, HEADS
    if bench.tiny:
        powers, tokens, hidden, intermediate, heads = range(10, 12), (1, 8), (64,), (96,), ((4, 2, 16),)
    cases = [_moved(bench, name, 2**power) for power in powers for name in ("copy", "fill")]
    for t, h in itertools.product(tokens, hidden):
        cases.append(_fused(bench, "add_rms_norm", _norm, {"tokens": t, "hidden": h}, 8 * t * h))
        cases.append(_fused(bench, "quantize_fp8", _quantize, {"tokens": t, "hidden": h}, 3 * t * h))
    for t, i in itertools.product(tokens, intermediate):
        cases.append(_fused(bench, "silu_mul", _silu, {"tokens": t, "intermediate": i}, 6 * t * i))
    for t, (h, kv, d) in itertools.product(tokens, heads):
        parameters = {"tokens": t, "heads": h, "kv_heads": kv, "head_dim": d}
        cases.append(_fused(bench, "rotate_and_cache", _rotate, parameters, 4 * t * (h + 2 * kv) * d))
    return powered(drawn(cases, 6), EVERY)


def _moved(bench: Bench, name: str, size: int) -> Case:
    moved = {"copy": 2, "fill": 1}[name] * size
    return Case("memory", name, {"bytes": moved}, functools.partial(_move, bench, name, size), moved)


def _move(bench: Bench, name: str, size: int) -> Calls:
    count = bench.copies(2 * size)
    there = [torch.empty(size, dtype=torch.uint8, device=bench.device.place) for _ in range(count)]
    if name == "fill":
        return Calls([functools.partial(target.fill_, 1) for target in there])
    here = [torch.ones_like(target) for target in there]
    return Calls([functools.partial(target.copy_, source) for target, source in zip(there, here, strict=True)])


def _fused(
    bench: Bench, name: str, build: Callable[[Bench, dict[str, int]], Calls], parameters: dict[str, int], size: int
) -> Case:
    unable = bench.faulty.get(name.removesuffix("_fp8"), "")
    if name == "quantize_fp8":
        unable = bench.unable_fp8() or unable
    return Case("memory", name, parameters, functools.partial(build, bench, parameters), size, unable)


# Their inputs do not rotate: in a step, the product before has just left them in the cache.
def _norm(bench: Bench, sizes: dict[str, int]) -> Calls:
    t, h = sizes["tokens"], sizes["hidden"]
    x, residual, weight = bench.random(t, h), bench.random(t, h), bench.random(h)
    return Calls([functools.partial(bench.kernels.add_rms_norm, x, residual, weight)])


def _silu(bench: Bench, sizes: dict[str, int]) -> Calls:
    return Calls([functools.partial(bench.kernels.silu_mul, bench.random(sizes["tokens"], 2 * sizes["intermediate"]))])


def _quantize(bench: Bench, sizes: dict[str, int]) -> Calls:
    x = bench.random(sizes["tokens"], sizes["hidden"])
    return Calls([functools.partial(bench.kernels.quantize, x, bench.device.fp8)])


def _rotate(bench: Bench, sizes: dict[str, int]) -> Calls:
    t, h, kv, d = sizes.values()
    turn = torch.linspace(0, 3, d // 2, device=bench.device.place)
    qkv, query = bench.random(t, (h + 2 * kv) * d), bench.random(t, h, d)
    keys, values = bench.random(t, kv, d), bench.random(t, kv, d)
    rotate = bench.kernels.rotate_and_cache
    return Calls([functools.partial(rotate, qkv, (turn.cos(), turn.sin()), query, keys, values)])
