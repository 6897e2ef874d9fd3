"""FLOPs of models that are read from configs, against PyTorch's count of the same configs.

As tests/test_exact_flops.py, for architectures with layers of several kinds. Queries select as many tokens or entries
as there are, because PyTorch's reference code computes all scores and masks them.
"""

import functools
import json
from typing import Any

import pytest
from counting import Counted, count_pass, transformers

import genz_jax as gz
from genz_jax.counts.flops import FlopCount, flop_count

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

SQUARE = gz.Assumptions.default.replace(causal=False, last_token_head=False)
SHAPES = [(1, 7), (2, 15), (3, 31)]  # sequences and tokens; with one token more, all entries of 4 and 8 are complete

D, V = 96, 200
SMALL = {"hidden_size": D, "num_hidden_layers": 3, "num_attention_heads": 12, "vocab_size": V}
SMALL |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
GQA = {**SMALL, "num_key_value_heads": 4, "intermediate_size": 160, "head_dim": 16}
EXPERTS = {"n_routed_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 40}
MLA = {
    **SMALL,
    "num_key_value_heads": 12,
    "n_shared_experts": 2,
    "intermediate_size": 160,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 40,
    "q_lora_rank": 24,
    "kv_lora_rank": 20,
    "qk_nope_head_dim": 12,
    "qk_rope_head_dim": 8,
    "v_head_dim": 10,
}
OWN = {
    "hidden_size_per_layer_input": 24,
    "vocab_size_per_layer_input": 180,
    "num_hidden_layers": 4,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
    "num_kv_shared_layers": 2,
    "sliding_window": 8,
}
M3 = {
    "sparse_attention_freq": [0, 1, 1],
    "sparse_num_index_heads": 4,
    "sparse_index_dim": 20,
    "sparse_topk_blocks": 16,
    "sparse_block_size": 4,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "mimo_v2_flash": {**GQA, **EXPERTS, "num_attention_heads": 8, "v_head_dim": 12, "sliding_window": 8},
    "step3p5": {
        **GQA,
        **EXPERTS,
        "num_attention_heads": 8,
        "num_sliding_attention_heads": 12,
        "layer_types": ["full_attention", "sliding_attention", "sliding_attention"],
        "moe_layers_enum": "1,2",
        "share_expert_dim": 24,
        "sliding_window": 8,
    },
    "minimax_m3_vl_text": {
        **GQA,
        "num_attention_heads": 8,
        "rotary_dim": 8,
        "num_local_experts": 6,
        "num_experts_per_tok": 2,
        "shared_intermediate_size": 24,
        "dense_intermediate_size": 112,
        "moe_layer_freq": [0, 1, 1],
        "sparse_attention_config": M3,
    },
    "gemma4_text": {**GQA, **OWN, "global_head_dim": 24, "use_double_wide_mlp": True},
    "gemma3n_text": {**GQA, **OWN, "laurel_rank": 7, "altup_num_inputs": 3},
    "zamba2": {
        **SMALL,
        "num_hidden_layers": 4,
        "intermediate_size": 160,
        "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"],
        "n_mamba_heads": 12,
        "mamba_d_state": 16,
        "mamba_ngroups": 2,
        "adapter_rank": 10,
        "use_shared_attention_adapter": True,
        "chunk_size": 8,
    },
    "minimax": {**GQA, "num_local_experts": 6, "num_experts_per_tok": 2},
    "kimi_linear": {
        **MLA,
        "linear_head_dim": 16,
        "linear_num_heads": 6,
        "num_local_experts": 6,
        "layer_types": ["linear_attention", "full_attention", "linear_attention"],
    },
    "deepseek_v32": {
        **MLA,
        "n_routed_experts": 6,
        "first_k_dense_replace": 1,
        "n_group": 1,
        "topk_group": 1,
        "index_n_heads": 4,
        "index_head_dim": 16,
        "index_topk": 64,
    },
    "deepseek_v4": {
        **SMALL,
        **EXPERTS,
        "num_hidden_layers": 4,
        "head_dim": 16,
        "q_lora_rank": 24,
        "o_groups": 3,
        "o_lora_rank": 10,
        "index_n_heads": 4,
        "index_head_dim": 8,
        "index_topk": 16,
        "sliding_window": 8,
        "qk_rope_head_dim": 8,
        "layer_types": [
            "sliding_attention",
            "heavily_compressed_attention",
            "compressed_sparse_attention",
            "sliding_attention",
        ],
        "compress_rates": {"compressed_sparse_attention": 4, "heavily_compressed_attention": 8},
    },
}


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, gz.Model]:
    """Each config as it is read here."""
    folder = tmp_path_factory.mktemp("configs")
    found = {}
    for name, values in CONFIGS.items():
        file = folder / f"{name}.json"
        config = transformers.AutoConfig.for_model(name, **values)
        file.write_text(json.dumps({**config.to_dict(), "model_type": name}, default=str))
        found[name] = gz.Model.from_hugging_face(file)
    return found


@functools.cache
def theirs(name: str, batch: int, past: int, new: int) -> Counted:
    return count_pass(name, CONFIGS[name], "cpu", batch, past, new)


def prefill(model: gz.Model, batch: int, tokens: int) -> FlopCount:
    return flop_count(model, gz.Workload(batch, tokens, 1), "prefill", SQUARE)


