"""Fused kernels as PyTorch computes them, step by step: what Triton's must equal, and what stands for them on a CPU."""

import sys
from collections.abc import Callable
from types import ModuleType

import torch  # pyright: ignore[reportMissingImports]
import torch.nn.functional as F  # pyright: ignore[reportMissingImports]

from genz_jax.measure.device import Device

EPSILON = 1e-5
TOLERANCE, TOLERANCE_FP8 = 0.01, 0.1
"""Norm of the difference over that of the values: bf16 keeps 8 bits of each, e4m3 4 bits, rounded or cut off."""


def add_rms_norm(x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    total = x.float() + residual.float()
    residual.copy_(total)
    return (total * torch.rsqrt(total.square().mean(-1, keepdim=True) + EPSILON) * weight.float()).to(x.dtype)


def silu_mul(x: torch.Tensor) -> torch.Tensor:
    gate, up = x.float().chunk(2, -1)
    return (F.silu(gate) * up).to(x.dtype)


def quantize(x: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    largest = torch.finfo(dtype).max
    values = x.float()
    scale = values.abs().amax(-1, keepdim=True).clamp(min=1e-12) / largest
    return (values / scale).clamp(-largest, largest).to(dtype), scale


def rotate_and_cache(
    qkv: torch.Tensor,
    angles: tuple[torch.Tensor, torch.Tensor],
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
) -> None:
    heads, kv_heads = query.shape[1], keys.shape[1]
    all_heads = qkv.view(query.shape[0], heads + 2 * kv_heads, query.shape[2])
    low, high = all_heads[:, : heads + kv_heads].float().chunk(2, -1)
    cosines, sines = angles
    rotated = torch.cat([low * cosines - high * sines, high * cosines + low * sines], -1)
    query.copy_(rotated[:, :heads])
    keys.copy_(rotated[:, heads:])
    values.copy_(all_heads[:, heads + kv_heads :])


def decode_split(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, processors: int, shared: int
) -> torch.Tensor:
    del processors, shared
    scores = query.float() @ keys.float().mT * query.shape[-1] ** -0.5
    return (scores.softmax(-1) @ values.float()).to(query.dtype)


def faulty(kernels: ModuleType, device: Device, dtype: torch.dtype = torch.bfloat16) -> dict[str, str]:
    """Kernels that do not run on a device or compute something else, and what happens, by name.

    Args:
        kernels: a module with the functions of this one.
        device: where they run.
        dtype: of what they compute with.
    """
    found = {}
    for name, check in CHECKS.items():
        if name == "quantize" and device.fp8 is None:
            continue
        try:
            here, there = (check(module, device, dtype) for module in (kernels, sys.modules[__name__]))
        except Exception as error:
            # A compiler may fail in any way; the other kernels are timed nevertheless.
            found[name] = f"its kernel does not run here ({type(error).__name__})"
            continue
        limit = TOLERANCE_FP8 if name == "quantize" else TOLERANCE
        if not all(_apart(a, b) <= limit for a, b in zip(here, there, strict=True)):
            found[name] = "its kernel computes wrong values here"
    return found


def _apart(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found.float() - wanted.float()).norm() / wanted.float().norm())


def _random(device: Device, dtype: torch.dtype, *shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, generator=generator).to(device.place, dtype)


def _check_norm(kernels: ModuleType, device: Device, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    x, residual, weight = (
        _random(device, dtype, 5, 1536),
        _random(device, dtype, 6, 1536)[1:],
        _random(device, dtype, 1536),
    )
    return kernels.add_rms_norm(x, residual, weight), residual


def _check_silu(kernels: ModuleType, device: Device, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    return (kernels.silu_mul(_random(device, dtype, 5, 2 * 1536)),)


def _check_quantize(kernels: ModuleType, device: Device, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    x = _random(device, dtype, 5, 1536)
    values, scales = kernels.quantize(x, device.fp8)
    return values.float() * scales, scales


def _check_rotation(kernels: ModuleType, device: Device, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    heads, kv_heads, width = 6, 2, 64
    query = _random(device, dtype, 5, heads, width)
    caches = [_random(device, dtype, 5, kv_heads, 3, width) for _ in range(2)]
    turn = torch.linspace(0, 3, width // 2, device=device.place)
    qkv = _random(device, dtype, 5, (heads + 2 * kv_heads) * width)
    kernels.rotate_and_cache(qkv, (turn.cos(), turn.sin()), query, caches[0][:, :, 1], caches[1][:, :, 1])
    return query, *caches


def _check_decode(kernels: ModuleType, device: Device, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    query = _random(device, dtype, 2, 2, 5, 64)
    keys, values = _random(device, dtype, 2, 2, 333, 64), _random(device, dtype, 3, 2, 333, 64)[1:]
    # Not the whole cache, so that its strides are not those of the context.
    context = 301
    return (kernels.decode_split(query, keys[:, :, :context], values[:, :, :context], 8, device.shared),)


CHECKS: dict[str, Callable[[ModuleType, Device, torch.dtype], tuple[torch.Tensor, ...]]] = {
    "add_rms_norm": _check_norm,
    "silu_mul": _check_silu,
    "quantize": _check_quantize,
    "rotate_and_cache": _check_rotation,
    "decode_split": _check_decode,
}
