"""Operators against counts over their index spaces and the sizes of real arrays."""

import itertools
import math
from typing import Any

import jax
import numpy as np
import pytest
from helpers import index_tuples
from hypothesis import given, strategies as st

import genz_jax as gz
from genz_jax.specs import assumptions
from genz_jax.work.layers.ffn import expected_experts
from genz_jax.work.operators import collectives, elementwise, products
from genz_jax.work.operators.operator import Operator
from genz_jax.work.step import Segment, ceil_div, floor_div, shard

MIXED = gz.Precision("int8", "bf16", kv_cache="fp32", compute="bf16")
WEIGHT, ACTIVATION, CACHE = np.dtype("int8"), np.dtype("float16"), np.dtype("float32")
small = st.integers(1, 4)


def nbytes(dtype: np.dtype, *shape: int) -> int:
    return np.zeros(shape, dtype).nbytes


def multiply_adds(sizes: dict[str, int]) -> int:
    """Multiplications and additions of a contraction, one of each for every place of its index space."""
    return sum(2 for _ in index_tuples(sizes))


def check(
    op: Operator, *, flops: float, input: float, weight: float, output: float, stored: float, cached: float = 0.0
):
    found = [op.flops, op.input, op.weight, op.output, op.stored, op.cached]
    assert [float(x) for x in found] == [flops, input, weight, output, stored, cached]
    assert float(op.repeats) == 1.0
    assert float(op.message) == 0.0


@given(b=small, m=small, n=small, k=small)
def test_gemm(b: int, m: int, n: int, k: int):
    op = products.gemm("g", "ffn", batch=b, m=m, n=n, k=k, precision=MIXED)
    result = np.einsum("bmk,kn->bmn", np.zeros((b, m, k)), np.zeros((k, n)))
    weight = nbytes(WEIGHT, k, n)
    check(
        op,
        flops=multiply_adds({"b": b, "m": m, "n": n, "k": k}),
        input=nbytes(ACTIVATION, b, m, k),
        weight=weight,
        output=nbytes(ACTIVATION, *result.shape),
        stored=weight,
    )


def test_gemm_stores_what_it_is_told_to():
    op = products.gemm("g", "head", batch=1, m=2, n=3, k=4, precision=MIXED, stored=0.0)
    assert float(op.stored) == 0.0
    assert float(op.weight) == nbytes(WEIGHT, 4, 3)


@given(b=small, n=small, k=small)
def test_fc(b: int, n: int, k: int):
    op = products.fc("f", "ffn", batch=b, n=n, k=k, precision=MIXED)
    weight = nbytes(WEIGHT, k, n)
    check(
        op,
        flops=multiply_adds({"b": b, "n": n, "k": k}),
        input=nbytes(ACTIVATION, b, k),
        weight=weight,
        output=nbytes(ACTIVATION, b, n),
        stored=weight,
    )


@given(g=small, m=small, n=small, k=small)
def test_grouped_gemm(g: int, m: int, n: int, k: int):
    op = products.grouped_gemm("g", "ffn", groups=g, m=m, n=n, k=k, precision=MIXED, stored=7.0)
    result = np.einsum("gmk,gkn->gmn", np.zeros((g, m, k)), np.zeros((g, k, n)))
    check(
        op,
        flops=multiply_adds({"g": g, "m": m, "n": n, "k": k}),
        input=nbytes(ACTIVATION, g, m, k),
        weight=nbytes(WEIGHT, g, k, n),
        output=nbytes(ACTIVATION, *result.shape),
        stored=7.0,
    )


@given(b=small, c=small, length=small, width=small)
def test_conv1d_counts_the_taps_of_a_causal_depthwise_convolution(b: int, c: int, length: int, width: int):
    op = products.conv1d(
        "c", "ssm_scan", batch=b, channels_out=c, channels_in=c, length=length, width=width, precision=MIXED
    )
    padded, kernel = np.zeros((b, c, length + width - 1)), np.zeros((c, width))
    taps, result = 0, np.zeros((b, c, length))
    for i, j in itertools.product(range(b), range(c)):
        result[i, j] = np.convolve(padded[i, j], kernel[j], mode="valid")
        taps += sum(1 for _ in range(length) for _ in range(width))
    weight = nbytes(WEIGHT, c, width)
    check(
        op,
        flops=2 * taps,
        input=nbytes(ACTIVATION, b, length, c),
        weight=weight,
        output=nbytes(ACTIVATION, *result.shape),
        stored=weight,
    )


