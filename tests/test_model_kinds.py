"""Kinds of layers beyond full attention and plain experts, against published sizes, closed forms and brute force."""

import itertools

import jax
import numpy as np
import pytest

import genz_jax as gz
from genz_jax.specs import Compressor, Indexer, Parallelism, Precision
from genz_jax.specs.assumptions import Assumptions
from genz_jax.specs.stack import take
from genz_jax.work.layers.compressed_attention import entries
from genz_jax.work.layers.indexer import selected
from genz_jax.work.step import Deployment, Segment, Step

DEFAULT = Deployment(Parallelism(), Precision(), Assumptions.default)
NEW = ("deepseek-v4-flash", "kimi-k3", "minimax-m3", "minimax-text-01", "zamba2-7b", "gemma-3n-e4b", "gemma-4-e2b")

ROOMY = gz.platform("MI300X").replace(mem_capacity="100 TB")


def kv_cache(name: str, tokens: int) -> float:
    """Bytes of cache and states of one request after `tokens` prompt tokens, in bf16."""
    workload = gz.Workload(batch=1, input_tokens=tokens, output_tokens=1)
    with jax.enable_x64(True):
        found = gz.sweep(name, "B200", workload, stage="prefill", figures=["kv_cache"], progress=False)
    return float(found.kv_cache)


# ------------------------------------------------------------------------------------------------ caches and states


def test_published_cache_of_deepseek_v4():
    """9.62 GiB for 1 Mi tokens in bf16, of V4 Pro; 83.9 GiB for 61 layers as those of V3.2 (vLLM, 24 April 2026)."""
    assert kv_cache("deepseek-v4-pro", 2**20) / 2**30 == pytest.approx(9.62, abs=0.005)
    assert kv_cache("deepseek-v3.2", 2**20) / 2**30 == pytest.approx(83.9, abs=0.05)


def test_layers_that_read_anothers_keys_cache_none():
    # Gemma 4 E2B: of 35 layers, every fifth global, the last 20 have no keys of their own.
    own = [i for i in range(35) if i < 15]
    whole = sum((i + 1) % 5 == 0 for i in own)
    tokens, window = 8192, 512
    expected = 2 * 2 * 1 * (whole * tokens * 512 + (len(own) - whole) * window * 256)
    assert kv_cache("gemma-4-e2b", tokens) == expected


@pytest.mark.slow
def test_lightning_attention_and_kimi_delta_attention_have_constant_states():
    first, second = (kv_cache("minimax-text-01", tokens) for tokens in (1024, 2048))
    assert second - first == 1024 * 10 * 2 * 8 * 128 * 2
    assert first - (second - first) == 70 * 64 * 128 * 128 * 4
    first, second = (kv_cache("kimi-k3", tokens) for tokens in (1024, 2048))
    assert second - first == 1024 * 24 * (512 + 64) * 2
    assert first - (second - first) == 69 * (96 * 128 * 128 * 4 + 3 * 3 * 96 * 128 * 2)


# ---------------------------------------------------------------------------------------------- what a query sees


def step_of(segment: Segment) -> Step:
    return Step("decode", 1.0, 1.0, embedded=1.0, sampled=1.0, states=1.0, segments=(segment,))


