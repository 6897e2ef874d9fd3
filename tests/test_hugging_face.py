"""Configs from Hugging Face: what is read, and what is refused with which words."""

import json

import pytest
from typer.testing import CliRunner

import genz_jax as gz
from genz_jax.base.formats import FORMATS
from genz_jax.catalog.hugging_face import checkpoints
from genz_jax.cli import app

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "num_hidden_layers": 32,
    "vocab_size": 128256,
}


def write(folder, values, name="config.json"):
    file = folder / name
    file.write_text(values if isinstance(values, str) else json.dumps(values))
    return file


def test_file_and_folder_are_the_catalogues_model(tmp_path):
    file = write(tmp_path, LLAMA)
    for path in (file, tmp_path, str(file)):
        read = gz.Model.from_hugging_face(path)
        assert gz.parameter_count(read) == gz.parameter_count("llama-3.1-8b")
    assert gz.Model.from_hugging_face(file).name == tmp_path.name
    assert gz.model(str(file)).name == tmp_path.name


def test_text_part_of_a_vision_model(tmp_path):
    text = {key: value for key, value in LLAMA.items() if key != "architectures"}
    file = write(tmp_path, {"architectures": ["LlavaForConditionalGeneration"], "text_config": text})
    assert float(gz.parameter_count(gz.Model.from_hugging_face(file)).total) == 8_030_261_248


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden_size": None}, "hidden_size = null: must be a whole number"),
        ({"vocab_size": None}, "vocab_size = null: must be a whole number"),
        ({"num_attention_heads": 0}, "num_attention_heads = 0: must be a whole number of 1 or more"),
        ({"num_hidden_layers": -3}, "num_hidden_layers = -3"),
        ({"intermediate_size": 10.5}, "intermediate_size = 10.5"),
        ({"hidden_size": "4096"}, "hidden_size = '4096'"),
        ({"num_attention_heads": True}, "num_attention_heads = True"),
        ({"hidden_size": float("inf")}, "hidden_size = inf"),
        ({"hidden_size": float("nan")}, "hidden_size = nan"),
        ({"num_key_value_heads": 5}, "does not divide"),
        ({"hidden_size": 4100, "num_attention_heads": 33}, "no multiple"),
        ({"attention_bias": "yes"}, "attention_bias = 'yes': must be true or false"),
        ({"model_type": "lama"}, "'lama' .'LlamaForCausalLM'. is not known; did you mean .*llama"),
        ({"model_type": None}, "is not known"),
        ({"model_type": ["llama"]}, r"model_type = \['llama'\]: must be a text"),
        ({"layer_types": ["full_attention"]}, "1 words for 32 layers"),
    ],
)
def test_bad_values(tmp_path, changes, words):
    with pytest.raises(ValueError, match=words):
        gz.Model.from_hugging_face(write(tmp_path, {**LLAMA, **changes}))


