"""Families of 2025 and 2026: parameters as published and as PyTorch counts them, kinds of layers, other files."""

import json
from pathlib import Path
from typing import Any

import pytest

import genz_jax as gz

SMALL = {"hidden_size": 96, "num_hidden_layers": 6, "num_attention_heads": 12, "vocab_size": 1000, "pad_token_id": 0}
GQA = {**SMALL, "num_key_value_heads": 4, "intermediate_size": 160}
SIZED = {**GQA, "head_dim": 16}
EXPERTS = {"moe_intermediate_size": 40, "num_experts_per_tok": 2}
CONVOLUTIONS = ["conv", "full_attention", "conv", "conv", "full_attention", "conv"]
BIASES = {"attention_bias": True, "mlp_bias": True}

# Keys of configs by family; each with its class's defaults for what is absent.
CONFIGS: list[tuple[str, dict[str, Any]]] = [
    ("ministral3", {}),
    ("ministral3", SIZED),
    ("exaone4", {}),
    ("exaone4", {**GQA, "sliding_window": 16}),
    ("smollm3", {}),
    ("smollm3", {**GQA, **BIASES, "use_sliding_window": True, "sliding_window": 8}),
    ("ernie4_5", {}),
    ("ernie4_5", {**SIZED, "use_bias": True}),
    ("ernie4_5_moe", {}),
    ("ernie4_5_moe", {**GQA, "moe_intermediate_size": 40, "moe_num_experts": 6, "moe_k": 2, "moe_layer_start_index": 2,
                      "moe_layer_interval": 2, "moe_num_shared_experts": 3}),
    ("hunyuan_v1_dense", {**SIZED, "attention_bias": True}),
    ("hunyuan_v1_moe", {**SIZED, "num_experts": 6, "moe_topk": [2] * 6}),
    ("dots1", {**SIZED, **EXPERTS, "n_routed_experts": 6, "n_shared_experts": 2, "first_k_dense_replace": 1}),
    ("apertus", {}),
    ("apertus", {**GQA, "attention_bias": True}),
    ("seed_oss", {}),
    ("seed_oss", {**SIZED, **BIASES, "attention_out_bias": True}),
    ("arcee", {}),
    ("arcee", {**SIZED, **BIASES}),
    ("afmoe", {}),
    ("afmoe", {**SIZED, **EXPERTS, "num_experts": 6, "num_shared_experts": 3, "num_dense_layers": 2,
               "attention_bias": True}),
    ("falcon_h1", {}),
    ("falcon_h1", {**GQA, **BIASES, "head_dim": 8, "mamba_d_ssm": None, "mamba_n_heads": 12, "mamba_d_head": 16,
                   "mamba_rms_norm": True, "mamba_proj_bias": True, "projectors_bias": True, "mamba_n_groups": 2,
                   "mamba_d_state": 8}),
    ("granitemoehybrid", {}),
    ("lfm2", {}),
    ("lfm2", {**GQA, "layer_types": CONVOLUTIONS, "conv_bias": True}),
    ("lfm2", {**GQA, "full_attn_idxs": [1, 3], "block_auto_adjust_ff_dim": False}),
    ("lfm2", {**GQA, "block_ffn_dim_multiplier": 1.3, "block_multiple_of": 8}),
    ("lfm2_moe", {**GQA, **EXPERTS, "layer_types": CONVOLUTIONS, "num_experts": 6}),
    ("bloom", {}),
    ("bloom", {"hidden_size": 96, "n_layer": 5, "n_head": 12, "vocab_size": 1000}),
    ("gptj", {}),
    ("gptj", {"n_embd": 96, "n_layer": 3, "n_head": 12, "vocab_size": 1000, "n_inner": 100}),
    ("longcat_flash", {}),
    ("bailing_hybrid", {"head_dim": 128}),
    ("bailing_hybrid", {"head_dim": 128, "num_hidden_layers": 12, "q_lora_rank": 100, "attention_bias": True}),
    ("mllama_text_model", {}),
    ("mllama_text_model", {**GQA, "cross_attention_layers": [1, 4]}),
]  # fmt: skip


def imported(folder: Path, values: dict[str, Any], name: str = "config.json") -> gz.Model:
    file = folder / name
    file.write_text(json.dumps(values))
    return gz.Model.from_hugging_face(file)