@given(b=small, out=small, inner=small, h=small, w=small, r=st.sampled_from([1, 3]), s=st.sampled_from([1, 3]))
def test_conv2d_counts_taps(b: int, out: int, inner: int, h: int, w: int, r: int, s: int):
    op = products.conv2d(
        "c",
        "embedding",
        batch=b,
        channels_out=out,
        channels_in=inner,
        height=h,
        width=w,
        kernel_height=r,
        kernel_width=s,
        precision=MIXED,
    )
    windows = np.lib.stride_tricks.sliding_window_view(np.zeros((b, inner, h + r - 1, w + s - 1)), (r, s), (2, 3))
    result = np.einsum("bcyxrs,kcrs->bkyx", windows, np.zeros((out, inner, r, s)))
    weight = nbytes(WEIGHT, out, inner, r, s)
    check(
        op,
        flops=2 * windows.size * out,
        input=nbytes(ACTIVATION, b, inner, h, w),
        weight=weight,
        output=nbytes(ACTIVATION, *result.shape),
        stored=weight,
    )


@given(b=small, c=small, h=small, w=small, r=st.sampled_from([1, 3]), s=st.sampled_from([1, 3]))
def test_depthwise_conv2d_counts_taps(b: int, c: int, h: int, w: int, r: int, s: int):
    op = products.depthwise_conv2d(
        "c",
        "embedding",
        batch=b,
        channels=c,
        height=h,
        width=w,
        kernel_height=r,
        kernel_width=s,
        precision=MIXED,
    )
    windows = np.lib.stride_tricks.sliding_window_view(np.zeros((b, c, h + r - 1, w + s - 1)), (r, s), (2, 3))
    weight, plane = nbytes(WEIGHT, c, r, s), nbytes(ACTIVATION, b, c, h, w)
    check(op, flops=2 * windows.size, input=plane, weight=weight, output=plane, stored=weight)


@given(b=small, kv=small, group=small, queries=small, past=st.integers(0, 4), size=small, causal=st.booleans())
def test_attention(b: int, kv: int, group: int, queries: int, past: int, size: int, causal: bool):
    context, heads = past + queries, kv * group
    visible = np.tri(queries, context, past, dtype=bool) if causal else np.ones((queries, context), dtype=bool)
    pairs = int(visible.sum())
    sizes: dict[str, Any] = {
        "batch": b,
        "heads": heads,
        "kv_heads": kv,
        "queries": queries,
        "context": context,
        "pairs": pairs,
        "head_dim": size,
        "precision": MIXED,
    }
    count = 0
    for place in index_tuples({"b": b, "h": heads, "q": queries, "k": context, "d": size}):
        count += 2 * bool(visible[place["q"], place["k"]])
    keys = nbytes(CACHE, b, kv, context, size)
    vectors = nbytes(ACTIVATION, b, heads, queries, size)
    scores = b * heads * pairs * ACTIVATION.itemsize
    score, value = products.attention_scores("s", **sizes), products.attention_values("v", **sizes)
    check(score, flops=count, input=vectors, weight=keys, output=scores, stored=0.0, cached=keys)
    check(value, flops=count, input=scores, weight=keys, output=vectors, stored=0.0, cached=keys)
    assert (score.on_chip, value.on_chip) == ("o", "i")


def test_attention_caches_what_it_is_told_to():
    sizes: dict[str, Any] = {
        "batch": 1,
        "heads": 2,
        "kv_heads": 1,
        "queries": 1,
        "context": 5,
        "pairs": 5,
        "head_dim": 4,
    }
    for build in (products.attention_scores, products.attention_values):
        assert float(build("a", precision=MIXED, cached=3.0, **sizes).cached) == 3.0


@given(
    past=st.integers(0, 12),
    queries=st.integers(1, 12),
    window=st.one_of(st.none(), st.integers(1, 30)),
    causal=st.booleans(),
)
def test_prompt_chunk_sees_the_pairs_that_enumeration_finds(past: int, queries: int, window: int | None, causal: bool):
    segment = Segment("s", True, batch=1.0, queries=float(queries), context=float(past + queries))
    physics = assumptions.default.replace(causal=causal)
    context, pairs = segment.seen(None if window is None else float(window), physics)
    seen = [
        (query, key)
        for query in range(past, past + queries)
        for key in range(past + queries)
        if not causal or (key <= query and (window is None or query - key < window))
    ]
    assert float(pairs) == len(seen)
    assert float(context) == len({key for _, key in seen})


