"""Parameter counts against published ones and closed forms, and KV caches against published bytes per token."""

import jax
import numpy as np
import pytest

import genz_jax as gz

# Published counts: model cards and the hub's safetensors metadata; rounded ones stand with their digits' tolerance.
PUBLISHED = {
    "llama-3.1-8b": 8_030_261_248,
    "llama-3.1-70b": 70_553_706_496,
    "llama-3.1-405b": 405_853_388_800,
    "mixtral-8x7b": 46_702_792_704,
    "mixtral-8x22b": 140_620_634_112,
    "qwen2.5-72b": 72_706_203_648,
    "qwen3-8b": 8_190_735_360,
    "qwen3-235b-a22b": 235_093_634_560,
    "gpt2": 124_439_808,
    "gemma-2-9b": 9_241_705_984,
    "gpt-oss-20b": 20_914_757_184,
    "gpt-oss-120b": 116_829_156_672,
    "phi-2": 2_779_683_840,
    "falcon-40b": 41_303_293_952,
    "command-r-plus": 103_810_674_688,
    "mamba-2.8b": 2_768_345_600,
    "mamba2-2.7b": 2_702_599_680,
    "jamba-1.5-mini": 51_570_323_328,
    "bloom-176b": 176_247_271_424,
    "gpt-neox-20b": 20_554_567_680,
}
ROUNDED = {
    "deepseek-v3": (671.0e9, 37e9, 0.02),
    "mixtral-8x7b": (46.70e9, 12.9e9, 0.01),
    "gpt-oss-120b": (116.8e9, None, 1e-3),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_counts(name):
    assert float(gz.parameter_count(name).total) == PUBLISHED[name]


@pytest.mark.parametrize("name", ROUNDED)
def test_rounded_counts(name):
    total, active, tolerance = ROUNDED[name]
    counted = gz.parameter_count(name)
    assert float(counted.total) == pytest.approx(total, rel=5e-4)
    if active is not None:
        assert float(counted.active) == pytest.approx(active, rel=tolerance)


@pytest.mark.first(44)
@pytest.mark.parametrize("name", gz.models())
def test_exact_statements_of_the_catalogue(name):
    stated = gz.catalog.about("model", name).notes.get("parameters")
    if stated is None or stated % 1e6 == 0:
        pytest.skip("no exact count is published")
    if name == "phi-3-small":
        pytest.skip("its block-sparse layers are approximated")
    corrections = 58 * 256 if name in ("deepseek-v3", "deepseek-r1") else 0
    assert float(gz.parameter_count(name).total) + corrections == stated


@pytest.mark.slow
def test_parts_add_up_and_active_is_a_part():
    counted = gz.parameter_count(gz.stack([gz.model(name) for name in gz.models()]))
    parts = ("attention", "ssm", "ffn", "experts", "router", "embedding", "head", "norms", "other")
    assert np.all(sum(getattr(counted, part) for part in parts) == counted.total)
    assert np.all((counted.active > 0) & (counted.active <= counted.total))


def test_counts_are_differentiable_and_broadcast():
    model = gz.model("llama-3.1-8b")
    wide = model.replace(vocab_size=np.array([1000.0, 2000.0]))
    assert gz.parameter_count(wide).total.shape == (2,)
    with jax.enable_x64(True):
        slope = jax.grad(lambda v: gz.parameter_count(model.replace(vocab_size=v)).total)(128256.0)
    assert float(slope) == 2 * 4096  # embedding and head


@pytest.mark.slow
def test_weights_in_memory_are_the_parameters():
    """On one device in a format of one byte, the engine stores each parameter once."""
    for name in ("llama-3.1-8b", "qwen2.5-7b", "gemma-2-9b", "gpt-oss-20b", "gpt2", "mamba-2.8b", "mamba2-2.7b"):
        stored = gz.sweep(name, "H100-SXM", precision="int8", stage="prefill", figures=["weights"], progress=False)
        assert float(stored.weights) == pytest.approx(float(gz.parameter_count(name).total), rel=1e-6)


def test_axes_and_unknown_names_are_refused():
    with pytest.raises(ValueError, match="takes numbers and arrays"):
        gz.parameter_count(gz.model("llama-3.1-8b").replace(vocab_size=gz.axis([1, 2])))
    with pytest.raises(ValueError, match="unknown model"):
        gz.parameter_count("llama-9-9b")


def kv_cache(name: str, tokens: int, precision: str = "bf16") -> float:
    """Bytes of cache of one request after `tokens` prompt tokens."""
    workload = gz.Workload(batch=1, input_tokens=tokens, output_tokens=1)
    with jax.enable_x64(True):
        found = gz.sweep(
            name, "B200", workload, precision=precision, stage="prefill", figures=["kv_cache"], progress=False
        )
    return float(found.kv_cache)


@pytest.mark.first(2)
@pytest.mark.parametrize(
    ("name", "per_token"),
    [
        ("llama-3.1-70b", 327_680),
        ("deepseek-v3", 70_272),
        ("mixtral-8x7b", 131_072),
    ],
)
def test_kv_bytes_per_token(name, per_token):
    assert kv_cache(name, 4096) - kv_cache(name, 3072) == 1024 * per_token


@pytest.mark.first(1)
@pytest.mark.parametrize(
    ("name", "local", "whole", "window", "kv_heads", "head_dim"),
    [("gemma-3-27b", 52, 10, 1024, 16, 128), ("gpt-oss-120b", 18, 18, 128, 8, 64)],
)
def test_windows_bound_the_cache_at_128k(name, local, whole, window, kv_heads, head_dim):
    context = 131_072
    expected = 2 * 2 * kv_heads * head_dim * (local * window + whole * context)
    assert kv_cache(name, context) == expected


def test_jamba_keeps_keys_of_its_nine_attention_layers():
    assert kv_cache("jamba-1.5-large", 4096) - kv_cache("jamba-1.5-large", 3072) == 1024 * 9 * 2 * 8 * 128 * 2


def test_falcon_mamba_has_a_constant_state():
    assert kv_cache("falcon-mamba-7b", 65_536) == kv_cache("falcon-mamba-7b", 16)
