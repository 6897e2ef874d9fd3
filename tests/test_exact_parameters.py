"""Parameters of models from configs, against PyTorch's count of the same models on the meta device."""

import json

import pytest

import genz_jax as gz

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

SMALL = {"hidden_size": 96, "num_hidden_layers": 5, "num_attention_heads": 12, "vocab_size": 1000, "pad_token_id": 0}
GQA = {**SMALL, "num_key_value_heads": 4, "intermediate_size": 160}
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
    "first_k_dense_replace": 2,
    "n_group": 1,
    "topk_group": 1,
}
HYBRID = ["linear_attention", "full_attention"] * 2 + ["linear_attention"]
MAMBA = {"hidden_size": 96, "num_hidden_layers": 3, "vocab_size": 1000, "pad_token_id": 0}
KIMI = {
    **MLA,
    "linear_head_dim": 16,
    "linear_num_heads": 6,
    "num_local_experts": 6,
    "n_shared_experts": 2,
    "layer_types": ["linear_attention", "full_attention", "linear_attention", "linear_attention", "full_attention"],
}
KIMI = {key: value for key, value in KIMI.items() if key not in ("n_routed_experts", "first_k_dense_replace")}
V4 = {
    **SMALL,
    "head_dim": 16,
    "q_lora_rank": 24,
    "moe_intermediate_size": 40,
    "n_routed_experts": 6,
    "num_experts_per_tok": 2,
    "o_groups": 3,
    "o_lora_rank": 10,
    "index_n_heads": 4,
    "index_head_dim": 8,
    "index_topk": 4,
    "sliding_window": 8,
    "qk_rope_head_dim": 8,
    "compress_ratios": [0, 128, 4, 128, 4],
}
ZAMBA_2 = {
    **SMALL,
    "num_hidden_layers": 7,
    "intermediate_size": 160,
    "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid", "mamba", "hybrid", "hybrid"],
    "n_mamba_heads": 12,
    "mamba_d_state": 16,
    "mamba_ngroups": 2,
    "num_mem_blocks": 1,
    "adapter_rank": 10,
}
OWN = {
    "head_dim": 16,
    "hidden_size_per_layer_input": 24,
    "vocab_size_per_layer_input": 900,
    "layer_types": [*["sliding_attention", "full_attention"] * 2, "full_attention"],
}