SMALL = {"hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 8, "vocab_size": 100, "head_dim": 12}
SMALL |= {"num_key_value_heads": 4, "intermediate_size": 160, "num_experts_per_tok": 2, "moe_intermediate_size": 40}
BLOCK = {"attention": {"n_heads_in_group": 2}, "ffn": {"ffn_mult": 2.0}}
V4 = {
    **SMALL,
    "model_type": "deepseek_v4",
    "num_key_value_heads": 1,
    "q_lora_rank": 24,
    "sliding_window": 8,
    "o_groups": 2,
    "o_lora_rank": 10,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "hc_mult": 4,
    "compress_ratios": [0, 0],
}
del V4["intermediate_size"]  # another name of moe_intermediate_size
NAS = {**SMALL, "model_type": "nemotron-nas", "block_configs": [BLOCK, BLOCK]}
M3 = {
    **SMALL,
    "model_type": "minimax_m3",
    "num_local_experts": 4,
    "dense_intermediate_size": 100,
    "shared_intermediate_size": 40,
    "moe_layer_freq": [0, 1],
}
STEP = {**SMALL, "model_type": "step3p7", "moe_num_experts": 4, "share_expert_dim": 40, "moe_layers_enum": "1"}
TEXT_01 = {**SMALL, "model_type": "minimax_text_01", "num_local_experts": 4, "attn_type_list": [0, 1]}
KIMI = {
    **SMALL,
    "model_type": "kimi_linear",
    "linear_attn_config": {
        "kda_layers": [1],
        "full_attn_layers": [2],
        "num_heads": 4,
        "head_dim": 12,
        "short_conv_kernel_size": 4,
    },
    "kv_lora_rank": 20,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 8,
    "num_experts": 4,
}


@pytest.mark.parametrize("values", [V4, NAS, M3, STEP, TEXT_01, KIMI], ids=lambda values: values["model_type"])
def test_small_configs_are_read(tmp_path, values):
    assert float(gz.parameter_count(gz.Model.from_hugging_face(write(tmp_path, values))).total) > 0


@pytest.mark.parametrize(
    ("values", "changes", "words"),
    [
        (V4, {"compress_ratios": [0, 64]}, r"compress_ratios \[64\] other than 0, 4, 128"),
        (V4, {"compress_ratios": [[4], "4"]}, "compress_ratios"),
        (V4, {"compress_ratios": [4]}, "no compress_ratios of 2 layers"),
        (V4, {"num_key_value_heads": 2}, "more than one key-value head"),
        (V4, {"compress_ratios": [4, 0], "index_n_heads": None}, "index_n_heads = null: must be a whole number"),
        (V4, {"intermediate_size": 80}, "intermediate_size = 80 but moe_intermediate_size = 40, one and the same"),
        (NAS, {"block_configs": [BLOCK]}, "no block_configs of 2 blocks"),
        (NAS, {"block_configs": [BLOCK, 3]}, r"block_configs\[1\] = 3: must be a JSON object"),
        (NAS, {"block_configs": [BLOCK, {"attention": {"replace_with_linear": True}, "ffn": {}}]}, "one matrix"),
        (NAS, {"block_configs": [BLOCK, {**BLOCK, "ffn": {"ffn_mult": "2"}}]}, "ffn_mult = '2'"),
        (NAS, {"block_configs": [BLOCK, {**BLOCK, "attention": {"n_heads_in_group": 4}}]}, "n_heads_in_group"),
        (M3, {"attention_output_gate": True}, "attention_output_gate"),
        (M3, {"moe_layer_freq": [1]}, r"moe_layer_freq = \[1\]: must be a list of 2 marks"),
        (
            M3,
            {"sparse_attention_config": {"sparse_attention_freq": [1]}},
            r"sparse_attention_freq = \[1\]: must be a list of 2",
        ),
        (STEP, {"moe_layers_enum": "1,x"}, "moe_layers_enum = '1,x': must list"),
        (STEP, {"attention_other_setting": 96}, "attention_other_setting = 96: must be a JSON object"),
        (STEP, {"attention_bias": True}, "cannot be imported exactly: attention_bias, mlp_bias"),
        (TEXT_01, {"attn_type_list": [1]}, r"attn_type_list = \[1\]: must be a list of 2 marks"),
        (TEXT_01, {"shared_intermediate_size": 40}, "a shared expert"),
        (KIMI, {"linear_attn_config": {"kda_layers": [1], "full_attn_layers": [1]}}, "layers of no kind or of two"),
    ],
)
def test_what_is_not_expressed_is_refused(tmp_path, values, changes, words):
    with pytest.raises(ValueError, match=words):
        gz.Model.from_hugging_face(write(tmp_path, {**values, **changes}))


@pytest.mark.parametrize(
    ("told", "modules"),
    [({"num_nextn_predict_layers": 3}, 3), ({"num_mtp_modules": 2}, 2), ({"use_mtp": False, "num_mtp_modules": 2}, 0)],
)
def test_modules_for_multi_token_prediction(tmp_path, told, modules):
    model = gz.Model.from_hugging_face(write(tmp_path, {**LLAMA, **told}))
    block = 4096 * (2 * 4096 + 2 * 1024) + 3 * 4096 * 14336 + 2 * 4096
    assert float(model.mtp_layers) == modules
    assert float(gz.parameter_count(model).mtp) == modules * (2 * 4096**2 + 3 * 4096 + block)
    assert float(gz.parameter_count(model).total) == 8_030_261_248


@pytest.mark.parametrize(
    ("text", "words"),
    [("[1, 2]", "a JSON list, must be an object"), ("", "no JSON"), ("{", "no JSON"), ("[" * 100_000, "no JSON")],
)
def test_not_an_object(tmp_path, text, words):
    with pytest.raises(ValueError, match=words):
        gz.Model.from_hugging_face(write(tmp_path, text))


def test_large_file(tmp_path):
    file = tmp_path / "config.json"
    with file.open("wb") as stream:
        stream.truncate(100 * 2**20)
    with pytest.raises(ValueError, match="104,857,600 bytes; a config has at most"):
        gz.Model.from_hugging_face(file)


def test_links_and_missing_files(tmp_path):
    loop = tmp_path / "config.json"
    loop.symlink_to(loop)
    for path in (loop, tmp_path):
        with pytest.raises(ValueError, match=r"link that leads to no file|cannot be read"):
            gz.Model.from_hugging_face(path)
    with pytest.raises(ValueError, match="no such file"):
        gz.Model.from_hugging_face(tmp_path / "none.json")
    with pytest.raises(ValueError, match="no such file"):
        gz.Model.from_hugging_face("no-such-model")


@pytest.mark.parametrize(
    ("told", "weights", "activations", "compute"),
    [
        ({"quant_method": "fp8"}, 1.0, 1.0, "fp8"),
        ({"quant_method": "mxfp4"}, 0.53125, 2.0, "bf16"),
        ({"quant_method": "gptq", "bits": 4}, 0.5, 2.0, "bf16"),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"g": {"weights": {"num_bits": 8, "type": "int"}, "input_activations": None}},
                "ignore": ["lm_head"],
            },
            1.0,
            2.0,
            "bf16",
        ),
    ],
)
def test_quantization_sets_the_precision(tmp_path, told, weights, activations, compute):
    read = checkpoints.read_precision(write(tmp_path, {**LLAMA, "quantization_config": told}))
    assert float(read.weights) == weights
    assert float(read.activations) == activations
    assert FORMATS[int(read.compute)] == compute


