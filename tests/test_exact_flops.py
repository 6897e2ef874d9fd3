"""FLOPs of forward passes, against PyTorch's count of the same models, operator by operator.

The models of transformers run on the meta device, or on the CPU where routing depends on values. Eager attention
computes the whole square of scores, so prefill is compared with causal=False; a decode step has no mask. Products with
weights are PyTorch's mm and addmm, attention its bmm inside attention modules; scans and convolutions run as PyTorch's
reference code, of which only what stands in closed form is compared.
"""

import dataclasses
import functools
from typing import Any

import pytest
from counting import Counted, count_pass

import genz_jax as gz
from genz_jax.counts.flops import FlopCount, flop_count

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

SQUARE = gz.Assumptions.default.replace(causal=False, last_token_head=False)
SHAPES = [(1, 7), (2, 12), (3, 33)]  # sequences and tokens; windows are 8

D, V, INNER = 96, 200, 160
SMALL = {"hidden_size": D, "num_hidden_layers": 3, "num_attention_heads": 12, "vocab_size": V, "pad_token_id": 0}
GQA = {**SMALL, "num_key_value_heads": 4, "intermediate_size": INNER}
GPT = {"n_embd": D, "n_head": 12, "n_layer": 3, "vocab_size": V, "n_positions": 64}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 40}
MLA = {
    **GQA,
    **EXPERTS,
    "num_key_value_heads": 12,
    "q_lora_rank": 24,
    "kv_lora_rank": 20,
    "qk_nope_head_dim": 12,
    "qk_rope_head_dim": 8,
    "v_head_dim": 10,
    "n_routed_experts": 6,
    "n_shared_experts": 2,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
}
MAMBA = {"hidden_size": D, "num_hidden_layers": 3, "vocab_size": V, "pad_token_id": 0}
MAMBA_2 = {"num_heads": 12, "head_dim": 16, "state_size": 16, "n_groups": 2, "chunk_size": 8}
HYBRID = {"mamba_n_heads": 12, "mamba_d_head": 16, "mamba_d_state": 16, "mamba_n_groups": 2, "mamba_chunk_size": 8}
JAMBA = {
    "num_hidden_layers": 4,
    "attn_layer_period": 2,
    "attn_layer_offset": 1,
    "expert_layer_period": 2,
    "expert_layer_offset": 1,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "mamba_d_state": 8,
    "mamba_dt_rank": 6,
}
NEXT = {
    "num_experts": 6,
    "shared_expert_intermediate_size": 56,
    "layer_types": ["linear_attention", "full_attention", "linear_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 24,
    "head_dim": 16,
}


def _model(layers: int = 3, **parts: Any) -> gz.Model:
    return gz.Model(hidden_size=D, layers=layers, vocab_size=V, **parts)


def _gqa(kv_heads: int = 4, size: int = 8, layers: int = 3, **numbers: Any) -> gz.layers.Attention:
    return gz.layers.Attention(layers, heads=12, kv_heads=kv_heads, head_dim=size, **numbers)


FFN = gz.layers.FFN(3, INNER)
WINDOW = gz.layers.LocalAttention(3, heads=12, kv_heads=4, head_dim=8, window=8)
MLA_PART = gz.layers.LatentAttention(
    3, heads=12, q_lora_rank=24, kv_lora_rank=20, qk_nope_head_dim=12, qk_rope_head_dim=8, v_head_dim=10
)
SHARED_GATE = gz.layers.MoE(3, 6, 2, 40, shared_experts=1, shared_intermediate_size=56, shared_gate=1)


@dataclasses.dataclass(frozen=True)
class Case:
    """A model of transformers by its type and config, and the same model here."""

    name: str
    config: dict[str, Any]
    model: gz.Model
    device: str = "meta"


TRANSFORMERS = [
    Case("llama", GQA, _model(attention=_gqa(), ffn=FFN)),
    Case("qwen3", {**GQA, "head_dim": 20}, _model(attention=_gqa(size=20), ffn=FFN)),
    Case("phi3", GQA, _model(attention=_gqa(), ffn=FFN)),
    Case("cohere", GQA, _model(attention=_gqa(), ffn=FFN)),
    Case("olmo2", GQA, _model(attention=_gqa(), ffn=FFN)),
    Case("gpt2", GPT, _model(attention=_gqa(12), ffn=gz.layers.FFN(3, 4 * D, 1))),
    Case("gpt_bigcode", GPT, _model(attention=_gqa(1), ffn=gz.layers.FFN(3, 4 * D, 1))),
    Case("falcon", {**SMALL, "multi_query": True}, _model(attention=_gqa(1), ffn=gz.layers.FFN(3, 4 * D, 1))),
    Case("gpt_neox", {**SMALL, "intermediate_size": INNER}, _model(attention=_gqa(12), ffn=gz.layers.FFN(3, INNER, 1))),
    Case(
        "opt",
        {**SMALL, "ffn_dim": INNER, "word_embed_proj_dim": D, "max_position_embeddings": 64},
        _model(attention=_gqa(12), ffn=gz.layers.FFN(3, INNER, 1)),
    ),
    Case("mistral", {**GQA, "sliding_window": 8}, _model(local_attention=WINDOW, ffn=FFN)),
    Case(
        "gemma2",
        {**GQA, "head_dim": 8, "sliding_window": 8},
        _model(attention=_gqa(layers=1), local_attention=WINDOW.replace(layers=2), ffn=FFN),
    ),
    Case(
        "mixtral",
        {**GQA, "num_local_experts": 6, "num_experts_per_tok": 2},
        _model(attention=_gqa(), moe=gz.layers.MoE(3, 6, 2, INNER)),
        "cpu",
    ),
    Case(
        "qwen3_moe",
        {**GQA, **EXPERTS, "num_experts": 6, "head_dim": 20, "mlp_only_layers": [0]},
        _model(attention=_gqa(size=20), ffn=gz.layers.FFN(1, INNER), moe=gz.layers.MoE(2, 6, 2, 40)),
        "cpu",
    ),
    Case(
        "qwen2_moe",
        {**GQA, **EXPERTS, "num_experts": 6, "shared_expert_intermediate_size": 56},
        _model(attention=_gqa(), moe=SHARED_GATE),
        "cpu",
    ),
]
LATENT = Case(
    "deepseek_v3",
    MLA,
    _model(
        latent_attention=MLA_PART,
        ffn=gz.layers.FFN(1, INNER),
        moe=gz.layers.MoE(2, 6, 2, 40, shared_experts=2, shared_intermediate_size=40),
    ),
    "cpu",
)
SSM_PART = gz.layers.SSM(3, d_inner=2 * D, d_state=8, d_conv=4, dt_rank=6)
SSD_PART = gz.layers.SSD(3, heads=12, head_dim=16, d_state=16, groups=2, d_conv=4)
STATE_SPACE = [
    Case("mamba", {**MAMBA, "state_size": 8}, _model(ssm=SSM_PART)),
    Case("mamba2", {**MAMBA, **MAMBA_2}, _model(ssd=SSD_PART)),
    Case(
        "jamba",
        {**GQA, **JAMBA},
        _model(
            4,
            attention=_gqa(layers=2),
            ssm=SSM_PART.replace(layers=2),
            ffn=gz.layers.FFN(2, INNER),
            moe=gz.layers.MoE(2, 4, 2, INNER),
        ),
        "cpu",
    ),
    Case(
        "bamba",
        {**GQA, **HYBRID, "attn_layer_indices": [1]},
        _model(attention=_gqa(layers=1), ssd=SSD_PART.replace(layers=2), ffn=FFN),
    ),
    Case(
        "qwen3_next",
        {**GQA, **EXPERTS, **NEXT},
        _model(
            attention=_gqa(size=16, layers=1, output_gate=12 * 16),
            delta_net=gz.layers.DeltaNet(2, 2, 4, key_head_dim=16, value_head_dim=24, d_conv=4),
            moe=SHARED_GATE,
        ),
        "cpu",
    ),
]


@functools.cache
def _run(name: str, batch: int, past: int, new: int) -> Counted:
    """Count a pass over `new` tokens of each sequence after `past` cached ones."""
    case = next(c for c in (*TRANSFORMERS, LATENT, *STATE_SPACE) if c.name == name)
    return count_pass(name, case.config, case.device, batch, past, new)


def _kind(count: FlopCount, kind: str) -> int:
    return round(sum(flops for name, flops in count.operators.items() if count.kinds[name] == kind))


def _scan(count: FlopCount) -> int:
    return round(sum(flops for name, flops in count.operators.items() if name.endswith(".scan")))


def _prefill(case: Case, batch: int, tokens: int) -> FlopCount:
    return flop_count(case.model, gz.Workload(batch, tokens, 1), "prefill", SQUARE)


def _decode(case: Case, batch: int, past: int) -> FlopCount:
    """The step whose query sees `past` tokens and itself, two of them generated before."""
    return flop_count(case.model, gz.Workload(batch, past - 2, 3), "decode", "default")


def _named(case: Case) -> str:
    return case.name


every = pytest.mark.parametrize("case", TRANSFORMERS, ids=_named)
state_space = pytest.mark.parametrize("case", STATE_SPACE, ids=_named)
shapes = pytest.mark.parametrize(("batch", "tokens"), SHAPES)


@shapes
@every
def test_prefill(case, batch, tokens):
    ours, theirs = _prefill(case, batch, tokens), _run(case.name, batch, 0, tokens)
    assert theirs.convolution == theirs.other == 0
    assert round(ours.gemm) == theirs.gemm
    assert round(ours.attention) == theirs.attention


@shapes
@every
def test_decode(case, batch, tokens):
    ours, theirs = _decode(case, batch, tokens), _run(case.name, batch, tokens, 1)
    assert theirs.convolution == theirs.other == 0
    assert round(ours.gemm) == theirs.gemm
    assert round(ours.attention) == theirs.attention


@pytest.mark.parametrize("name", ["llama", "gpt2", "falcon", "mixtral"])
@pytest.mark.parametrize(("past", "new"), [(7, 5), (16, 16), (30, 2)])
def test_chunk_of_a_prompt(name, past, new):
    case = next(case for case in TRANSFORMERS if case.name == name)
    workload = gz.Workload(prefill_chunks=(gz.specs.PrefillChunk(past, new),))
    ours, theirs = flop_count(case.model, workload, "chunked", SQUARE), _run(name, 1, past, new)
    assert round(ours.gemm) == theirs.gemm
    assert round(ours.attention) == theirs.attention


@shapes
@pytest.mark.parametrize("name", ["llama", "gpt_bigcode", "qwen3_moe"])
def test_a_causal_prompt_computes_the_lower_triangle(name, batch, tokens):
    case = next(case for case in TRANSFORMERS if case.name == name)
    ours = flop_count(case.model, gz.Workload(batch, tokens), "prefill", SQUARE.replace(causal=True))
    assert round(ours.attention) * 2 * tokens == _run(name, batch, 0, tokens).attention * (tokens + 1)


@shapes
def test_prefill_of_latent_attention(batch, tokens):
    ours, theirs = _prefill(LATENT, batch, tokens), _run(LATENT.name, batch, 0, tokens)
    assert theirs.convolution == theirs.other == 0
    assert round(ours.gemm) == theirs.gemm
    assert round(ours.attention) == theirs.attention


@shapes
def test_decode_of_latent_attention(batch, tokens):
    """PyTorch expands the cached latents to keys and values anew; here the query goes to the latent instead."""
    ours, theirs = _decode(LATENT, batch, tokens), _run(LATENT.name, batch, tokens, 1)
    latent, rope, nope, value = 20, 8, 12, 10
    expanded = 3 * 2 * batch * tokens * latent * 12 * (nope + value)
    assert round(ours.gemm) == theirs.gemm - expanded
    assert round(ours.attention) * (nope + rope + value) == theirs.attention * (2 * latent + rope)


@shapes
@state_space
def test_prefill_of_state_space_models(case, batch, tokens):
    ours, theirs = _prefill(case, batch, tokens), _run(case.name, batch, 0, tokens)
    assert round(ours.gemm) == theirs.gemm
    assert round(ours.attention) == theirs.attention
    # PyTorch pads the convolution by d_conv − 1 tokens on both sides and drops the last of the results.
    assert _kind(ours, "conv1d") * (tokens + 3) == theirs.convolution * tokens
    if case.model.ssm is not None:
        # The read-out of the state is a batched product, 2 of the 6 FLOPs of a state element; the rest element-wise.
        assert _scan(ours) == 3 * theirs.other


@shapes
@state_space
def test_decode_of_state_space_models(case, batch, tokens):
    ours, theirs = _decode(case, batch, tokens), _run(case.name, batch, tokens, 1)
    assert round(ours.gemm) == theirs.gemm
    assert round(ours.attention) == theirs.attention
    # PyTorch convolves d_conv + 1 tokens and drops the first of both results.
    assert 2 * _kind(ours, "conv1d") == theirs.convolution
    if case.model.delta_net is None:
        assert _scan(ours) == 3 * theirs.other
