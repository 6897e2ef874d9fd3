"""Values of configs that are no such thing as their key says, and layers that a config names in older ways."""

import json
import time
import warnings

import pytest

import genz_jax as gz

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
QWEN2 = {**LLAMA, "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "use_sliding_window": True}
GEMMA2 = {"model_type": "gemma2", "num_hidden_layers": 2}
MOE = {"model_type": "qwen3_moe", "num_hidden_layers": 4, "use_sliding_window": False}
V3 = {"model_type": "deepseek_v3", "num_hidden_layers": 4}
HYBRID = {"model_type": "nemotron_h"}
LLAMA_4 = {"model_type": "llama4_text", "num_hidden_layers": 8}
JAMBA = {"model_type": "jamba"}
KIMI = {"model_type": "kimi_linear"}
MIMO = {"model_type": "mimo_v2_flash", "num_hidden_layers": 2}


def read(tmp_path, values):
    file = tmp_path / "config.json"
    file.write_text(values if isinstance(values, str) else json.dumps(values))
    start = time.perf_counter()
    try:
        return gz.Model.from_hugging_face(file)
    finally:
        assert time.perf_counter() - start < 2


def refused(tmp_path, values, *words):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 the words are checked here
        read(tmp_path, values)
    message = str(caught.value)
    assert len(message) <= 300
    assert "\n" not in message
    assert "config.json" in message
    for word in words:
        assert word in message


@pytest.mark.first(44)
@pytest.mark.parametrize(
    ("values", "key", "value"),
    [
        (GEMMA2, "layer_types", ["slidng_attention", "full_attention"]),
        (GEMMA2, "layer_types", ["sliding_attention"]),
        (GEMMA2, "layer_types", ["sliding_attention", 1]),
        (GEMMA2, "layer_types", "sliding_attention"),
        (GEMMA2, "layer_types", ["linear_attention", "full_attention"]),
        (GEMMA2, "layer_types", {"0": "full_attention"}),
        (V3, "moe_layer_freq", "1"),
        (V3, "moe_layer_freq", 2),
        (V3, "moe_layer_freq", [0, 1, 1, 1]),
        (V3, "use_mtp", "false"),
        (V3, "use_mtp", 0),
        (V3, "num_nextn_predict_layers", "1"),
        (V3, "first_k_dense_replace", -1),
        (V3, "first_k_dense_replace", 1.0),
        (V3, "q_lora_rank", "1536"),
        (V3, "q_lora_rank", 0),
        (MOE, "mlp_only_layers", 3),
        (MOE, "mlp_only_layers", ["3"]),
        (MOE, "mlp_only_layers", [True]),
        (MOE, "mlp_only_layers", [4]),
        (MOE, "mlp_only_layers", [1, 1]),
        (MOE, "decoder_sparse_step", 0),
        (MOE, "num_experts_per_tok", 200),
        (MIMO, "moe_layer_freq", ["0", "1"]),
        (MIMO, "moe_layer_freq", [1, 1]),
        (MIMO, "hybrid_layer_pattern", [0, 2]),
        (MIMO, "hybrid_layer_pattern", [1, 1]),
        (MIMO, "mlp_layer_types", ["dense", "Sparse"]),
        (MIMO, "add_full_attention_sink_bias", True),
        (MIMO, "add_swa_attention_sink_bias", False),
        (HYBRID, "hybrid_override_pattern", "M*X"),
        (HYBRID, "hybrid_override_pattern", 3),
        (HYBRID, "layers_block_type", ["mamba", "moee"]),
        (LLAMA_4, "moe_layers", [8]),
        (LLAMA_4, "moe_layers", "1,3"),
        (LLAMA_4, "no_rope_layers", [1, 1]),
        (LLAMA_4, "no_rope_layers", [1, 2, 1, 1, 1, 1, 1, 1]),
        (LLAMA_4, "interleave_moe_layer_step", 0),
        (LLAMA_4, "attention_chunk_size", "8192"),
        (JAMBA, "attn_layer_offset", 8),
        (JAMBA, "mamba_dt_rank", "automatic"),
        (KIMI, "linear_attn_config", {"full_attn_layers": [0], "kda_layers": [1]}),
        (KIMI, "linear_attn_config", 3),
        (LLAMA, "num_hidden_layers", 10**12),
        (LLAMA, "num_hidden_layers", 10_001),
        (LLAMA, "num_hidden_layers", 10**309),
        (LLAMA, "num_hidden_layers", "32"),
        (LLAMA, "num_hidden_layers", True),
        (LLAMA, "num_hidden_layers", 32.0),
        (LLAMA, "num_hidden_layers", [32]),
        (LLAMA, "vocab_size", 10**10),
        (LLAMA, "hidden_size", 10**400),
        (LLAMA, "num_key_value_heads", 0),
        (LLAMA, "tie_word_embeddings", "true"),
        (LLAMA, "tie_word_embeddings", 1),
        (LLAMA, "tie_word_embeddings", None),
        (LLAMA, "sliding_window", 4096),
        (LLAMA, "layer_types", ["sliding_attention"] * 32),
        (LLAMA, "architectures", 5),
        (LLAMA, "architectures", [5]),
        (LLAMA, "architectures", "LlamaForCausalLM"),
        (LLAMA, "text_config", 5),
        (QWEN2, "max_window_layers", "28"),
        (QWEN2, "use_sliding_window", "false"),
        (QWEN2, "layer_types", ["full_attention"] * 31),
        ({**QWEN2, "use_sliding_window": False}, "layer_types", ["sliding_attention"] * 32),
        ({"model_type": "mixtral"}, "n_routed_experts", 16),
        ({"model_type": "mistral"}, "num_key_value_heads", None),
        ({"model_type": "falcon"}, "n_head", 8),
    ],
    ids=str,
)
def test_a_wrong_value_is_refused_by_name_of_its_key(tmp_path, values, key, value):
    read(tmp_path, values)
    refused(tmp_path, {**values, key: value}, key if key != "layer_types" or "use" not in values else "")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"model_type": "llama", "hidden_size": 8, "hidden_size": 16}', "the key 'hidden_size' is there twice"),
        ('{"model_type": "llama", "text_config": {"a": 1, "a": 1}}', "the key 'a' is there twice"),
        ('{"model_type": "llama", "hidden_size": ' + "9" * 5000 + "}", "a whole number of more than 4,300 digits"),
        ('{"model_type": "llama", "hidden_size": NaN}', "hidden_size = nan"),
        ('{"model_type": "llama", "hidden_size": -Infinity}', "hidden_size = -inf"),
        ('{"model_type": "llama", "hidden_size": 1e999}', "hidden_size = inf"),
        ('{"a": ' * 100_000, "no JSON"),
        ("model_type: llama", "no JSON"),
        ("\ufeff{}", "no JSON"),
        ("null", "a JSON NoneType, must be an object"),
        ('{"model_type": "' + "x" * 3000 + '"}', "is not known"),
        ('{"' + "x" * 3000 + '": 1, "' + "x" * 3000 + '": 1}', "is there twice"),
    ],
    ids=lambda text: text[:40],
)
def test_texts_that_are_no_config(tmp_path, text, words):
    refused(tmp_path, text, words)


