"""Number formats of published checkpoints: every public form of quantization, by the kinds of layers that it leaves.

The configs are cut to what says the formats, with the facts of the checkpoints that are named; the text is derived by
hand from what each form's documentation says that a key means.
"""

import itertools
import json
import random
import re

import pytest

from genz_jax.catalog.hugging_face import checkpoints
from genz_jax.catalog.quantization.layers import feed_forward_kinds, mixer_kinds
from genz_jax.specs import FFN, SSD, Attention, LocalAttention, Model, MoE

LLAMA = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "tie_word_embeddings": False,
}
LLAMA_405B = {**LLAMA, "hidden_size": 16384, "intermediate_size": 53248, "num_hidden_layers": 126} | {
    "num_attention_heads": 128
}
MIXTRAL = {**LLAMA, "model_type": "mixtral", "num_local_experts": 8, "num_experts_per_tok": 2, "vocab_size": 32000}
QWEN3_30B = {
    "model_type": "qwen3_moe",
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "moe_intermediate_size": 768,
    "num_hidden_layers": 48,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "vocab_size": 151936,
    "tie_word_embeddings": False,
}
DEEPSEEK_V3 = {
    "model_type": "deepseek_v3",
    "hidden_size": 7168,
    "intermediate_size": 18432,
    "moe_intermediate_size": 2048,
    "num_hidden_layers": 61,
    "num_attention_heads": 128,
    "num_key_value_heads": 128,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "num_experts_per_tok": 8,
    "first_k_dense_replace": 3,
    "moe_layer_freq": 1,
    "q_lora_rank": 1536,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "vocab_size": 129280,
    "tie_word_embeddings": False,
}
KIMI_K2 = {**DEEPSEEK_V3, "num_attention_heads": 64, "n_routed_experts": 384, "first_k_dense_replace": 1} | {
    "vocab_size": 163840,
    "model_type": "kimi_k2",
}
GPT_OSS = {
    "model_type": "gpt_oss",
    "hidden_size": 2880,
    "intermediate_size": 2880,
    "num_hidden_layers": 36,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "num_local_experts": 128,
    "num_experts_per_tok": 4,
    "vocab_size": 201088,
    "sliding_window": 128,
    "layer_types": ["sliding_attention", "full_attention"] * 18,
    "tie_word_embeddings": False,
}
MAVERICK = {
    "model_type": "llama4_text",
    "hidden_size": 5120,
    "intermediate_size": 8192,
    "intermediate_size_mlp": 16384,
    "num_hidden_layers": 48,
    "num_attention_heads": 40,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "num_local_experts": 128,
    "num_experts_per_tok": 1,
    "interleave_moe_layer_step": 2,
    "attention_chunk_size": 8192,
    "vocab_size": 202048,
    "tie_word_embeddings": False,
}


def text(folder, config, told=None, beside=None, **keys):
    """The text of the formats that a config says."""
    values = {**config, **keys} | ({"quantization_config": told} if told is not None else {})
    (folder / "config.json").write_text(json.dumps(values))
    if beside is not None:
        (folder / "hf_quant_config.json").write_text(json.dumps({"quantization": beside}))
    return checkpoints.precision_text(folder / "config.json")


# ---------------------------------------------------------------------------------------------- compressed-tensors


def tensor(bits, kind="float", strategy="channel", group=None, **keys):
    return {"num_bits": bits, "type": kind, "strategy": strategy, "group_size": group, "symmetric": True, **keys}


def groups(*given, ignore=("lm_head",), **keys):
    """`config_groups` of targets, weights and activations."""
    made = {
        f"group_{i}": {"targets": targets, "weights": weights, "input_activations": activations}
        for i, (targets, weights, activations) in enumerate(given)
    }
    return {"quant_method": "compressed-tensors", "config_groups": made, "ignore": list(ignore), **keys}