@given(
    prompt=st.integers(0, 12),
    generated=st.integers(1, 12),
    window=st.one_of(st.none(), st.integers(1, 30)),
)
def test_decode_step_sees_the_keys_that_enumeration_finds(prompt: int, generated: int, window: int | None):
    width = None if window is None else float(window)
    prefix = Segment("p", False, batch=1.0, queries=1.0, context=float(prompt), newer=float(generated))
    suffix = Segment("s", False, batch=1.0, queries=1.0, context=float(generated))
    query = prompt + generated - 1
    keys = [key for key in range(query + 1) if window is None or query - key < window]
    for segment, stretch in ((prefix, range(prompt)), (suffix, range(prompt, prompt + generated))):
        context, pairs = segment.seen(width, assumptions.default)
        assert float(context) == float(pairs) == len(set(keys) & set(stretch))


EQUATIONS = ["ij,jk->ik", "bdl,ds->bdls", "bdl,bls->bdls", "bdls,bdl->bdls", "lbds,lbs->lbd", "bld,bld->bld", "a,b->ab"]


@pytest.mark.parametrize("equation", EQUATIONS)
@given(data=st.data())
def test_einsum(equation: str, data: st.DataObject):
    left, _, _ = equation.partition("->")
    labels = sorted(set(left) - {","})
    sizes = {label: data.draw(st.integers(1, 3), label=label) for label in labels}
    operands = [np.zeros([sizes[label] for label in part], ACTIVATION) for part in left.split(",")]
    result = np.einsum(equation, *operands)
    op = products.einsum("e", "ssm_scan", equation, sizes, precision=MIXED)
    check(
        op,
        flops=multiply_adds(sizes),
        input=operands[0].nbytes,
        weight=operands[1].nbytes,
        output=result.nbytes,
        stored=0.0,
    )


@pytest.mark.parametrize("equation", ["ij,jk", "ij->ij", "i,j,k->ijk", "i1,j->ij", ""])
def test_einsum_refuses_what_is_no_equation_of_two_operands(equation: str):
    with pytest.raises(ValueError, match="must have two operands and a result"):
        products.einsum("e", "ssm_scan", equation, {"i": 1, "j": 1, "k": 1}, precision=MIXED)


def test_einsum_refuses_a_label_without_size():
    with pytest.raises(ValueError, match="no size for the labels k"):
        products.einsum("e", "ssm_scan", "ij,jk->ik", {"i": 1, "j": 1}, precision=MIXED)


@given(rows=small, width=small)
def test_vector_operators(rows: int, width: int):
    tensor = nbytes(ACTIVATION, rows, width)
    x, residual, gain = (np.ones((rows, width)) for _ in range(3))
    # Norm with residual: x + residual; square; accumulate; scale; gain, one operation per element each.
    steps = [x + residual, x * x, np.add.accumulate(x, axis=1), x * 0.5, x * gain]
    norm = elementwise.norm("n", rows=rows, width=width, precision=MIXED, stored=5.0)
    check(
        norm,
        flops=sum(step.size for step in steps),
        input=2 * tensor,
        weight=0,
        output=2 * tensor,
        stored=5.0,
    )
    # SiLU x/(1 + exp(−x)): exponential, addition, division, product; gated, times the other input.
    plain = elementwise.activation("a", elements=rows * width, inputs=1.0, precision=MIXED)
    check(plain, flops=4 * x.size, input=tensor, weight=0, output=tensor, stored=0)
    gated = elementwise.activation("a", elements=rows * width, inputs=2.0, precision=MIXED)
    check(gated, flops=5 * x.size, input=2 * tensor, weight=0, output=tensor, stored=0)
    # Softmax: maximum, subtract, exponential, sum, divide.
    softmax = elementwise.softmax("s", rows=rows, width=width, precision=MIXED)
    check(softmax, flops=5 * x.size, input=tensor, weight=0, output=tensor, stored=0)
    mapped = elementwise.elementwise(
        "e", elements=rows * width, reads=3.0, writes=2.0, flops_per_element=1.5, precision=MIXED
    )
    check(mapped, flops=1.5 * x.size, input=3 * tensor, weight=0, output=2 * tensor, stored=0)
    assert {op.kind for op in (norm, plain, gated, softmax, mapped)} == {"vector"}