CASES = [
    ("llama", {**GQA, "attention_bias": True, "mlp_bias": True}),
    ("llama", {**GQA, "head_dim": 16, "tie_word_embeddings": True}),
    ("mistral", GQA),
    ("mixtral", {**GQA, "num_local_experts": 6, "num_experts_per_tok": 2}),
    ("granite", {**GQA, "attention_bias": True}),
    ("qwen2", GQA),
    ("qwen3", {**GQA, "head_dim": 20, "attention_bias": True}),
    ("qwen2_moe", {**GQA, **EXPERTS, "num_experts": 6, "shared_expert_intermediate_size": 56, "mlp_only_layers": [0]}),
    ("qwen3_moe", {**GQA, **EXPERTS, "num_experts": 6, "decoder_sparse_step": 2, "head_dim": 20}),
    ("qwen3_next", {**GQA, **EXPERTS, "num_experts": 6, "shared_expert_intermediate_size": 56, "layer_types": HYBRID}),
    ("qwen3_5_text", {**GQA, "layer_types": HYBRID}),
    (
        "qwen3_5_moe_text",
        {**GQA, **EXPERTS, "num_experts": 6, "shared_expert_intermediate_size": 56, "layer_types": HYBRID},
    ),
    ("gemma", {**GQA, "head_dim": 16}),
    ("gemma2", {**GQA, "head_dim": 16}),
    ("gemma3_text", {**GQA, "head_dim": 16}),
    ("phi", GQA),
    ("phi3", GQA),
    ("phimoe", {**GQA, "num_local_experts": 6, "num_experts_per_tok": 2, "lm_head_bias": True, "attention_bias": True}),
    ("glm", {**GQA, "head_dim": 8, "attention_bias": True}),
    ("glm4", {**GQA, "head_dim": 8}),
    (
        "glm4_moe",
        {**GQA, **EXPERTS, "n_routed_experts": 6, "head_dim": 16, "use_qk_norm": True, "attention_bias": True},
    ),
    ("deepseek_v2", {**MLA, "attention_bias": True}),
    ("deepseek_v2", {**MLA, "q_lora_rank": None}),
    ("deepseek_v3", MLA),
    ("falcon", {**SMALL, "multi_query": True, "bias": True}),
    ("falcon", {**SMALL, "new_decoder_architecture": True, "num_kv_heads": 4}),
    ("falcon", {**SMALL, "multi_query": False, "parallel_attn": False, "bias": True}),
    ("opt", {**SMALL, "ffn_dim": 160, "word_embed_proj_dim": 96, "max_position_embeddings": 64}),
    ("gpt2", {"n_embd": 96, "n_head": 12, "n_layer": 3, "vocab_size": 1000, "n_positions": 64}),
    ("gpt_bigcode", {"n_embd": 96, "n_head": 12, "n_layer": 3, "vocab_size": 1000, "n_positions": 64}),
    ("gpt_neox", {**SMALL, "intermediate_size": 160}),
    ("cohere", {**GQA, "use_qk_norm": True}),
    ("cohere2", GQA),
    ("olmo", GQA),
    ("olmo2", GQA),
    ("olmo3", GQA),
    ("olmoe", {**GQA, "num_experts": 6, "num_experts_per_tok": 2}),
    ("granitemoe", {**GQA, "num_local_experts": 6, "num_experts_per_tok": 2}),
    ("granitemoeshared", {**GQA, "num_local_experts": 6, "num_experts_per_tok": 2, "shared_intermediate_size": 72}),
    (
        "granitemoehybrid",
        {
            **GQA,
            "num_local_experts": 6,
            "num_experts_per_tok": 2,
            "shared_intermediate_size": 72,
            "layer_types": ["mamba", "attention", "mamba", "mamba", "attention"],
            "mamba_n_heads": 12,
            "mamba_d_head": 16,
            "mamba_d_state": 16,
            "mamba_n_groups": 2,
        },
    ),
    ("nemotron", {**GQA, "mlp_bias": True}),
    ("gpt_oss", {**GQA, "num_local_experts": 6, "num_experts_per_tok": 2, "head_dim": 16}),
    ("minimax_m2", {**GQA, "num_local_experts": 6, "num_experts_per_tok": 2, "head_dim": 16}),
    (
        "dbrx",
        {
            "d_model": 96,
            "n_heads": 12,
            "n_layers": 3,
            "vocab_size": 1000,
            "attn_config": {"kv_n_heads": 4, "clip_qkv": 8, "rope_theta": 1e4},
            "ffn_config": {"ffn_hidden_size": 40, "moe_num_experts": 6, "moe_top_k": 2},
        },
    ),
    (
        "llama4_text",
        {
            **GQA,
            "intermediate_size_mlp": 200,
            "num_local_experts": 6,
            "interleave_moe_layer_step": 2,
            "head_dim": 16,
            "num_experts_per_tok": 2,
        },
    ),
    ("mamba", MAMBA),
    ("mamba", {**MAMBA, "use_bias": True, "tie_word_embeddings": False}),
    ("falcon_mamba", MAMBA),
    ("mamba2", {**MAMBA, "num_heads": 12, "head_dim": 16, "state_size": 16, "n_groups": 2}),
    ("jamba", {**GQA, "num_experts": 6, "num_experts_per_tok": 2, "attn_layer_offset": 1, "attn_layer_period": 3}),
    ("bamba", {**GQA, "attn_layer_indices": [1, 3], "mamba_n_heads": 12, "mamba_d_head": 16, "mamba_n_groups": 2}),
    (
        "zamba",
        {**SMALL, "num_hidden_layers": 12, "num_key_value_heads": 12, "intermediate_size": 160, "n_mamba_heads": 2},
    ),
    (
        "nemotron_h",
        {
            **GQA,
            "layers_block_type": ["mamba", "moe", "attention", "moe", "mamba"],
            "mamba_num_heads": 12,
            "mamba_head_dim": 16,
            "n_groups": 2,
            "ssm_state_size": 16,
            "n_routed_experts": 6,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 40,
            "moe_shared_expert_intermediate_size": 56,
            "moe_latent_size": 24,
        },
    ),
    ("glm_moe_dsa", {**MLA, "index_n_heads": 4, "index_head_dim": 16, "index_topk": 8}),
    ("deepseek_v32", {**MLA, "index_n_heads": 4, "index_head_dim": 16, "index_topk": 8}),
    ("glm4_moe_lite", MLA),
    (
        "mimo_v2_flash",
        {**GQA, **EXPERTS, "head_dim": 16, "v_head_dim": 12, "n_routed_experts": 6, "attention_bias": True},
    ),
    (
        "minimax_m3_vl_text",
        {
            **GQA,
            "num_attention_heads": 8,
            "head_dim": 16,
            "num_local_experts": 6,
            "num_experts_per_tok": 2,
            "shared_intermediate_size": 24,
            "dense_intermediate_size": 112,
            "moe_layer_freq": [0, 0, 1, 1, 1],
            "sparse_attention_config": {
                "sparse_attention_freq": [0, 1, 1, 1, 0],
                "sparse_num_index_heads": 4,
                "sparse_index_dim": 20,
                "sparse_topk_blocks": 2,
                "sparse_block_size": 4,
            },
        },
    ),
    ("minimax", {**GQA, "num_local_experts": 6, "num_experts_per_tok": 2, "head_dim": 16}),
    ("kimi_linear", KIMI),
    ("kimi_linear", {**KIMI, "q_lora_rank": None, "layer_types": ["linear_attention"] * 4 + ["full_attention"]}),
    ("deepseek_v4", V4),
    ("deepseek_v4", {**V4, "compress_ratios": [4, 4, 4, 4, 4], "hc_mult": 3}),
    ("zamba2", ZAMBA_2),
    ("zamba2", {**ZAMBA_2, "use_shared_attention_adapter": True, "num_mem_blocks": 2}),
    ("gemma3n_text", {**GQA, **OWN, "num_kv_shared_layers": 2, "laurel_rank": 7, "altup_num_inputs": 3}),
    (
        "gemma3n_text",
        {**GQA, **OWN, "num_kv_shared_layers": 0, "intermediate_size": [100, 120, 140, 160, 190], "laurel_rank": 7},
    ),
    (
        "gemma4_text",
        {**GQA, **OWN, "global_head_dim": 24, "num_kv_shared_layers": 2, "use_double_wide_mlp": True},
    ),
    (
        "gemma4_text",
        {
            **GQA,
            "head_dim": 16,
            "global_head_dim": 24,
            "num_global_key_value_heads": 2,
            "attention_k_eq_v": True,
            "enable_moe_block": True,
            "num_experts": 6,
            "top_k_experts": 2,
            "moe_intermediate_size": 40,
            "hidden_size_per_layer_input": 0,
            "num_kv_shared_layers": 0,
        },
    ),
]

EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "embeddings.weight", "word_embeddings.weight", "embed_in.weight")
EMBEDDINGS += ("embed_tokens_per_layer.weight",)


def count_by_kind(model) -> dict[str, int]:
    """Parameters of a PyTorch model by what their names say that they are for; a tied one counts once."""
    found: dict[str, int] = dict.fromkeys(("total", "embedding", "head", "experts"), 0)
    seen = set()
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if id(parameter) in seen:
            continue
        seen.add(id(parameter))
        found["total"] += parameter.numel()
        if name.endswith(EMBEDDINGS):
            found["embedding"] += parameter.numel()
        elif name.startswith(("lm_head", "embed_out")):
            found["head"] += parameter.numel()
        elif ".experts." in name and "shared" not in name:
            found["experts"] += parameter.numel()
    return found


@pytest.mark.parametrize(("kind", "values"), CASES, ids=[f"{kind}-{i}" for i, (kind, _) in enumerate(CASES)])
def test_parameters_equal_pytorchs(kind, values, tmp_path):
    config = transformers.AutoConfig.for_model(kind, **values)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**config.to_dict(), "model_type": kind}, default=str))
    mine = gz.parameter_count(gz.Model.from_hugging_face(file))
    theirs = count_by_kind(model)
    assert float(mine.total) == theirs["total"]
    assert float(mine.embedding) == theirs["embedding"]
    assert float(mine.head) == theirs["head"]
    if kind not in ("granitemoe", "granitemoeshared", "granitemoehybrid"):  # their experts' names do not say so
        assert float(mine.experts) == theirs["experts"]
    experts = [module for name, module in model.named_modules() if name.endswith(".experts")]
    if experts:  # every case takes 2 of 6
        assert float(mine.active) * 3 == theirs["total"] * 3 - theirs["experts"] * 2
    parts = (mine.attention, mine.ssm, mine.ffn, mine.experts, mine.router, mine.embedding, mine.head, mine.norms)
    assert float(sum(parts) + mine.other) == theirs["total"]