FP8, TOKEN = tensor(8), tensor(8, strategy="token", dynamic=True)
W4, W8 = tensor(4, "int", "group", 128), tensor(8, "int")
NVFP4 = tensor(4, strategy="tensor_group", group=16)
TWO = (["re:.*self_attn.*"], FP8, TOKEN), (["re:.*mlp.*"], NVFP4, NVFP4)
KIMI_IGNORE = (
    "lm_head",
    "re:.*self_attn.*",
    "re:.*shared_experts.*",
    "re:.*mlp\\.(gate|up|gate_up|down)_proj.*",
)
MAVERICK_IGNORE = (
    "re:.*lm_head",
    "re:.*self_attn",
    "re:.*router",
    "re:.*shared_expert",
    "re:.*feed_forward.gate_proj",
    "re:.*feed_forward.up_proj",
    "re:.*feed_forward.down_proj",
    "re:.*vision_model",
    "re:.*multi_modal_projector",
)
GROUPS = {
    "RedHatAI/Meta-Llama-3.1-8B-Instruct-FP8": (
        LLAMA,
        groups((["Linear"], tensor(8, strategy="tensor"), tensor(8, strategy="tensor"))),
        "fp8-fp8-bf16/embedding=bf16",
    ),
    "FP8-dynamic": (LLAMA, groups((["Linear"], FP8, TOKEN)), "fp8-fp8-bf16/embedding=bf16"),
    "neuralmagic/Meta-Llama-3-8B-Instruct-FP8-KV": (
        LLAMA,
        groups((["Linear"], FP8, TOKEN), kv_cache_scheme=tensor(8, strategy="tensor")),
        "fp8/embedding=bf16",
    ),
    "quantized.w8a8": (
        LLAMA,
        groups((["Linear"], W8, tensor(8, "int", "token", dynamic=True))),
        "int8-int8-bf16/embedding=bf16",
    ),
    "quantized.w4a16": (LLAMA, groups((["Linear"], W4, None)), "int4:128x16-bf16-bf16/embedding=bf16"),
    "quantized.w8a16": (LLAMA, groups((["Linear"], W8, None)), "int8-bf16-bf16/embedding=bf16"),
    "w4a16 with zero points": (
        LLAMA,
        groups((["Linear"], {**W4, "symmetric": False}, None)),
        "int4:128x20-bf16-bf16/embedding=bf16",
    ),
    "NVFP4": (LLAMA, groups((["Linear"], NVFP4, {**NVFP4, "dynamic": "local"})), "nvfp4-nvfp4-bf16/embedding=bf16"),
    "NVFP4A16": (LLAMA, groups((["Linear"], NVFP4, None)), "nvfp4-bf16-bf16/embedding=bf16"),
    "RedHatAI/Qwen3-30B-A3B-FP8-block": (
        QWEN3_30B,
        groups(
            (["Linear"], tensor(8, strategy="block", block_structure=[128, 128]), tensor(8, "float", "group", 128)),
            ignore=("re:.*mlp.gate$", "lm_head"),
        ),
        "fp8-fp8-bf16/embedding=bf16",
    ),
    "moonshotai/Kimi-K2-Thinking": (
        KIMI_K2,
        groups((["Linear"], tensor(4, "int", "group", 32), None), ignore=KIMI_IGNORE, format="pack-quantized"),
        "bf16/experts=int4:32x16",
    ),
    "moonshotai/Kimi-K3's groups": (
        KIMI_K2,
        groups((["Linear"], tensor(4, "float", "group", 32, scale_dtype="torch.uint8"), None), ignore=KIMI_IGNORE),
        "bf16/experts=mxfp4",
    ),
    "meta-llama/Llama-4-Maverick-17B-128E-Instruct-FP8": (
        MAVERICK,
        groups((["Linear"], FP8, TOKEN), ignore=MAVERICK_IGNORE),
        "bf16/experts=fp8-fp8",
    ),
    "attention FP8, MLP NVFP4": (LLAMA, groups(*TWO), "fp8-fp8-bf16/ffn=nvfp4-nvfp4/embedding=bf16"),
    "experts in 4 bits, the rest FP8": (
        DEEPSEEK_V3,
        groups((["re:.*mlp\\.experts\\..*"], W4, None), (["Linear"], FP8, TOKEN)),
        "fp8-fp8-bf16/experts=int4:128x16-bf16/embedding=bf16",
    ),
    "layers by name before their class": (
        LLAMA,
        groups((["Linear"], W4, None), ([f"model.layers.{i}.mlp.down_proj" for i in range(32)], W8, None)),
        # Three matrices of one size: (2 · 4.125 + 8) / 3 bits.
        "int4:128x16-bf16-bf16/ffn=5.4167bit/embedding=bf16",
    ),
    "head and embedding too": (
        LLAMA,
        groups((["Linear", "Embedding"], W8, None), ignore=()),
        "int8-bf16-bf16",
    ),
    "a head that is not left out": (
        LLAMA,
        groups((["Linear"], W8, None), ignore=()),
        "int8-bf16-bf16/head=int8/embedding=bf16",
    ),
}


@pytest.mark.first(10)
@pytest.mark.parametrize("name", GROUPS)
def test_groups_of_compressed_tensors(tmp_path, name):
    config, told, expected = GROUPS[name]
    assert text(tmp_path, config, told) == expected


@pytest.mark.slow
def test_the_order_of_groups_changes_nothing(tmp_path):
    third = (["model.layers.0.self_attn.o_proj", "model.layers.31.self_attn.o_proj"], W8, None)
    told = groups(*TWO, third, (["Linear"], W4, None))
    expected = text(tmp_path, LLAMA, told)
    assert str(expected).startswith("fp8-fp8-bf16/ffn=nvfp4-nvfp4")
    for order in itertools.permutations(told["config_groups"].items()):
        shuffled = {**told, "config_groups": dict(order)}
        keys = random.Random(len(str(order))).sample(list(shuffled), len(shuffled))
        assert text(tmp_path, LLAMA, {key: shuffled[key] for key in keys}) == expected


# --------------------------------------------------------------------------------------------------------- modelopt


def attention_of(layers, *leaves):
    return [f"model.layers.{i}.self_attn.{leaf}" for i in range(layers) for leaf in leaves]


LOW_RANK = ("kv_a_proj_with_mqa", "kv_b_proj", "q_a_proj", "q_b_proj")
QWEN35 = {
    "model_type": "qwen3_5_text",
    "hidden_size": 5120,
    "intermediate_size": 17408,
    "num_hidden_layers": 64,
    "num_attention_heads": 24,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "full_attention_interval": 4,
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 48,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "linear_conv_kernel_dim": 4,
    "vocab_size": 248320,
    "tie_word_embeddings": False,
}


def qwen35_layers(first, second):
    """Algorithms by layer: attention of both kinds the first, MLPs and the head the second."""
    found = {"lm_head": second}
    for i in range(64):
        whole = i % 4 == 3
        block, leaves = ("self_attn", "qkvo") if whole else ("linear_attn", ())
        inner = [f"{leaf}_proj" for leaf in leaves] or ["in_proj_qkv", "in_proj_z", "out_proj"]
        found |= {f"model.language_model.layers.{i}.{block}.{leaf}": first for leaf in inner}
        found |= {f"model.language_model.layers.{i}.mlp.{leaf}_proj": second for leaf in ("gate", "up", "down")}
    return {name: {"quant_algo": algorithm} for name, algorithm in found.items()}