def test_files_that_are_no_config(tmp_path):
    file = tmp_path / "config.json"
    file.write_bytes(b'{"model_type": "\xff\xfe"}')
    with pytest.raises(ValueError, match=r"no JSON.*utf-8"):
        gz.Model.from_hugging_face(file)
    file.write_text(json.dumps({**LLAMA, "layer_types": ["full_attention"] * 300_000}))
    with pytest.raises(ValueError, match="layer_types has 300000 words for 32 layers"):
        gz.Model.from_hugging_face(file)
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", "x" * 3000, tmp_path / ("y" * 3000), "a/" + "z" * 3000 + "/c"):
        with pytest.raises(ValueError) as caught:  # noqa: PT011 the words are checked here
            gz.Model.from_hugging_face(path)
        assert len(str(caught.value)) <= 300


@pytest.mark.parametrize(
    ("values", "full", "local", "window"),
    [
        ({**QWEN2, "sliding_window": 4096, "max_window_layers": 28}, 28, 4, 4096),
        ({**QWEN2, "sliding_window": 4096, "max_window_layers": 32}, 32, 0, None),
        ({"model_type": "cohere2", "num_hidden_layers": 12, "sliding_window_pattern": 3}, 4, 8, 4096),
        ({"model_type": "gemma3_text", "num_hidden_layers": 12, "sliding_window_pattern": 4}, 3, 9, 4096),
        ({"model_type": "qwen3_moe", "use_sliding_window": True, "sliding_window": 64}, 0, 24, 64),
        ({"model_type": "qwen2_moe", "use_sliding_window": True, "max_window_layers": 10}, 19, 5, 4096),
        ({"model_type": "llama4_text", "num_hidden_layers": 8, "no_rope_layer_interval": 2}, 4, 4, 8192),
        ({"model_type": "llama4_text", "num_hidden_layers": 3, "no_rope_layers": [1, 0, 0]}, 2, 1, 8192),
        ({"model_type": "llama4_text", "num_hidden_layers": 3, "attention_chunk_size": None}, 3, 0, None),
        ({"model_type": "mistral"}, 0, 32, 4096),
        ({"model_type": "mistral", "sliding_window": None}, 32, 0, None),
        ({"model_type": "mimo_v2_flash", "num_hidden_layers": 12}, 3, 9, 129),
        ({"model_type": "gemma4_text", "num_hidden_layers": 5}, 1, 4, 512),
    ],
    ids=str,
)
def test_patterns_that_no_list_names(tmp_path, values, full, local, window):
    """The patterns that the config classes of transformers derive where there are no `layer_types`."""
    model = read(tmp_path, values)
    assert (0 if model.attention is None else float(model.attention.layers)) == full
    assert (0 if model.local_attention is None else float(model.local_attention.layers)) == local
    assert (None if model.local_attention is None else float(model.local_attention.window)) == window


