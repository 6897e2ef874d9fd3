"""Kernels in Triton, run by its interpreter, beside what PyTorch computes step by step."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
START = """
import torch
from genz_jax.measure import device, kernels, reference
cpu = device.find("cpu")
def apart(a, b):
    return float((a.float() - b.float()).norm() / b.float().norm())
def random(*shape, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)
"""


def interpret(code: str) -> None:
    """Run code in a process of its own: Triton decides at its import whether it interprets."""
    for package in ("torch", "triton"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", START + code], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr


def test_every_kernel_equals_pytorch():
    # The interpreter multiplies bf16 as if it were whole numbers, and cuts where GPUs round.
    interpret("for dtype in (torch.float32, torch.float16): assert reference.faulty(kernels, cpu, dtype) == {}")


def test_a_kernel_that_errs_is_named():
    interpret("""
import types
wrong = types.SimpleNamespace(**vars(kernels))
wrong.silu_mul = lambda x: kernels.silu_mul(x) * 1.1
def broken(*args):
    raise RuntimeError
wrong.decode_split = broken
assert reference.faulty(wrong, cpu, torch.float32) == {
    "silu_mul": "its kernel computes wrong values here",
    "decode_split": "its kernel does not run here (RuntimeError)",
}
""")


def test_decode_attention_over_parts_of_any_length():
    interpret("""
for group, context, processors, width in ((1, 1, 1, 16), (4, 64, 4, 32), (20, 129, 9, 16), (3, 700, 64, 64)):
    query, keys, values = random(2, 2, group, width), random(2, 2, context, width), random(3, 2, context, width)[:2]
    found = kernels.decode_split(query, keys, values, processors, 1 << 16)
    wanted = torch.nn.functional.scaled_dot_product_attention(query, keys, values)
    assert apart(found, wanted) < 1e-5, (group, context)
splits, chunk = kernels.parts(4096, 8, 132)
assert (splits, chunk) == (32, 128)
for context in (1, 63, 64, 65, 128, 1000, 131072):
    for pairs in (1, 8, 512):
        splits, chunk = kernels.parts(context, pairs, 132)
        assert 1 <= splits <= 128 and chunk % 64 == 0
        assert (splits - 1) * chunk < context <= splits * chunk
""")


def test_rows_of_any_width():
    interpret("""
for width in (1, 100, 1024, 2880):
    x, residual, weight = random(3, width), random(4, width)[:3], random(width)
    wanted = torch.nn.functional.rms_norm(x + residual, (width,), weight, 1e-5)
    total = x + residual
    assert apart(kernels.add_rms_norm(x, residual, weight), wanted) < 1e-5
    assert apart(residual, total) < 1e-6
    gate, up = random(3, 2 * width).chunk(2, -1)
    wanted = torch.nn.functional.silu(gate) * up
    assert apart(kernels.silu_mul(random(3, 2 * width)), wanted) < 1e-5
    # The interpreter loses a bit of fp8 where rounding carries; formats that NumPy has are exact.
    values, scales = kernels.quantize(x, torch.float16)
    assert torch.allclose(scales[:, 0], x.abs().amax(1) / torch.finfo(torch.float16).max)
    assert apart(values.float() * scales, x) < 1e-3
    _, scales = kernels.quantize(x, torch.float8_e4m3fn)
    assert torch.allclose(scales[:, 0], x.abs().amax(1) / 448)
values, scales = kernels.quantize(torch.zeros(2, 64), torch.float8_e4m3fn)
assert not values.float().any() and scales.isfinite().all()
""")


def test_rotation_writes_one_place_of_the_cache():
    interpret("""
heads, kv_heads, width, tokens = 4, 2, 16, 3
for places in (1, 5):
    cache = torch.zeros(2, tokens, kv_heads, places, width)
    keys, values = cache[0, :, :, places - 1], cache[1, :, :, places - 1]
    query, qkv = torch.empty(tokens, heads, width), random(tokens, (heads + 2 * kv_heads) * width)
    turn = torch.linspace(0, 3, width // 2)
    kernels.rotate_and_cache(qkv, (turn.cos(), turn.sin()), query, keys, values)
    rows = qkv.view(tokens, -1, width)
    turned = torch.view_as_complex(torch.stack(rows[:, :6].chunk(2, -1), -1)) * torch.polar(torch.ones(8), turn)
    turned = torch.cat([turned.real, turned.imag], -1)
    assert apart(query, turned[:, :4]) < 1e-5
    assert apart(keys, turned[:, 4:]) < 1e-5
    assert torch.equal(values, rows[:, 6:])
    assert not cache[:, :, :, : places - 1].any()
""")