@given(b=small, length=small, channels=small, states=small, operands=small, steps=st.sampled_from([0.0, 1.0]))
def test_selective_scan_counts_the_recurrence(b: int, length: int, channels: int, states: int, operands: int, steps):
    flops, state = 0, np.zeros((b, channels, states), np.float32)
    outputs = np.zeros((b, length, channels), ACTIVATION)
    for _ in itertools.product(range(b), range(length), range(channels), range(states)):
        # decay = exp(Δ·A); h = decay·h + (Δx)·B; y = y + C·h
        flops += sum((1, 1, 1, 1, 1, 1))
    op = elementwise.selective_scan(
        "s",
        batch=b,
        length=length,
        channels=channels,
        d_state=states,
        operands=operands,
        steps=steps,
        precision=MIXED,
    )
    check(
        op,
        flops=flops,
        input=nbytes(ACTIVATION, b, length, operands) + steps * state.nbytes,
        weight=0,
        output=outputs.nbytes + state.nbytes,
        stored=0,
        cached=state.nbytes,
    )


COLLECTIVES = ["all_reduce", "all_gather", "reduce_scatter", "all_to_all", "point_to_point"]


@pytest.mark.parametrize("kind", COLLECTIVES)
@pytest.mark.parametrize("ranks", [1.0, 2.0, 6.0])
def test_collectives_carry_their_message(kind: str, ranks: float):
    op = getattr(collectives, kind)("c", "pipeline", elements=10.0, ranks=ranks, precision=MIXED, stride=3.0)
    assert op.kind == kind
    assert float(op.message) == (nbytes(ACTIVATION, 10) if ranks > 1 else 0)
    assert (float(op.ranks), float(op.stride)) == (ranks, 3.0)
    assert float(op.repeats) == (ranks - 1 if kind == "point_to_point" else 1)
    assert float(op.flops) == float(op.weight) == float(op.stored) == 0.0


def test_times_multiplies_repeats():
    op = products.gemm("g", "ffn", batch=1, m=1, n=1, k=1, precision=MIXED).times(3.0).times(4.0)
    assert float(op.repeats) == 12.0
    assert float(op.flops) == 2.0


@pytest.mark.parametrize(
    ("experts", "top_k", "tokens"), [(2, 1, 3), (4, 2, 1), (4, 2, 3), (5, 1, 4), (5, 3, 2), (3, 3, 1)]
)
def test_expected_experts_is_the_mean_over_all_routings(experts: int, top_k: int, tokens: int):
    choices = list(itertools.combinations(range(experts), top_k))
    touched = [len(set().union(*routing)) for routing in itertools.product(choices, repeat=tokens)]
    found = float(expected_experts(float(experts), float(top_k), float(tokens)))
    assert found == pytest.approx(np.mean(touched), rel=1e-12)


def test_expected_experts_is_the_mean_of_random_routings():
    experts, top_k, tokens, trials = 64, 6, 20, 4000
    rng = np.random.default_rng(0)
    chosen = rng.permuted(np.tile(np.arange(experts), (trials * tokens, 1)), axis=1)[:, :top_k]
    touched = [len(np.unique(one)) for one in chosen.reshape(trials, -1)]
    error = np.std(touched) / math.sqrt(trials)
    found = float(expected_experts(float(experts), float(top_k), float(tokens)))
    assert abs(found - np.mean(touched)) < 4 * error


def test_expected_experts_keeps_its_limits():
    # One token touches its K experts; very many touch all, none more.
    assert float(expected_experts(256.0, 8.0, 1.0)) == pytest.approx(8.0, rel=1e-12)
    assert float(expected_experts(256.0, 8.0, 1e6)) == 256.0
    assert float(jax.grad(expected_experts, 2)(256.0, 8.0, 1.0)) > 0


@pytest.mark.parametrize("x64", [True, False])
def test_division_is_exact_for_whole_numbers(x64: bool):
    sizes, parts = np.meshgrid(np.r_[0:300, 2**24 - 50 : 2**24], np.r_[1:130])
    with jax.enable_x64(x64):
        dtype = np.float64 if x64 else np.float32
        below, above, largest = (
            np.asarray(function(sizes.astype(dtype), parts.astype(dtype))) for function in (floor_div, ceil_div, shard)
        )
    np.testing.assert_array_equal(below, sizes // parts)
    np.testing.assert_array_equal(above, -(-sizes // parts))
    np.testing.assert_array_equal(largest, np.maximum(-(-sizes // parts), 1))