def count(model: gz.Model) -> int:
    return int(gz.parameter_count(model).total)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("kind", "values"), CONFIGS, ids=[f"{kind}-{i}" for i, (kind, _) in enumerate(CONFIGS)])
def test_parameters_equal_pytorchs(tmp_path, kind: str, values: dict[str, Any]):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    config = transformers.AutoConfig.for_model(kind, **values)
    with torch.device("meta"):
        if kind == "mllama_text_model":
            model = transformers.models.mllama.modeling_mllama.MllamaForCausalLM(config)
        else:
            model = transformers.AutoModelForCausalLM.from_config(config)
    theirs = sum(p.numel() for p in model.parameters())
    if kind == "longcat_flash":  # its first projection has room for the 256 experts that do nothing
        theirs -= 28 * 256 * 2 * 2048 * 6144
    assert count(imported(tmp_path, {"model_type": kind, **values})) == theirs


# As the model cards and the indices of the checkpoints count them; sources are the config.json of each hub id.
PUBLISHED: dict[str, tuple[int, dict[str, Any]]] = {
    "LiquidAI/LFM2-1.2B": (1_170_340_608, {
        "model_type": "lfm2", "hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 32,
        "num_key_value_heads": 8, "vocab_size": 65536, "block_ff_dim": 12288, "block_ffn_dim_multiplier": 1.0,
        "block_multiple_of": 256, "block_auto_adjust_ff_dim": True, "conv_L_cache": 3, "conv_bias": False,
        "full_attn_idxs": [2, 5, 8, 10, 12, 14]}),
    "bigscience/bloom-560m": (559_214_592, {
        "model_type": "bloom", "n_embed": 1024, "n_layer": 24, "num_attention_heads": 16, "vocab_size": 250880}),
    "EleutherAI/gpt-j-6b": (6_050_882_784, {
        "model_type": "gptj", "n_embd": 4096, "n_layer": 28, "n_head": 16, "vocab_size": 50400, "n_inner": None}),
    "HuggingFaceTB/SmolLM3-3B": (3_075_098_624, {
        "model_type": "smollm3", "hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36,
        "num_attention_heads": 16, "num_key_value_heads": 4, "vocab_size": 128256, "tie_word_embeddings": True}),
    "baidu/ERNIE-4.5-0.3B-PT": (360_748_032, {"model_type": "ernie4_5"}),
    "baidu/ERNIE-4.5-21B-A3B-PT": (21_825_437_888, {"model_type": "ernie4_5_moe"}),
    "ByteDance-Seed/Seed-OSS-36B-Instruct": (36_151_104_512, {
        "model_type": "seed_oss", "hidden_size": 5120, "intermediate_size": 27648, "num_hidden_layers": 64,
        "num_attention_heads": 80, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 155136,
        "attention_bias": True, "attention_out_bias": False, "tie_word_embeddings": False}),
    "swiss-ai/Apertus-8B-2509": (8_053_338_176, {
        "model_type": "apertus", "hidden_size": 4096, "intermediate_size": 21504, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 131072, "hidden_act": "xielu"}),
    "Qwen/Qwen2.5-VL-7B-Instruct (text)": (7_615_616_512, {
        "model_type": "qwen2_5_vl", "architectures": ["Qwen2_5_VLForConditionalGeneration"], "hidden_size": 3584,
        "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4,
        "vocab_size": 152064, "tie_word_embeddings": False, "use_sliding_window": False, "sliding_window": 32768,
        "max_window_layers": 28, "vision_config": {"depth": 32}}),
    "meta-llama/Llama-3.2-11B-Vision (text)": (9_775_192_080, {"model_type": "mllama_text_model"}),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_the_published(tmp_path, name: str):
    published, values = PUBLISHED[name]
    assert count(imported(tmp_path, values)) == published


def layers_of(model: gz.Model, *kinds: str) -> list[float]:
    return [float(getattr(model, kind).layers) for kind in kinds]


def test_layers_are_of_the_kinds_that_the_papers_say(tmp_path):
    exaone = imported(tmp_path, {"model_type": "exaone4", "num_hidden_layers": 64, "sliding_window": 4096})
    assert layers_of(exaone, "attention", "local_attention") == [16, 48]
    lfm = imported(tmp_path, PUBLISHED["LiquidAI/LFM2-1.2B"][1])
    assert layers_of(lfm, "attention", "short_convolution") == [6, 10]
    falcon = imported(tmp_path, {"model_type": "falcon_h1"})
    assert layers_of(falcon, "attention", "ssd") == [float(falcon.layers)] * 2
    llama = imported(tmp_path, {"model_type": "mllama_text_model"})
    assert layers_of(llama, "attention") == [float(llama.layers)] == [32]  # images aside, eight are skipped
    # 12 of 512 experts and 256 that do nothing: eight of them work.
    longcat: Any = imported(tmp_path, {"model_type": "longcat_flash"})
    assert float(longcat.moe.top_k) == 8
    wrapped = {"model_type": "mistral3", "text_config": {"model_type": "ministral3", **SIZED}, "vision_config": {}}
    assert count(imported(tmp_path, wrapped)) == count(imported(tmp_path, {"model_type": "ministral3", **SIZED}))


@pytest.mark.slow
def test_a_short_convolution_is_two_projections_and_a_state_of_its_window(tmp_path):
    lfm = imported(tmp_path, PUBLISHED["LiquidAI/LFM2-1.2B"][1])
    tokens, batch, width = 500, 3, 2048
    found = gz.estimate(lfm, "H100-SXM", gz.Workload(batch, tokens, 10), stage="prefill", operators=True)
    rows = tokens * batch * 10
    flops = {
        name: float(found.operators[f"short_convolution.{name}"].flops) for name in ("in_proj", "conv", "out_proj")
    }
    assert flops == {
        "in_proj": 2 * rows * width * 3 * width,
        "conv": 2 * rows * width * 3,
        "out_proj": 2 * rows * width * width,
    }
    held = gz.estimate(lfm, "H100-SXM", gz.Workload(batch, 512 - 16, 16), stage="memory").kv_cache
    attention = batch * 512 * 6 * 2 * 8 * 64 * 2
    assert float(held) - attention == batch * 10 * width * 2 * 2  # two earlier inputs of each channel in bf16
    alone, split = (gz.estimate(lfm, "H100-SXM", parallelism=gz.Parallelism(tp=tp)).tpot for tp in (1, 2))
    assert float(split) < float(alone)


# ------------------------------------------------------------------------------------------------- files of other kinds


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("adapter_config.json", {"peft_type": "LORA", "base_model_name_or_path": "a/b"}, "LoRA.*its base model, 'a/b'"),
        ("x.json", {"peft_type": "LORA", "r": 8}, "LoRA.*give its base model"),
        ("generation_config.json", {"eos_token_id": 1}, "settings of generation; give the config.json"),
        ("tokenizer_config.json", {}, "a tokenizer; give the config.json"),
        ("model.safetensors.index.json", {"weight_map": {}}, "an index of weight files"),
        ("index.json", {"weight_map": {}}, "an index of weight files"),
        ("params.json", {"dim": 64, "n_layers": 2, "n_heads": 4, "multiple_of": 256}, "Meta's own format"),
        ("params.json", {"dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 9, "q_lora_rank": 3}, "'q_lora_rank'"),
    ],
)
def test_files_of_other_kinds_are_named(tmp_path, name: str, values: dict[str, Any], words: str):
    for read in (gz.Model.from_hugging_face, gz.load):
        (tmp_path / name).write_text(json.dumps(values))
        with pytest.raises(ValueError, match=words) as caught:
            read(tmp_path / name)
        assert name in str(caught.value)
        assert len(str(caught.value)) <= 300


def test_mistrals_params_are_read(tmp_path):
    params = {"dim": 4096, "n_layers": 32, "head_dim": 128, "hidden_dim": 14336, "n_heads": 32, "n_kv_heads": 8,
              "norm_eps": 1e-5, "vocab_size": 32768, "rope_theta": 1e6}  # fmt: skip
    assert count(imported(tmp_path, params, "params.json")) == 7_248_023_552  # Mistral 7B v0.3
    mixture = params | {"vocab_size": 32000, "moe": {"num_experts": 8, "num_experts_per_tok": 2}}
    assert count(imported(tmp_path, mixture, "params.json")) == 46_702_792_704  # Mixtral 8x7B