def decode(model: gz.Model, batch: int, past: int) -> FlopCount:
    """The step whose query sees `past` tokens and itself, two of them generated before."""
    return flop_count(model, gz.Workload(batch, past - 2, 3), "decode", "default")


def named(count: FlopCount, ending: str) -> int:
    return round(sum(flops for name, flops in count.operators.items() if name.endswith(ending)))


stages = pytest.mark.parametrize("stage", ["prefill", "decode"])
shapes = pytest.mark.parametrize(("batch", "tokens"), SHAPES)
PLAIN = ("mimo_v2_flash", "step3p5", "minimax_m3_vl_text", "gemma4_text", "gemma3n_text", "zamba2")


def both(models: dict[str, gz.Model], name: str, stage: str, batch: int, tokens: int) -> tuple[FlopCount, Counted]:
    if stage == "prefill":
        return prefill(models[name], batch, tokens), theirs(name, batch, 0, tokens)
    return decode(models[name], batch, tokens), theirs(name, batch, tokens, 1)


@shapes
@stages
@pytest.mark.parametrize("name", PLAIN)
def test_products_with_weights_and_attention(models, name, stage, batch, tokens):
    ours, counted = both(models, name, stage, batch, tokens)
    # transformers has Step's text model without a head.
    head = 2 * batch * (tokens if stage == "prefill" else 1) * D * V if name == "step3p5" else 0
    assert round(ours.gemm) == counted.gemm + head
    assert round(ours.attention) == counted.attention


@shapes
@stages
def test_streams_of_gemma_3n(models, stage, batch, tokens):
    ours, counted = both(models, "gemma3n_text", stage, batch, tokens)
    assert named(ours, "mix") == counted.other


@shapes
@stages
def test_adapters_of_zamba_2_are_its_projections(models, stage, batch, tokens):
    ours, _ = both(models, "zamba2", stage, batch, tokens)
    rows, rank, places = batch * (tokens if stage == "prefill" else 1), 10, 2
    adapters = 3 * (2 * D * rank + rank * 2 * D) + D * rank + rank * 2 * 160
    assert sum(named(ours, f"projection_{i}") for i in range(5)) == 2 * rows * places * (adapters + D * D)


@shapes
@stages
def test_lightning_attention(models, stage, batch, tokens):
    """A state element takes 5 FLOPs here, of which the decay is no product; PyTorch's prompt is one quadratic block."""
    ours, counted = both(models, "minimax", stage, batch, tokens)
    heads, size = 12, 16
    if stage == "decode":
        lightning = 4 * batch * heads * size * size
        assert 4 * named(ours, "scan") == 5 * lightning
    else:
        lightning = 4 * batch * heads * tokens * size * (tokens + size)
    assert round(ours.gemm) == counted.gemm
    assert round(ours.attention) + lightning == counted.attention


@shapes
@stages
def test_kimi_delta_attention(models, stage, batch, tokens):
    """Latent attention in one of three layers; decode multiplies the query instead of expanding the cached latents."""
    ours, counted = both(models, "kimi_linear", stage, batch, tokens)
    latent, rope, nope, value, heads = 20, 8, 12, 10, 12
    of_latent = counted.inside("layers.1.self_attn")
    if stage == "prefill":
        assert round(ours.gemm) == counted.gemm
        assert round(ours.attention) == of_latent
        assert named(ours, "conv") * (tokens + 3) == counted.convolution * tokens
    else:
        assert round(ours.gemm) == counted.gemm - 2 * batch * tokens * latent * heads * (nope + value)
        assert round(ours.attention) * (nope + rope + value) == of_latent * (2 * latent + rope)
        assert 2 * named(ours, "conv") == counted.convolution


@shapes
@stages
def test_sparse_attention_of_deepseek(models, stage, batch, tokens):
    """PyTorch sums the indexer's scores over its heads as a product, which is not counted here."""
    ours, counted = both(models, "deepseek_v32", stage, batch, tokens)
    latent, rope, nope, value, heads, layers = 20, 8, 12, 10, 12, 3
    pairs = batch * (tokens * tokens if stage == "prefill" else tokens + 1)
    index = layers * 2 * pairs * 4 * 16
    head_sum = layers * 2 * pairs * 4
    assert named(ours, "index_scores") == index
    main = counted.attention - index - head_sum
    if stage == "prefill":
        assert round(ours.gemm) == counted.gemm
        assert round(ours.attention) - index == main
    else:
        expanded = layers * 2 * batch * tokens * latent * heads * (nope + value)
        assert round(ours.gemm) == counted.gemm - expanded
        assert (round(ours.attention) - index) * (nope + rope + value) == main * (2 * latent + rope)


@shapes
@stages
def test_compressed_attention(models, stage, batch, tokens):
    """Windows, entries of 4 and 8 tokens, an indexer; the grouped output projection is PyTorch's batched product."""
    ours, counted = both(models, "deepseek_v4", stage, batch, tokens)
    grouped = counted.inside("o_a_proj")
    assert named(ours, "out_down_proj") == grouped
    assert round(ours.gemm) == counted.gemm + grouped
    assert round(ours.attention) == counted.attention - grouped
    assert named(ours, "residual_streams.mix") == counted.other