def test_file_of_quantization_beside_the_config(tmp_path):
    file = write(tmp_path, LLAMA)
    write(tmp_path, {"quantization": {"quant_algo": "NVFP4", "kv_cache_quant_algo": "FP8"}}, "hf_quant_config.json")
    read = checkpoints.read_precision(file)
    assert (float(read.weights), float(read.kv_cache)) == (0.5625, 1.0)


MOE = {**LLAMA, "num_local_experts": 4, "num_experts_per_tok": 2, "model_type": "mixtral"}
MOE["architectures"] = ["MixtralForCausalLM"]
GPT_OSS = {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"]}
GROUPED = {
    "quant_method": "compressed-tensors",
    "config_groups": {"g": {"weights": {"num_bits": 4, "type": "int", "group_size": 32}, "input_activations": None}},
    "ignore": ["lm_head", "re:.*self_attn.*"],
}


@pytest.mark.parametrize(
    ("config", "told", "name"),
    [
        (MOE, GPT_OSS, "bf16/experts=mxfp4"),
        (LLAMA, GPT_OSS, "bf16/ffn=mxfp4"),
        (MOE, GROUPED, "bf16/experts=int4:32x16"),
        (
            MOE,
            {"quant_method": "fp8", "modules_to_not_convert": ["layers.0.self_attn.q_norm"]},
            "fp8-fp8-bf16/embedding=bf16",
        ),
        (LLAMA, {"quant_method": "awq", "bits": 4, "group_size": 128}, "int4:128x20-bf16-bf16/embedding=bf16"),
        (
            LLAMA,
            {"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": True},
            "int4:128x16-bf16-bf16/embedding=bf16",
        ),
    ],
)
def test_tensors_have_the_formats_that_the_config_gives_them(tmp_path, config, told, name):
    assert checkpoints.precision_text(write(tmp_path, {**config, "quantization_config": told})) == name


def test_experts_may_differ_from_all_other_layers(tmp_path):
    file = write(tmp_path, {**MOE, "quantization_config": {"quant_method": "fp8"}})
    layers = {f"layers.{i}.ffn.experts": {"quant_algo": "NVFP4"} for i in range(MOE["num_hidden_layers"])}
    told = {"quant_algo": "MIXED_PRECISION", "quantized_layers": layers}
    write(tmp_path, {"quantization": told}, "hf_quant_config.json")
    assert checkpoints.precision_text(file) == "fp8-fp8-bf16/experts=nvfp4-nvfp4/embedding=bf16"


@pytest.mark.slow
def test_mixed_quantization_asks_for_a_precision(tmp_path):
    file = write(tmp_path, LLAMA)
    write(tmp_path, {"quantization": {"quant_algo": "MIXED_PRECISION"}}, "hf_quant_config.json")
    with pytest.raises(ValueError, match="differs from layer to layer"):
        checkpoints.read_precision(file)
    done = CliRunner().invoke(app, ["estimate", "--model", str(file), "-p", "B200", "--precision", "nvfp4-nvfp4-fp8"])
    assert done.exit_code == 0


def test_unknown_quantization(tmp_path):
    with pytest.raises(ValueError, match="quantization 'magic' is not known"):
        checkpoints.read_precision(write(tmp_path, {**LLAMA, "quantization_config": {"quant_method": "magic"}}))


def test_command_reads_a_config(tmp_path):
    file = write(tmp_path, {**LLAMA, "quantization_config": {"quant_method": "fp8"}})
    done = CliRunner().invoke(app, ["estimate", "--model", str(file), "-p", "H100-SXM"])
    assert done.exit_code == 0
    assert "fp8" in done.output
    done = CliRunner().invoke(app, ["models", "llama-3.1-405b", "--json"])
    assert json.loads(done.output)["llama-3.1-405b"]["parameter_count"]["total"] == 405_853_388_800
