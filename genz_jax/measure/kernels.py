"""Fused kernels in Triton: what engines run between products, and decode attention over parts of the context."""

# A kernel is launched by an index and with more than its signature says.
# pyright: reportIndexIssue=false, reportCallIssue=false, reportArgumentType=false

import math

import torch  # pyright: ignore[reportMissingImports]
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]

EPSILON = 1e-5
COLUMNS = 1024
"""Columns of a program of `silu_mul`."""

ROWS = 16
"""Rows that a tensor core multiplies at least; queries of a group are padded to so many."""

BLOCK = 64
"""Tokens of the context that a program of decode attention reads at once."""

WAVES, MOST_PARTS = 2, 128
"""Programs of decode attention for each multiprocessor to aim at, and parts of a context at most."""

LOG2E = math.log2(math.e)


@triton.jit
def _add_rms_norm(x, residual, weight, out, width, epsilon, SPAN: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * width
    at = tl.arange(0, SPAN)
    inside = at < width
    total = tl.load(x + row + at, inside, other=0.0).to(tl.float32)
    total += tl.load(residual + row + at, inside, other=0.0).to(tl.float32)
    tl.store(residual + row + at, total.to(residual.dtype.element_ty), inside)
    scale = tl.rsqrt(tl.sum(total * total, 0) / width + epsilon)
    scaled = total * scale * tl.load(weight + at, inside, other=0.0).to(tl.float32)
    tl.store(out + row + at, scaled.to(out.dtype.element_ty), inside)


@triton.jit
def _silu_mul(x, out, width, SPAN: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * width
    at = tl.program_id(1) * SPAN + tl.arange(0, SPAN)
    inside = at < width
    gate = tl.load(x + 2 * row + at, inside, other=0.0).to(tl.float32)
    up = tl.load(x + 2 * row + width + at, inside, other=0.0).to(tl.float32)
    tl.store(out + row + at, (gate * tl.sigmoid(gate) * up).to(out.dtype.element_ty), inside)


@triton.jit
def _quantize(x, out, scales, width, largest, SPAN: tl.constexpr):
    number = tl.program_id(0)
    row = number.to(tl.int64) * width
    at = tl.arange(0, SPAN)
    inside = at < width
    values = tl.load(x + row + at, inside, other=0.0).to(tl.float32)
    scale = tl.maximum(tl.max(tl.abs(values), 0), 1e-12) / largest
    tl.store(scales + number, scale)
    # Rounding of the quotient must not pass the largest value of the format, whose overflow is NaN.
    scaled = tl.minimum(tl.maximum(values / scale, -largest), largest)
    tl.store(out + row + at, scaled.to(out.dtype.element_ty), inside)


@triton.jit
def _rotate_and_cache(
    qkv,
    cosines,
    sines,
    query,
    keys,
    values,
    key_token,
    key_head,
    value_token,
    value_head,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    HALF: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    at = tl.arange(0, HALF)
    source = qkv + (token * (HEADS + 2 * KV_HEADS) + head) * 2 * HALF + at
    low = tl.load(source)
    high = tl.load(source + HALF)
    if head < HEADS + KV_HEADS:
        cosine = tl.load(cosines + at)
        sine = tl.load(sines + at)
        x = low.to(tl.float32)
        y = high.to(tl.float32)
        low = (x * cosine - y * sine).to(low.dtype)
        high = (y * cosine + x * sine).to(high.dtype)
        if head < HEADS:
            target = query + (token * HEADS + head) * 2 * HALF + at
            tl.store(target, low)
            tl.store(target + HALF, high)
        else:
            target = keys + token * key_token + (head - HEADS) * key_head + at
            tl.store(target, low)
            tl.store(target + HALF, high)
    else:
        target = values + token * value_token + (head - HEADS - KV_HEADS) * value_head + at
        tl.store(target, low)
        tl.store(target + HALF, high)


@triton.jit(do_not_specialize=["length", "chunk", "splits", "group", "kv_heads"])
def _attend_to_part(
    query,
    keys,
    values,
    partial,
    exponents,
    length,
    chunk,
    splits,
    group,
    kv_heads,
    key_batch,
    key_head,
    value_batch,
    value_head,
    scale,
    PADDED: tl.constexpr,
    WIDTH: tl.constexpr,
    SPAN: tl.constexpr,
):
    pair = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    row = tl.arange(0, PADDED)
    column = tl.arange(0, WIDTH)
    asked = (row < group)[:, None]
    q = tl.load(query + (pair * group + row[:, None]) * WIDTH + column[None, :], asked, other=0.0)
    key = keys + pair // kv_heads * key_batch + pair % kv_heads * key_head
    value = values + pair // kv_heads * value_batch + pair % kv_heads * value_head
    first = part * chunk
    last = tl.minimum(first + chunk, length)
    top = tl.full((PADDED,), -1e30, tl.float32)
    total = tl.zeros((PADDED,), tl.float32)
    mixed = tl.zeros((PADDED, WIDTH), tl.float32)
    for start in range(first, last, SPAN):
        token = start + tl.arange(0, SPAN)
        there = token < last
        k = tl.load(key + token[None, :] * WIDTH + column[:, None], there[None, :], other=0.0)
        score = tl.where(there[None, :], tl.dot(q, k) * scale, -1e30)
        raised = tl.maximum(top, tl.max(score, 1))
        shrunk = tl.exp2(top - raised)
        share = tl.exp2(score - raised[:, None])
        v = tl.load(value + token[:, None] * WIDTH + column[None, :], there[:, None], other=0.0)
        mixed = mixed * shrunk[:, None] + tl.dot(share.to(v.dtype), v)
        total = total * shrunk + tl.sum(share, 1)
        top = raised
    to = (pair * splits + part) * PADDED + row
    tl.store(partial + to[:, None] * WIDTH + column[None, :], mixed / total[:, None])
    tl.store(exponents + to, top + tl.log2(total))


@triton.jit(do_not_specialize=["splits", "group"])
def _combine_parts(
    partial, exponents, out, splits, group, PADDED: tl.constexpr, WIDTH: tl.constexpr, PARTS: tl.constexpr
):
    pair = tl.program_id(0).to(tl.int64)
    row = tl.program_id(1)
    part = tl.arange(0, PARTS)
    column = tl.arange(0, WIDTH)
    at = (pair * splits + part) * PADDED + row
    exponent = tl.load(exponents + at, part < splits, other=-1e30)
    share = tl.exp2(exponent - tl.max(exponent, 0))
    share = share / tl.sum(share, 0)
    mixed = tl.load(partial + at[:, None] * WIDTH + column[None, :], (part < splits)[:, None], other=0.0)
    whole = tl.sum(mixed * share[:, None], 0)
    tl.store(out + (pair * group + row) * WIDTH + column, whole.to(out.dtype.element_ty))


def add_rms_norm(x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Add to the residual, in its place, and normalise by the root of the mean square."""
    out = torch.empty_like(x)
    tokens, width = x.shape
    span = triton.next_power_of_2(width)
    _add_rms_norm[(tokens,)](x, residual, weight, out, width, EPSILON, SPAN=span, num_warps=_warps(span))
    return out


def silu_mul(x: torch.Tensor) -> torch.Tensor:
    """The first half of each row through SiLU, times the second half."""
    tokens, width = x.shape[0], x.shape[1] // 2
    out = torch.empty(tokens, width, device=x.device, dtype=x.dtype)
    _silu_mul[(tokens, triton.cdiv(width, COLUMNS))](x, out, width, SPAN=COLUMNS)
    return out


def quantize(x: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows in an 8-bit format, and the scale of each."""
    tokens, width = x.shape
    out = torch.empty(x.shape, device=x.device, dtype=dtype)
    scales = torch.empty(tokens, 1, device=x.device)
    span = triton.next_power_of_2(width)
    largest = torch.finfo(dtype).max
    _quantize[(tokens,)](x, out, scales, width, largest, SPAN=span, num_warps=_warps(span))
    return out, scales


def _warps(span: int) -> int:
    return max(1, min(8, span // 256))


def rotate_and_cache(
    qkv: torch.Tensor,
    angles: tuple[torch.Tensor, torch.Tensor],
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
) -> None:
    """Rotate queries and keys, and put keys and values into the cache.

    Args:
        qkv: all heads of each token, (tokens, heads · width).
        angles: cosines and sines, of half of the width each.
        query: where rotated queries go, (tokens, heads, width).
        keys: where rotated keys go, (tokens, heads, width), with any strides of tokens and heads.
        values: the same for values.
    """
    tokens, heads, width = query.shape
    kv_heads = keys.shape[1]
    _rotate_and_cache[(tokens, heads + 2 * kv_heads)](
        qkv,
        *angles,
        query,
        keys,
        values,
        *keys.stride()[:2],
        *values.stride()[:2],
        HEADS=heads,
        KV_HEADS=kv_heads,
        HALF=width // 2,
        num_warps=1,
    )


def parts(length: int, pairs: int, processors: int) -> tuple[int, int]:
    """Into how many parts a context is split, and the tokens of a part.

    Args:
        length: tokens of the context.
        pairs: sequences times heads of keys.
        processors: multiprocessors to fill.
    """
    wanted = min(triton.cdiv(length, 2 * BLOCK), triton.cdiv(WAVES * processors, pairs), MOST_PARTS)
    chunk = triton.cdiv(triton.cdiv(length, max(1, wanted)), BLOCK) * BLOCK
    return triton.cdiv(length, chunk), chunk


def decode_split(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, processors: int, shared: int
) -> torch.Tensor:
    """Attention of one token in each sequence, over parts of its context at once.

    Args:
        query: (batch, heads of keys, queries of a group, width).
        keys: (batch, heads of keys, context, width), rows behind one another.
        values: the same.
        processors: multiprocessors, which the parts should fill.
        shared: bytes of shared memory of a block.
    """
    batch, kv_heads, group, width = query.shape
    length, pairs = keys.shape[2], batch * kv_heads
    splits, chunk = parts(length, pairs, processors)
    padded = max(ROWS, triton.next_power_of_2(group))
    partial = torch.empty(pairs, splits, padded, width, device=query.device)
    exponents = torch.empty(pairs, splits, padded, device=query.device)
    out = torch.empty_like(query)
    stages = max(1, min(3, shared // (4 * BLOCK * width)))  # keys and values of 2 bytes
    scale = width**-0.5 * LOG2E
    strides = (*keys.stride()[:2], *values.stride()[:2])
    sizes = (length, chunk, splits, group, kv_heads, *strides, scale)
    _attend_to_part[(pairs, splits)](
        query, keys, values, partial, exponents, *sizes, PADDED=padded, WIDTH=width, SPAN=BLOCK, num_stages=stages
    )
    many = triton.next_power_of_2(splits)
    _combine_parts[(pairs, group)](
        partial,
        exponents,
        out,
        splits,
        group,
        PADDED=padded,
        WIDTH=width,
        PARTS=many,
        num_warps=max(1, min(8, many * width // 2048)),
    )
    return out