def test_absent_keys_have_the_defaults_of_the_class(tmp_path):
    mistral = {**LLAMA, "model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": None}
    del mistral["num_key_value_heads"]
    attention = read(tmp_path, mistral).attention
    assert attention is not None
    assert float(attention.kv_heads) == 8
    text = {"hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34, "sliding_window": 1024}
    whole = {"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "text_config": text}
    model = read(tmp_path, whole)
    assert float(gz.parameter_count(model).total) == 3_880_263_168  # Gemma 3 4B without its vision part
    part = model.attention
    assert part is not None
    assert [float(value) for value in (part.heads, part.kv_heads, part.head_dim)] == [8, 4, 256]


def test_a_text_part_is_tied_as_its_whole_says(tmp_path):
    text = {key: value for key, value in LLAMA.items() if key != "architectures"}
    for whole, own, tied in ((True, None, 1), (False, None, 0), (False, True, 1), (True, False, 1)):
        part = text if own is None else {**text, "tie_word_embeddings": own}
        model = read(tmp_path, {"model_type": "llava", "text_config": part, "tie_word_embeddings": whole})
        assert float(model.tied_embeddings) == tied


def test_code_of_its_own_is_refused(tmp_path):
    own = {"architectures": ["LlamaForCausalLM_Hybird"]}
    code = {"auto_map": {"AutoModelForCausalLM": "modeling_hybrid_llama.LlamaForCausalLM_Hybird"}}
    refused(tmp_path, {**LLAMA, **own, **code}, "architectures", "LlamaForCausalLM_Hybird", "code of its own")
    same = {"auto_map": {"AutoModelForCausalLM": "modeling_llama.LlamaForCausalLM", "AutoConfig": "c.LlamaConfig"}}
    assert read(tmp_path, {**LLAMA, **same}) == read(tmp_path, LLAMA)


@pytest.mark.parametrize("name", ["LlamaForSequenceClassification", "LlamaModel", "LLaMAForCausalLM"])
def test_classes_of_the_same_architecture(tmp_path, name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read(tmp_path, {**LLAMA, "architectures": [name]})


def test_a_class_that_nobody_knows_is_told(tmp_path):
    with pytest.warns(UserWarning, match="config.json: architectures = 'LlamaForCausalLMEagle3': no class of 'llama'"):
        read(tmp_path, {**LLAMA, "architectures": ["LlamaForCausalLMEagle3"]})
