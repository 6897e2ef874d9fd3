"""Sparse attention with an indexer, the gated delta net and latent experts, against closed forms."""

from typing import Any

import numpy as np
import pytest
from helpers import make_case, once

import genz_jax as gz
from genz_jax.serving.evaluate import Question
from genz_jax.specs.assumptions import Assumptions

DENSE = gz.model("deepseek-v3")
SPARSE = gz.model("deepseek-v3.2")
DEFAULT = Assumptions.default


APART = DEFAULT.replace(fused_attention=False)


def operators(model, stage="decode", assumptions=APART, **workload):
    found = gz.estimate(
        model,
        "B200",
        gz.Workload(**workload),
        gz.Parallelism(tp=8),
        "fp8",
        stage=stage,
        assumptions=assumptions,
        operators=True,
    )
    return found.operators


@pytest.mark.slow
def test_decode_sees_as_many_tokens_as_are_selected():
    sizes: dict[str, Any] = {"batch": 4, "input_tokens": 50_000, "output_tokens": 1}
    dense, sparse = (operators(model, **sizes) for model in (DENSE, SPARSE))
    name = "latent_attention.prefix_scores"
    seen = float(sparse[name].flops / dense[name].flops) * 50_000
    assert seen + 1 == pytest.approx(2048, rel=1e-3)  # and the token that prefill made
    # 61 layers, 64 index heads of 128, whole on every rank.
    assert float(sparse["latent_attention.prefix_index_scores"].flops) == pytest.approx(61 * 2 * 4 * 64 * 128 * 50_000)


@pytest.mark.slow
def test_prefill_pairs_are_those_of_a_window():
    sizes: dict[str, Any] = {"batch": 1, "input_tokens": 8192, "output_tokens": 1}
    dense, sparse = (operators(model, "prefill", **sizes) for model in (DENSE, SPARSE))
    name = "latent_attention.scores"
    pairs = np.minimum(np.arange(1, 8193), 2048).sum() / np.arange(1, 8193).sum()
    assert float(sparse[name].flops / dense[name].flops) == pytest.approx(pairs, rel=1e-6)


def test_short_contexts_are_dense_but_for_the_indexer():
    sizes: dict[str, Any] = {"batch": 4, "input_tokens": 1000, "output_tokens": 10}
    dense, sparse = (operators(model, **sizes) for model in (DENSE, SPARSE))
    for name in ("latent_attention.prefix_scores", "latent_attention.prefix_values"):
        assert float(sparse[name].flops) == pytest.approx(float(dense[name].flops), rel=1e-6)


def test_the_switch_takes_the_indexer_away():
    off = DEFAULT.replace(sparse_attention=False)
    workload = gz.Workload(batch=4, input_tokens=50_000, output_tokens=16)
    dense, sparse, switched = (
        once(make_case(model, workload=workload), Question("decode", assumptions))
        for model, assumptions in ((DENSE, DEFAULT), (SPARSE, DEFAULT), (SPARSE, off))
    )
    assert float(switched["compute_time"]) == pytest.approx(float(dense["compute_time"]), rel=1e-9)
    assert float(switched["kv_cache"]) == pytest.approx(float(dense["kv_cache"]), rel=1e-9)
    # The indexer's keys have a cache of their own: 128 elements beside the 576 of the latent.
    assert float(sparse["kv_cache"] / dense["kv_cache"]) == pytest.approx((576 + 128) / 576, rel=1e-9)


@pytest.mark.slow
def test_delta_net_has_a_constant_state_of_keys_by_values():
    model = gz.model("qwen3.5-27b").replace(attention=None)
    state = 48 * (48 * 128 * 128 * 4 + 3 * (2 * 16 * 128 + 48 * 128) * 2)
    for tokens in (16, 65_536):
        found = gz.estimate(model, "B200", gz.Workload(input_tokens=tokens), stage="prefill")
        assert float(found.kv_cache) == pytest.approx(state, rel=1e-6)


@pytest.mark.slow
def test_latent_experts_move_the_latent():
    model = gz.model("nemotron-3-super-120b-a12b")
    wide = model.replace(**{"moe.latent.size": 4096})
    narrow, full = (
        gz.estimate(m, "B200", gz.Workload(batch=8), gz.Parallelism(ep=2), stage="prefill", operators=True)
        for m in (model, wide)
    )
    for name in ("moe.dispatch", "moe.combine"):
        ratio = narrow.operators[name].message_bytes / full.operators[name].message_bytes
        assert float(ratio) == pytest.approx(1024 / 4096)