MODELOPT = {
    "nvidia/Llama-3.1-70B-Instruct-FP8": (
        LLAMA,
        {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8", "exclude_modules": ["lm_head"]},
        "fp8/embedding=bf16",
    ),
    "nvidia/Qwen3-235B-A22B-NVFP4": (
        QWEN3_30B,
        {
            "quant_algo": "NVFP4",
            "kv_cache_quant_algo": "FP8",
            "group_size": 16,
            "exclude_modules": ["lm_head", *(f"model.layers.{i}.mlp.gate" for i in range(48))],
        },
        "nvfp4-nvfp4-fp8/embedding=bf16",
    ),
    "nvidia/Kimi-K2.6-NVFP4": (
        KIMI_K2,
        {
            "quant_algo": "NVFP4",
            "kv_cache_quant_algo": "FP8",
            "exclude_modules": [
                "language_model.lm_head",
                "language_model.model.layers.0*",
                *(f"language_model.model.layers.{i}.mlp.shared_experts*" for i in range(1, 61)),
                *(f"language_model.model.layers.{i}.self_attn*" for i in range(1, 61)),
                "mm_projector*",
                "vision_tower*",
            ],
        },
        "bf16-bf16-fp8/experts=nvfp4-nvfp4",
    ),
    "nvidia/DeepSeek-V3.1-NVFP4": (
        DEEPSEEK_V3,
        {
            "quant_algo": "NVFP4",
            "kv_cache_quant_algo": "FP8",
            "exclude_modules": ["lm_head", *attention_of(61, *LOW_RANK), "model.layers.61*"],
        },
        # The output projection in 4.5 bits, 128 · 128 · 7168 of 187,105,280 weights; the rest in 16, where all run.
        "8.7818bit-bf16-fp8/ffn=nvfp4-nvfp4/experts=nvfp4-nvfp4/shared_experts=nvfp4-nvfp4/embedding=bf16",
    ),
    "nvidia/Qwen3.6-27B-NVFP4": (
        QWEN35,
        {
            "quant_algo": "MIXED_PRECISION",
            "kv_cache_quant_algo": "FP8",
            "quantized_layers": qwen35_layers("FP8", "W4A16_NVFP4"),
            "exclude_modules": ["mtp*", "mtp.layers.0*"],
        },
        "fp8/ffn=nvfp4-bf16/head=nvfp4-bf16/embedding=bf16",
    ),
    "W4A8_AWQ": (LLAMA, {"quant_algo": "W4A8_AWQ", "group_size": 128}, "int4:128x16-fp8-bf16/embedding=bf16"),
    "W4A16_AWQ": (LLAMA, {"quant_algo": "W4A16_AWQ", "group_size": 128}, "int4:128x16-bf16-bf16/embedding=bf16"),
    "W8A16": (LLAMA, {"quant_algo": "W8A16"}, "int8-bf16-bf16/embedding=bf16"),
    "INT8_SQ": (LLAMA, {"quant_algo": "INT8_SQ", "kv_cache_quant_algo": "INT8"}, "int8/embedding=bf16"),
    "NVFP4_AWQ": (LLAMA, {"quant_algo": "NVFP4_AWQ", "group_size": 16}, "nvfp4-nvfp4-bf16/embedding=bf16"),
    "FP8_PB_WO": (LLAMA, {"quant_algo": "FP8_PB_WO"}, "fp8-fp8-bf16/embedding=bf16"),
    "W4A8_MXFP4_FP8": (LLAMA, {"quant_algo": "W4A8_MXFP4_FP8"}, "mxfp4-fp8-bf16/embedding=bf16"),
    "the cache alone": (LLAMA, {"quant_algo": None, "kv_cache_quant_algo": "FP8"}, "bf16-bf16-fp8"),
}


@pytest.mark.first(2)
@pytest.mark.parametrize("name", MODELOPT)
def test_algorithms_of_modelopt(tmp_path, name):
    config, told, expected = MODELOPT[name]
    assert text(tmp_path, config, None, told) == expected
    if told["quant_algo"]:  # newer checkpoints have the same in their config.json
        (tmp_path / "hf_quant_config.json").unlink()
        assert text(tmp_path, config, {"quant_method": "modelopt", **told}) == expected


def test_a_checkpoint_quantized_again_keeps_the_first_format_elsewhere(tmp_path):
    """nvidia/DeepSeek-V4-Flash-NVFP4: experts are NVFP4, what was FP8 stays so, `expert_dtype` is of the original."""
    layers = {f"layers.{i}.ffn.experts": {"quant_algo": "NVFP4", "group_size": 16} for i in range(61)}
    told = {"quant_algo": "MIXED_PRECISION", "quantized_layers": layers, "exclude_modules": ["*.attn.*", "head"]}
    found = text(tmp_path, DEEPSEEK_V3, {"quant_method": "fp8", **told}, told, expert_dtype="fp4")
    assert found == "fp8-fp8-bf16/experts=nvfp4-nvfp4/embedding=bf16"


# --------------------------------------------------------------------------------------------------- FP8 and MXFP4

BLOCKS = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
ROUTERS = ["lm_head", *(f"model.layers.{i}.{part}" for i in range(48) for part in ("input_layernorm", "mlp.gate"))]
FBGEMM = [
    *(f"model.layers.{i}.mlp.{leaf}_proj" for i in (0, 125) for leaf in ("gate", "up", "down")),
    *attention_of(126, "q_proj", "k_proj", "v_proj", "o_proj"),
]
UNIFORM = {
    "deepseek-ai/DeepSeek-V3": (DEEPSEEK_V3, BLOCKS, "fp8-fp8-bf16/embedding=bf16"),
    "deepseek-ai/DeepSeek-V4-Flash's keys": (
        {**DEEPSEEK_V3, "expert_dtype": "fp4"},
        {**BLOCKS, "scale_fmt": "ue8m0"},
        "fp8-fp8-bf16/experts=mxfp4/embedding=bf16",
    ),
    "DeepSeek-V4.1, the key inside": (
        DEEPSEEK_V3,
        {**BLOCKS, "expert_dtype": "fp4"},
        "fp8-fp8-bf16/experts=mxfp4/embedding=bf16",
    ),
    "experts alone": ({**DEEPSEEK_V3, "expert_dtype": "fp4"}, None, "bf16/experts=mxfp4"),
    "all stored otherwise": ({**DEEPSEEK_V3, "store_dtype": "int4"}, BLOCKS, "int4-fp8-bf16/embedding=bf16"),
    "Qwen/Qwen3-30B-A3B-FP8": (
        QWEN3_30B,
        {**BLOCKS, "modules_to_not_convert": ROUTERS},
        "fp8-fp8-bf16/embedding=bf16",
    ),
    "MiniMaxAI/MiniMax-M2.5": (
        MIXTRAL,
        {**BLOCKS, "modules_to_not_convert": ["gate", "e_score_correction_bias", "lm_head"]},
        "fp8-fp8-bf16/embedding=bf16",
    ),
    "layers left out by a regular expression of transformers": (
        MIXTRAL,
        {**BLOCKS, "modules_to_not_convert": [r"model\.layers\.\d+\.self_attn", "lm_head"]},
        "bf16/experts=fp8-fp8",
    ),
    "layers left out under the other name": (
        MIXTRAL,
        {**BLOCKS, "ignored_layers": ["self_attn", "lm_head"]},
        "bf16/experts=fp8-fp8",
    ),
    "blocks of 1 × 32 with powers of two": (
        LLAMA,
        {**BLOCKS, "weight_block_size": [1, 32], "scale_fmt": "ue8m0"},
        "mxfp8-mxfp8-bf16/embedding=bf16",
    ),
    "meta-llama/Llama-3.1-405B-Instruct-FP8": (
        LLAMA_405B,
        {"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0, "modules_to_not_convert": FBGEMM},
        # Two of 126 MLPs in 16 bits: 8 + 8 · 2/126 = 8 + 130/1024 bits, and products in FP8.
        "bf16/ffn=fp8:1024x130-fp8",
    ),
    "an eighth of the layers in 16 bits": (  # 1.125 times the time of FP8, 0.56 of that of 16 bits
        LLAMA,
        {"quant_method": "fbgemm_fp8", "modules_to_not_convert": [f"model.layers.{i}" for i in (0, 1, 30, 31)]},
        "fp8:1024x1024-fp8-bf16/embedding=bf16",
    ),
    "five eighths of the layers in 16 bits": (  # 1.625 times the time of FP8, 0.81 of that of 16 bits
        LLAMA,
        {"quant_method": "fbgemm_fp8", "modules_to_not_convert": [f"model.layers.{i}" for i in range(20)]},
        "13bit-bf16-bf16/embedding=bf16",
    ),
    "openai/gpt-oss-120b": (
        GPT_OSS,
        {
            "quant_method": "mxfp4",
            "modules_to_not_convert": [
                "model.layers.*.self_attn",
                "model.layers.*.mlp.router",
                "model.embed_tokens",
                "lm_head",
            ],
        },
        "bf16/experts=mxfp4",
    ),
    "MXFP8 of a flat method": (LLAMA, {"quant_method": "mxfp8"}, "mxfp8-mxfp8-bf16/embedding=bf16"),
    "meituan/DeepSeek-R1-Channel-INT8": (DEEPSEEK_V3, {"quant_method": "w8a8_int8"}, "int8-int8-bf16/embedding=bf16"),
    "W4AFP8": (
        DEEPSEEK_V3,
        {"quant_method": "w4afp8", "group_size": 128},
        "fp8-fp8-bf16/experts=int4:128x16/embedding=bf16",
    ),
    "EETQ": (LLAMA, {"quant_method": "eetq", "weights": "int8"}, "int8-bf16-bf16/embedding=bf16"),
    "BitNet": (LLAMA, {"quant_method": "bitnet"}, "int2-int8-bf16/embedding=bf16"),
}


@pytest.mark.first(1)
@pytest.mark.parametrize("name", UNIFORM)
def test_one_format_for_all_but_some(tmp_path, name):
    config, told, expected = UNIFORM[name]
    assert text(tmp_path, config, told) == expected


# ------------------------------------------------------------------------------------------------ weights in groups

GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": True, "desc_act": False}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True, "version": "gemm"}
ROUND = {"quant_method": "auto-round", "bits": 4, "group_size": 128, "sym": True, "data_type": "int"}
BNB4 = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
WEIGHTS = {
    "GPTQ-Int4": (LLAMA, GPTQ, "int4:128x16-bf16-bf16/embedding=bf16"),
    "GPTQ-Int8, columns": (LLAMA, {**GPTQ, "bits": 8, "group_size": -1}, "int8-bf16-bf16/embedding=bf16"),
    "GPTQ with zero points": (LLAMA, {**GPTQ, "sym": False}, "int4:128x20-bf16-bf16/embedding=bf16"),
    "GPTQ of 3 bits": (LLAMA, {**GPTQ, "bits": 3}, "3.125bit-bf16-bf16/embedding=bf16"),
    "GPTQ with its head": (LLAMA, {**GPTQ, "lm_head": True}, "int4:128x16-bf16-bf16/head=int4:128x16/embedding=bf16"),
    "GPTQ dynamic": (
        LLAMA,
        {**GPTQ, "dynamic": {"+:.*mlp.*": {"bits": 8, "group_size": 128}}},
        "int4:128x16-bf16-bf16/ffn=int8:128x16/embedding=bf16",
    ),
    "GPTQ dynamic, half of a block": (
        LLAMA,
        {**GPTQ, "dynamic": {r"+:.*\.(?:up|gate)_proj": {"bits": 8}, r".*\.down_proj": {"group_size": 64}}},
        # (2 · 8.125 + 4.25) / 3 bits.
        "int4:128x16-bf16-bf16/ffn=6.8333bit/embedding=bf16",
    ),
    "Qwen/Qwen3-30B-A3B-GPTQ-Int4, attention left out": (
        QWEN3_30B,
        {**GPTQ, "dynamic": {r"-:.*attn.*": {}, r"-:.*mlp\.gate$": {}}},
        "bf16/experts=int4:128x16",
    ),
    "AWQ": (LLAMA, AWQ, "int4:128x20-bf16-bf16/embedding=bf16"),
    "AWQ without zero points": (LLAMA, {**AWQ, "zero_point": False}, "int4:128x16-bf16-bf16/embedding=bf16"),
    "AWQ of AutoAWQ's own file": (
        LLAMA,
        {"quant_method": "awq", "w_bit": 4, "q_group_size": 64, "zero_point": True},
        "int4:64x20-bf16-bf16/embedding=bf16",
    ),
    "casperhansen/mixtral-instruct-awq": (
        MIXTRAL,
        {**AWQ, "modules_to_not_convert": ["gate"]},
        "int4:128x20-bf16-bf16/embedding=bf16",
    ),
    "AWQ with the first layer in 16 bits": (
        LLAMA,
        {**AWQ, "modules_to_not_convert": ["model.layers.0"]},
        # (31 · 4.15625 + 16) / 32 bits.
        "4.5264bit-bf16-bf16/embedding=bf16",
    ),
    "AutoRound": (LLAMA, ROUND, "int4:128x16-bf16-bf16/embedding=bf16"),
    "AutoRound with its head in 8 bits": (
        LLAMA,
        {**ROUND, "extra_config": {"lm_head": {"bits": 8}}},
        "int4:128x16-bf16-bf16/head=int8:128x16/embedding=bf16",
    ),
    "AutoRound with attention in 16 bits": (
        LLAMA,
        {**ROUND, "extra_config": {".*self_attn.*": {"bits": 16, "data_type": "float"}}},
        "bf16/ffn=int4:128x16",
    ),
    "AutoRound MXFP4": (
        LLAMA,
        {**ROUND, "data_type": "mx_fp", "act_bits": 4, "act_data_type": "mx_fp", "group_size": 32},
        "mxfp4-mxfp4-bf16/embedding=bf16",
    ),
    "bitsandbytes NF4": (LLAMA, BNB4, "int4:64x32-bf16-bf16/embedding=bf16"),
    "unsloth bnb-4bit": (
        LLAMA,
        {**BNB4, "bnb_4bit_use_double_quant": True, "llm_int8_skip_modules": None},
        "int4:64x8-bf16-bf16/embedding=bf16",
    ),
    "unsloth dynamic, some blocks in 16 bits": (
        LLAMA,
        {**BNB4, "llm_int8_skip_modules": ["lm_head", "model.layers.1.mlp", "model.layers.30.mlp"]},
        # (30 · 4.5 + 2 · 16) / 32 bits.
        "int4:64x32-bf16-bf16/ffn=5.2188bit/embedding=bf16",
    ),
    "bitsandbytes LLM.int8()": (
        LLAMA,
        {"quant_method": "bitsandbytes", "load_in_8bit": True},
        "int8-int8-bf16/embedding=bf16",
    ),
    "HQQ": (
        LLAMA,
        {"quant_method": "hqq", "quant_config": {"weight_quant_params": {"nbits": 4, "group_size": 64}}},
        "int4:64x32-bf16-bf16/embedding=bf16",
    ),
    "HQQ by tags": (
        LLAMA,
        {
            "quant_method": "hqq",
            "quant_config": {
                f"self_attn.{leaf}_proj": {"weight_quant_params": {"nbits": 8, "group_size": 64}} for leaf in "qkvo"
            },
        },
        "int8:64x32-bf16-bf16/ffn=bf16/embedding=bf16",
    ),
    "quanto": (LLAMA, {"quant_method": "quanto", "weights": "int8"}, "int8-bf16-bf16/embedding=bf16"),
    "torchao by name": (
        LLAMA,
        {"quant_method": "torchao", "quant_type": "int4_weight_only", "quant_type_kwargs": {"group_size": 128}},
        "int4:128x32-bf16-bf16/embedding=bf16",
    ),
    "torchao by class": (
        LLAMA,
        {
            "quant_method": "torchao",
            "quant_type": {"default": {"_type": "Float8DynamicActivationFloat8WeightConfig", "_data": {}}},
        },
        "fp8-fp8-bf16/embedding=bf16",
    ),
    "AQLM 2x8": (
        LLAMA,
        {"quant_method": "aqlm", "num_codebooks": 2, "nbits_per_codebook": 8, "in_group_size": 8},
        # 2 bits, and two codebooks of 256 · 8 · 16 bits: 65,536 for a matrix of 4,096² in attention, 4,096 · 1,024
        # for keys and values, 4,096 · 14,336 in MLPs.
        "2.0063bit-bf16-bf16/ffn=2.0011bit/embedding=bf16",
    ),
    "HIGGS": (LLAMA, {"quant_method": "higgs", "bits": 4, "group_size": 256}, "4.0625bit-bf16-bf16/embedding=bf16"),
    "FP-Quant": (LLAMA, {"quant_method": "fp_quant", "forward_dtype": "mxfp4"}, "mxfp4-mxfp4-bf16/embedding=bf16"),
}


@pytest.mark.first(11)
@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_in_groups(tmp_path, name):
    config, told, expected = WEIGHTS[name]
    assert text(tmp_path, config, told) == expected


MLX = {
    "4 bits": ({"group_size": 64, "bits": 4}, "int4:64x32-bf16-bf16"),
    "8 bits": ({"group_size": 32, "bits": 8, "mode": "affine"}, "int8:32x32-bf16-bf16"),
    "MXFP4": ({"group_size": 32, "bits": 4, "mode": "mxfp4"}, "mxfp4-bf16-bf16"),
    "6 bits of head and embedding": (
        {"group_size": 64, "bits": 4}
        | {name: {"bits": 6, "group_size": 64} for name in ("lm_head", "model.embed_tokens")},
        "int4:64x32-bf16-bf16/head=6.5bit/embedding=6.5bit",
    ),
    "attention as it was": (
        {"group_size": 64, "bits": 4} | dict.fromkeys(attention_of(32, "q_proj", "k_proj", "v_proj", "o_proj"), False),
        "bf16/ffn=int4:64x32/embedding=int4:64x32",
    ),
    "routers in 8 bits": (
        {"group_size": 64, "bits": 4, "model.layers.0.mlp.gate": {"group_size": 64, "bits": 8}},
        "int4:64x32-bf16-bf16",
    ),
}


@pytest.mark.parametrize("name", MLX)
def test_mlx(tmp_path, name):
    told, expected = MLX[name]
    # 6 bits of embedding and head are one format: the head need not be named.
    expected = expected.replace("/head=6.5bit", "")
    assert text(tmp_path, LLAMA, quantization=told) == expected
    assert text(tmp_path, LLAMA, told) == expected
    assert text(tmp_path, LLAMA, told, quantization=told) == expected


def quark(weights, activations, **keys):
    whole = {"weight": weights, "input_tensors": activations, "output_tensors": None, "bias": None}
    return {"quant_method": "quark", "global_quant_config": whole, **keys}


E4M3 = {"dtype": "fp8_e4m3", "qscheme": "per_tensor", "is_dynamic": False}
MX = {"dtype": "fp4", "qscheme": "per_group", "group_size": 32, "scale_format": "e8m0"}
QUARK = {
    "amd/Llama-3.1-8B-Instruct-FP8-KV": (
        LLAMA,
        quark(E4M3, E4M3, exclude=["lm_head"], kv_cache_quant_config={"*k_proj": {"output_tensors": E4M3}}),
        "fp8/embedding=bf16",
    ),
    "amd/DeepSeek-R1-MXFP4": (
        DEEPSEEK_V3,
        quark(MX, {**MX, "is_dynamic": True}, exclude=["lm_head", "*self_attn*", "*mlp.gate"]),
        "bf16/ffn=mxfp4-mxfp4/experts=mxfp4-mxfp4/shared_experts=mxfp4-mxfp4",
    ),
    "MLP in MXFP4, the rest in FP8": (
        LLAMA,
        quark(E4M3, E4M3, exclude=["lm_head"], layer_quant_config={"*.mlp.*": {"weight": MX, "input_tensors": MX}}),
        "fp8-fp8-bf16/ffn=mxfp4-mxfp4/embedding=bf16",
    ),
    "UINT4 in groups": (
        LLAMA,
        quark(
            {"dtype": "uint4", "qscheme": "per_group", "group_size": 128, "symmetric": False}, None, exclude=["lm_head"]
        ),
        "int4:128x20-bf16-bf16/embedding=bf16",
    ),
}


@pytest.mark.first(1)
@pytest.mark.parametrize("name", QUARK)
def test_quark(tmp_path, name):
    config, told, expected = QUARK[name]
    assert text(tmp_path, config, told) == expected


# ---------------------------------------------------------------------------------------------------------- refusals

REFUSED = [
    ({"quant_method": "magic"}, "'magic' is not known"),
    ({"quant_method": "gguf"}, "a format for each tensor"),
    ({"quant_method": "spqr", "bits": 3}, "not in the config"),
    ({**GPTQ, "bits": "4"}, "bits = '4'"),
    ({**GPTQ, "bits": 5.5}, "bits = 5.5"),
    ({**GPTQ, "bits": True}, "bits = True"),
    ({**GPTQ, "group_size": "128"}, "group_size = '128'"),
    ({**GPTQ, "sym": "yes"}, "sym = 'yes'"),
    ({**GPTQ, "dynamic": {"+:(": {"bits": 8}}}, "no regular expression"),
    ({**GPTQ, "dynamic": {"+:.*mlp.*": 8}}, "dynamic"),
    ({"quant_method": "gptq"}, "bits = null"),
    ({**AWQ, "modules_to_not_convert": 3}, "modules_to_not_convert"),
    ({**ROUND, "data_type": "posit"}, "data_type = 'posit'"),
    ({**BNB4, "load_in_8bit": True}, "one of them must be true"),
    ({**BNB4, "bnb_4bit_quant_type": "nf3"}, "nf3"),
    ({**BLOCKS, "activation_scheme": "sometimes"}, "activation_scheme"),
    ({**BLOCKS, "fmt": "e3m4"}, "fmt = 'e3m4'"),
    ({**BLOCKS, "weight_block_size": [128]}, "weight_block_size"),
    ({**BLOCKS, "expert_dtype": "fp5"}, "expert_dtype = 'fp5'"),
    ({**BLOCKS, "kv_cache_scheme": "fp3"}, "kv_cache_scheme = 'fp3'"),
    (groups((["Linear"], FP8, TOKEN), kv_cache_scheme={"num_bits": 3, "type": "int"}), "kv_cache_scheme of 3 bits"),
    (groups((["Linear"], tensor(8, "posit"), None)), "group_0.weights: type = 'posit'"),
    (groups((["Linear"], tensor(9, "int"), None)), "num_bits = 9"),
    (groups((["Linear"], tensor(8, strategy="spiral"), None)), "strategy = 'spiral'"),
    (groups((["Conv2d"], FP8, None)), "class 'Conv2d'"),
    (groups((["re:.*mlp.*"], FP8, None), (["re:.*proj.*"], W4, None)), "both claim"),
    (groups((["Linear"], FP8, TOKEN), format="marlin-24"), "sparse weights"),
    (groups((["Linear"], FP8, TOKEN), sparsity_config={"format": "sparse-24-bitmask"}), "sparse weights"),
    ({"quant_method": "compressed-tensors", "config_groups": []}, "config_groups"),
    ({"quant_method": "modelopt", "quant_algo": "FP3"}, "quant_algo = 'FP3'"),
    ({"quant_method": "modelopt"}, "quant_algo"),
    ({"quant_algo": "MIXED_PRECISION"}, "without quantized_layers"),
    ({"quant_algo": "FP8", "kv_cache_quant_algo": "FP2"}, "kv_cache_quant_algo = 'FP2'"),
    (quark({"dtype": "posit8"}, None), "posit8"),
    ({"quant_method": "torchao", "quant_type": "int3_magic"}, "int3_magic"),
    ("fp8", "must be a JSON object"),
]


@pytest.mark.parametrize(("told", "words"), REFUSED, ids=lambda value: str(value)[:40])
def test_what_is_not_known_is_refused_by_name_and_file(tmp_path, told, words):
    with pytest.raises(ValueError, match=re.escape(words)) as error:
        text(tmp_path, LLAMA, told)
    message = str(error.value)
    assert "config.json" in message
    assert "--precision" in message
    assert len(message) <= 300
    assert "\n" not in message


W4 = {"num_bits": 4, "type": "int", "group_size": 32, "strategy": "group"}
INT4_FP8 = [{"dtype": "fp8_e4m3", "qscheme": "per_tensor"}, {"dtype": "int4", "qscheme": "per_channel"}]
TWELVE = r"mlp\.experts\.([2-9]|1[0-3])\."
MANY = {**MIXTRAL, "model_type": "qwen3_moe", "moe_intermediate_size": 2048, "num_experts": 16, "head_dim": 128}
SAID_ELSEWHERE = {
    "GPTQ, keys of how it was quantized": (
        {
            **GPTQ,
            "dynamic": {"+:.*down.*": {"damp_percent": 0.1, "act_group_aware": True, "mse": 2.4, "static_groups": 1}},
        },
        "int4:128x16-bf16-bf16/embedding=bf16",
    ),
    "GPTQ of attention alone": (
        {**GPTQ, "modules_in_block_to_quantize": [["self_attn.q_proj", "self_attn.k_proj"], ["self_attn.o_proj"]]},
        # Three of four matrices: 4.125 bits of 4096 · (4096 + 1024 + 4096), 16 of 4096 · 1024.
        "5.3125bit-bf16-bf16/ffn=bf16/embedding=bf16",
    ),
    "AutoRound of the first two blocks": (
        {**ROUND, "to_quant_block_names": "model.layers.0, model.layers.1"},
        "15.258bit-bf16-bf16/embedding=bf16",
    ),
    "AutoRound of a tower of images": ({**ROUND, "block_name_to_quantize": ["model.vision_tower.layers"]}, "bf16"),
    "AutoRound of all layers": (
        {**ROUND, "block_name_to_quantize": "model.language_model.layers"},
        "int4:128x16-bf16-bf16/embedding=bf16",
    ),
    "Quark, quantized twice": (
        {
            "quant_method": "quark",
            "global_quant_config": {"weight": INT4_FP8, "input_tensors": INT4_FP8[0]},
            "exclude": ["lm_head"],
        },
        "int4-fp8-bf16/embedding=bf16",
    ),
    "metal": (
        {"quant_method": "metal", "modules_to_not_convert": ["self_attn"]},
        "bf16/ffn=int4:64x32",
    ),
    "two lists, one empty": (
        {"quant_method": "modelopt", "quant_algo": "FP8", "exclude_modules": [], "ignore": ["*self_attn*"]},
        "bf16/ffn=fp8-fp8",
    ),
    "two lists": (
        {"quant_method": "fp8", "modules_to_not_convert": ["lm_head"], "ignored_layers": ["self_attn"]},
        "bf16/ffn=fp8-fp8",
    ),
    "torchao with embedding and head": (
        {"quant_method": "torchao", "quant_type": "int8_weight_only", "include_input_output_embeddings": True},
        "int8-bf16-bf16",
    ),
}


@pytest.mark.parametrize(("told", "expected"), SAID_ELSEWHERE.values(), ids=SAID_ELSEWHERE)
def test_keys_that_say_which_layers_are_quantized(tmp_path, told, expected):
    assert text(tmp_path, LLAMA, told) == expected


@pytest.mark.first(2)
@pytest.mark.parametrize(
    ("config", "told", "words"),
    [
        (
            MANY,
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"a": {"targets": [f"re:.*{TWELVE}.*"], "weights": W4}},
            },
            "4 of 16 experts of a layer differ",
        ),
        (MANY, {**GPTQ, "dynamic": {f"-:.*{TWELVE}.*": {}}}, "4 of 16 experts of a layer differ"),
        (
            MANY,
            {"quant_method": "modelopt", "quant_algo": "FP8", "exclude_modules": ["*experts.1[0-4]*"]},
            "5 of 16 experts of a layer differ",
        ),
        (
            LLAMA,
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"a": {"targets": ["re:.*self_atn.*"], "weights": W4}},
            },
            "config_groups.a: re:.*self_atn.*: names no layer",
        ),
        (
            LLAMA,
            {
                "quant_method": "modelopt",
                "quant_algo": "MIXED_PRECISION",
                "quantized_layers": {"model.layers.0.self_atn.q_proj": {"quant_algo": "NVFP4"}},
            },
            "quantized_layers: names no layer",
        ),
        (LLAMA, {**GPTQ, "dynamic": {"+:.*down.*": {"bit": 8}}}, "'bit': no such key; did you mean bits"),
        (LLAMA, {"quant_method": "fp8", "dequantize": True}, "dequantize = True"),
        (LLAMA, {"quant_method": "eetq", "weights": "int4"}, "weights = 'int4': must be int8"),
        (LLAMA, {"quant_method": "higgs", "bits": 10**400, "group_size": 256}, "bits = "),
        (
            {**LLAMA, "hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4, "num_key_value_heads": 4},
            {"quant_method": "aqlm", "num_codebooks": 1, "nbits_per_codebook": 16, "in_group_size": 8},
            "bits a weight, with its tables",
        ),
        (
            LLAMA,
            {
                "quant_method": "modelopt",
                "quant_algo": "MIXED_PRECISION",
                "quantized_layers": {"model.layers.0.mlp.up_proj": {"quant_algo": "W4A16_AWQ", "group_size": [16]}},
            },
            "group_size = [16]",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_leaves_open_which_layers_it_means_is_refused(tmp_path, config, told, words):
    with pytest.raises(ValueError, match=re.escape(words)) as error:
        text(tmp_path, config, told)
    assert "config.json" in str(error.value)
    assert len(str(error.value)) <= 300


@pytest.mark.parametrize(
    "pattern",
    [r"(\w+\.?)+$!", "(.*)*x", ".*.*.*.*x", "(a|b.*)+c", "(?:x{2,})*y", r"(\w+\s?)*$", "((a*))*b", "(a*){5}b*c*d"],
)
def test_patterns_that_may_take_for_ever_are_refused(tmp_path, pattern):
    told = {"quant_method": "compressed-tensors", "config_groups": {"a": {"targets": ["Linear"], "weights": W4}}}
    with pytest.raises(ValueError, match="repeats within repeats"):
        text(tmp_path, LLAMA, {**told, "ignore": [f"re:{pattern}"]})


@pytest.mark.parametrize(
    "pattern",
    [
        r".*self_attn.*",
        r"model\.layers\.\d+\.mlp\.(gate|up|down)_proj$",
        r".*layers.*mlp.*experts.*(gate|up)_proj.*",
        r".*\.layers\.([0-9]|[12][0-9])\..*",
        r"^(?!.*lm_head).*$",
        r"(model\.)?layers\.[0-9]+\.(?:self_attn|mlp)\.[a-z_]+",
        r"[*+]{0,1}(?:\(\))?lm_head\*?",
    ],
)
def test_patterns_that_end_are_taken(tmp_path, pattern):
    told = {"quant_method": "compressed-tensors", "config_groups": {"a": {"targets": ["Linear"], "weights": W4}}}
    assert text(tmp_path, LLAMA, {**told, "ignore": [f"re:{pattern}"]})


def test_two_quantizations_that_differ_are_refused(tmp_path):
    told = {"group_size": 64, "bits": 4}
    assert text(tmp_path, LLAMA, told, quantization=told) == "int4:64x32-bf16-bf16"
    with pytest.raises(ValueError, match="quantization and quantization_config differ"):
        text(tmp_path, LLAMA, told, quantization={**told, "bits": 8})


@pytest.mark.parametrize("key", ["torch_dtype", "dtype"])
def test_narrow_weights_without_a_quantization_are_refused(tmp_path, key):
    with pytest.raises(ValueError, match=rf"config.json: {key} = 'float8_e4m3fn' without a quantization_config"):
        text(tmp_path, LLAMA, **{key: "float8_e4m3fn"})
    assert text(tmp_path, LLAMA, **{key: "float16"}) is None


def test_a_part_of_the_experts_is_refused(tmp_path):
    some = [f"model.layers.{i}.mlp.experts.{e}.{leaf}_proj" for i in range(48) for e in range(5) for leaf in ("up",)]
    with pytest.raises(ValueError, match="5 of 128 experts"):
        text(tmp_path, QWEN3_30B, {**BLOCKS, "modules_to_not_convert": some})


# --------------------------------------------------------------------------------------------- the order of layers


def hybrid(**parts):
    return Model(512, 8, 1000, **parts)


def test_layers_are_in_the_order_of_the_config():
    mixed = hybrid(
        attention=Attention(2, 8, 8, 64), ssd=SSD(6, 8, 64, 128, 1, 4), ffn=FFN(4, 1024), moe=MoE(4, 8, 2, 256)
    )
    found = mixer_kinds(mixed, {"attn_layer_period": 4, "attn_layer_offset": 2})
    assert [kinds == ["attention"] for kinds in found] == [i % 4 == 2 for i in range(8)]
    assert feed_forward_kinds(mixed, {"expert_layer_period": 2, "expert_layer_offset": 1}) == [["ffn"], ["moe"]] * 4
    assert feed_forward_kinds(mixed, {"first_k_dense_replace": 4}) == [["ffn"]] * 4 + [["moe"]] * 4
    assert feed_forward_kinds(mixed, {"moe_layers": [0, 1, 2, 7]})[:4] == [["moe"]] * 3 + [["ffn"]]
    pattern = hybrid(attention=Attention(2, 8, 8, 64), ssd=SSD(3, 8, 64, 128, 1, 4), moe=MoE(3, 8, 2, 256))
    told = {"hybrid_override_pattern": "MEM*E*ME"}
    assert mixer_kinds(pattern, told) == [["ssd"], [], ["ssd"], ["attention"], [], ["attention"], ["ssd"], []]
    assert [bool(kinds) for kinds in feed_forward_kinds(pattern, told)] == [letter == "E" for letter in "MEM*E*ME"]
    window = hybrid(attention=Attention(4, 8, 8, 64), local_attention=LocalAttention(4, 8, 8, 64), ffn=FFN(8, 1024))
    words = ["sliding_attention", "full_attention"] * 4
    assert mixer_kinds(window, {"layer_types": words}) == [["local_attention"], ["attention"]] * 4


JUNK = (None, True, 0, -1, 3.5, 10**30, "", "x", "re:(", "*[", [], [None], ["x"], ["re:["], {}, {"a": None}, [[1]], "4")


def places(value, path=()):
    """Paths of all values inside a JSON value, the first few of a list."""
    inside = value.items() if isinstance(value, dict) else enumerate(value[:4]) if isinstance(value, list) else ()
    for key, inner in inside:
        yield (*path, key)
        yield from places(inner, (*path, key))


@pytest.mark.slow
def test_changed_configs_are_read_or_refused_in_a_line(tmp_path):
    """200 configs that lack a value or have another end in a text or in a line that names the file."""
    known = [(c, told) for table in (GROUPS, UNIFORM, WEIGHTS, QUARK) for c, told, _ in table.values() if told]
    known += [(config, {"quant_method": "modelopt", **told}) for config, told, _ in MODELOPT.values()]
    rng = random.Random(20261126)
    read = 0
    for _ in range(200):
        config, told = rng.choice(known)
        changed = json.loads(json.dumps(told))
        *outer, last = rng.choice(list(places(changed)))
        inner = changed
        for key in outer:
            inner = inner[key]
        if rng.random() < 0.25:
            del inner[last]
        else:
            inner[last] = rng.choice(JUNK)
        try:
            text(tmp_path, config, changed)
            read += 1
        except ValueError as error:
            message = str(error)
            assert len(message) <= 300
            assert "\n" not in message
            assert "config.json" in message
    assert read >= 60  # 30 %