@pytest.mark.first(33)
@pytest.mark.parametrize(("rate", "top_k"), list(itertools.product([1, 3, 4, 128], [None, 2, 7, 1000])))
@pytest.mark.parametrize(("past", "queries"), [(0, 1), (0, 50), (13, 40), (500, 300)])
def test_pairs_of_compressed_entries(rate, top_k, past, queries):
    index = None if top_k is None else Indexer(1, 1, 1, top_k)
    segment = Segment("", True, batch=1.0, queries=float(queries), context=float(past + queries))
    _, pairs, _ = entries(Compressor(1, rate), index, step_of(segment), DEFAULT).reads(segment)
    places = range(past + 1, past + queries + 1)
    assert float(pairs) == sum(min(place // rate, top_k or place) for place in places)


def test_decode_sees_the_newest_entries():
    index = Indexer(1, 1, 1, 100)
    for context, newer, seen in ((4000, 0, 100), (4000, 200, 50), (4000, 400, 0), (200, 0, 50)):
        segment = Segment("", False, batch=1.0, queries=1.0, context=float(context), newer=float(newer))
        read, pairs, whole = entries(Compressor(1, 4), index, step_of(segment), DEFAULT).reads(segment)
        assert (float(whole), float(read), float(pairs)) == (context / 4, seen, seen)


@pytest.mark.parametrize(("blocks", "block"), [(16, 128), (4, 8), (5, 1)])
def test_blocks_of_keys_with_the_newest_half_full(blocks, block):
    """A query sees its own block up to itself, and the best blocks before it: the mean over all places of a block."""
    index = Indexer(1, 1, 1, blocks * block, block_size=block)
    places = np.arange(10 * blocks * block, 11 * blocks * block)
    visible = np.mean((blocks - 1) * block + places % block + 1)
    segment = Segment("", False, batch=1.0, queries=1.0, context=float(places[-1]))
    read, pairs, _ = selected(index, step_of(segment), DEFAULT).reads(segment)
    assert float(read) == float(pairs) == pytest.approx(visible, rel=1e-12)


# ------------------------------------------------------------------------------------------- models as a whole


@pytest.mark.first(1)
@pytest.mark.parametrize("name", NEW)
def test_weights_in_memory_are_the_parameters(name):
    """On one device in a format of one byte, the engine stores each parameter once."""
    stored = gz.sweep(name, "H100-SXM", precision="int8", stage="prefill", figures=["weights"], progress=False)
    # Norms of single layers' embeddings and the like are in the count alone: below a millionth.
    assert float(stored.weights) == pytest.approx(float(gz.parameter_count(name).total), rel=1e-6)


@pytest.mark.slow
def test_together_as_alone():
    """A list of models is one computation in which each keeps its figures."""
    names = ["llama-3.1-8b", *NEW, "deepseek-v3", "deepseek-v3.2", "nemotron-3-super-120b-a12b"]
    figures = ["latency", "traffic", "weights", "kv_cache"]
    for stage in ("prefill", "decode"):
        options = {"stage": stage, "figures": figures, "progress": False}
        together = gz.sweep(names, ROOMY, gz.Workload(4, 5000, 100), gz.Parallelism(tp=4), "fp8", **options)
        for name in names:
            alone = gz.sweep(name, ROOMY, gz.Workload(4, 5000, 100), gz.Parallelism(tp=4), "fp8", **options)
            for figure in figures:
                one, other = float(alone[figure]), float(together[figure].sel(model=name))
                assert other == pytest.approx(one, rel=1e-6), (stage, name, figure)


def test_counts_of_a_list_are_those_of_each():
    names = ["llama-3.1-8b", *NEW, "deepseek-v3", "glm-5.2", "step-3.7-flash", "qwen3.5-27b"]
    stacked = gz.stack([gz.model(name) for name in names])
    together = gz.parameter_count(stacked)
    for i, name in enumerate(names):
        alone = gz.parameter_count(name)
        assert float(together.total[i]) == float(alone.total)
        assert float(together.mtp[i]) == float(alone.mtp)
        assert float(gz.parameter_count(take(stacked, np.array(i))).active) == float(alone.active)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*NEW, "mimo-v2-flash", "step-3.7-flash", "llama-3.3-nemotron-super-49b"])
def test_sharding_divides_the_work(name):
    """Two devices do half of the work each, and what is replicated: compressors, latents, small projections."""
    one, two = (
        gz.estimate(name, ROOMY, gz.Workload(8, 512, 8), gz.Parallelism(tp=tp), "fp8", stage="prefill") for tp in (1, 2)
    )
    assert 0.5 <= float(two.compute_time / one.compute_time) < 0.75


@pytest.mark.slow
def test_heads_that_do_not_divide_are_named():
    with pytest.raises(ValueError, match=r"tp·ep = 7: must divide compressed_attention\.heads = 64"):
        gz.estimate("deepseek-v4-flash", "B200", parallelism=gz.Parallelism(tp=7))
    with pytest.raises(ValueError, match=r"linear_attention\.heads = 64"):
        gz.estimate("minimax-text-01", "B200", parallelism=gz.Parallelism(tp=48))


# ------------------------------------------------------------------------------------- multi-token prediction


def test_multi_token_prediction_of_deepseek_v3():
    """The checkpoint holds embedding and head a second time; its 41,555,600 numbers in F32 are scales and corrections.

    Hugging Face: BF16 3,918,786,560 and F8_E4M3 680,571,043,840, together with F32 684.5e9, shown as 685B.
    """
    counted = gz.parameter_count("deepseek-v3")
    assert float(counted.total + counted.mtp + counted.embedding + counted.head) == 3_918_786_560 + 680_571_043_840
    assert float(counted.mtp) == pytest.approx(11.5e9, rel=0.01)  # README_WEIGHTS.md: unique parameters
    assert float(counted.total) == 671_026_404_352


@pytest.mark.parametrize(
    ("name", "published", "copies", "corrections"),
    [
        ("glm-4.5", 358_337_791_296, 1, 90 * 160),
        ("glm-4.5-air", 110_468_824_832, 1, 46 * 128),
        ("glm-5.2", 753_329_940_480, 0, 76 * 256),
    ],
)
def test_multi_token_prediction_in_checkpoints(name, published, copies, corrections):
    """Safetensors counts of the hub, which hold a correction per expert and, some, embedding and head twice."""
    counted = gz.parameter_count(name)
    twice = copies * (counted.embedding + counted.head)
    assert float(counted.total + counted.mtp + twice) + corrections == published


def test_modules_follow_the_kind_of_block():
    model = gz.model("step-3.7-flash")
    hidden, heads, kv, size = 4096, 96, 8, 128
    attention = hidden * (2 * heads * size + 2 * kv * size + heads) + 2 * size + hidden
    dense = 3 * hidden * 11264 + hidden
    assert float(gz.parameter_count(model).mtp) == 3 * (2 * hidden**2 + 3 * hidden + attention + dense)
    assert float(gz.parameter_count(model.replace(mtp_layers=0)).mtp) == 0
    with jax.enable_x64(True):
        slope = jax.grad(lambda n: gz.parameter_count(gz.model("deepseek-v3").replace(mtp_layers=n)).mtp)(1.0)
    assert float(slope) == 11_610_067_968
