"""Work of whole models: weights, caches and FLOPs against published numbers and counts token by token."""

from typing import Any

import numpy as np
import pytest
from helpers import ZOO, big_platform, catalogue, chunks, make_case, once, pick, worst

import genz_jax as gz
from genz_jax.serving.evaluate import Question
from genz_jax.specs import assumptions
from genz_jax.specs.stack import stack
from genz_jax.work.sharding import generates_nothing

DEFAULT, GENZ = assumptions.default, assumptions.genz
PRESETS = {"default": DEFAULT, "genz": GENZ}
BARE = DEFAULT.replace(vector_operators=False, kv_cache_writes=False)
WITHOUT_PARAMETERS = {name for name, entry in catalogue("models").items() if "parameters" not in entry}


@pytest.fixture(scope="module")
def weights() -> dict[str, float]:
    dataset = gz.sweep(gz.models(), "H100-SXM", stage="prefill", figures=["weights"], precision="bf16", progress=False)
    return dict(zip(gz.models(), np.asarray(dataset.weights) / 2, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(catalogue("models")) - WITHOUT_PARAMETERS))
def test_weights_are_the_published_parameters(name: str, weights: dict[str, float]):
    # Learned positions (GPT-2, OPT), biases and norms without a place in the model make up to 0.8 %.
    assert weights[name] == pytest.approx(catalogue("models")[name]["parameters"], rel=0.01)


ROUGHLY = {  # models without an exact published count: the size that their name or paper states, in billions
    "kimi-k2": 1040,
    "qwen2-57b-a14b": 57,
    "nemotron-h-8b": 8,
    "nemotron-h-56b": 56,
    "glm-4.5": 355,
    "glm-4.5-air": 106,
    "mamba2-1.3b": 1.3,
    "nemotron-4-15b": 15,
}


@pytest.mark.parametrize("name", sorted(ROUGHLY))
def test_weights_are_near_the_stated_size(name: str, weights: dict[str, float]):
    assert weights[name] == pytest.approx(ROUGHLY[name] * 1e9, rel=0.06)


def decode_cache(name: str, prompt: float, output: float = 128, batch: float = 1) -> float:
    case = make_case(gz.model(name), workload=gz.Workload(batch, prompt, output))
    return float(once(case, Question("decode", DEFAULT, ("kv_cache",)))["kv_cache"])


@pytest.mark.first(1)
@pytest.mark.parametrize(
    ("name", "nbytes"),
    [("llama-3.1-70b", 327_680), ("deepseek-v3", 70_272), ("mixtral-8x7b", 131_072), ("llama-2-7b", 524_288)],
)
def test_cache_per_token_is_the_published(name: str, nbytes: int):
    assert decode_cache(name, 3600) - decode_cache(name, 2000) == 1600 * nbytes  # whole blocks
    assert decode_cache(name, 2000) == 2128 * nbytes
    assert decode_cache(name, 2000, batch=3) == 3 * 2128 * nbytes


def test_state_space_cache_does_not_grow():
    # Falcon-Mamba: 64 layers of 8192 channels with 16 states in fp32 and 3 convolution inputs in bf16.
    expected = 64 * 8192 * (16 * 4 + 3 * 2)
    assert decode_cache("falcon-mamba-7b", 1000) == decode_cache("falcon-mamba-7b", 100_000) == expected


@pytest.mark.first(2)
@pytest.mark.parametrize(
    ("name", "per_token", "everywhere", "windowed", "window"),
    [
        ("gemma-3-27b", 2 * 16 * 128 * 2, 10, 52, 1024),
        ("gpt-oss-120b", 2 * 8 * 64 * 2, 18, 18, 128),
        ("mistral-7b-v0.1", 2 * 8 * 128 * 2, 0, 32, 4096),
    ],
)
@pytest.mark.parametrize("stage", ["decode", "prefill"])
def test_windows_bound_the_cache(stage: str, name: str, per_token: int, everywhere: int, windowed: int, window: int):
    prompt, output = 131_072 - 512, 512
    length = prompt + output if stage == "decode" else prompt
    expected = per_token * (everywhere * length + windowed * window)
    case = make_case(gz.model(name), workload=gz.Workload(1, prompt, output))
    assert float(once(case, Question(stage, DEFAULT, ("kv_cache",)))["kv_cache"]) == expected


def test_beams_share_the_cache_of_the_prompt():
    per_token, prompt, output, beams = 131_072, 1000, 56, 4
    case = make_case(gz.model("llama-3.1-8b"), workload=gz.Workload(2, prompt, output, beams))
    token_by_token = DEFAULT.replace(cache_block=1)
    found = once(case, Question("decode", token_by_token, ("kv_cache",)))["kv_cache"]
    assert float(found) == 2 * per_token * (prompt + beams * output)


# ---------------------------------------------------------------------------------------- FLOPs, token by token


def matmul(rows: float, columns: float) -> float:
    """FLOPs of one vector times a matrix."""
    return sum(2.0 for _ in range(int(rows)) for _ in range(int(columns)))


def attention_flops(d: int, heads: int, kv: int, size: int, seen: int) -> float:
    return matmul(d, (heads + 2 * kv) * size) + 2 * heads * seen * matmul(size, 1) + matmul(heads * size, d)


def latent_flops(d: int, part: dict[str, int], seen: int, absorbed: bool) -> float:
    h, q, c = part["heads"], part["q_lora_rank"], part["kv_lora_rank"]
    nope, rope, v = part["qk_nope_head_dim"], part["qk_rope_head_dim"], part["v_head_dim"]
    flops = (matmul(d, q) + matmul(q, h * (nope + rope))) if q else matmul(d, h * (nope + rope))
    flops += matmul(d, c + rope) + matmul(h * v, d)
    if absorbed:
        flops += h * (matmul(nope, c) + matmul(c, v)) + h * seen * (matmul(c + rope, 1) + matmul(c, 1))
    else:
        flops += matmul(c, h * (nope + v)) + h * seen * (matmul(nope + rope, 1) + matmul(v, 1))
    return flops


TINY: dict[str, dict[str, Any]] = {
    "attention": {"attention": {"layers": 2, "heads": 4, "kv_heads": 2, "head_dim": 3}},
    "local_attention": {"local_attention": {"layers": 2, "heads": 4, "kv_heads": 2, "head_dim": 3, "window": 4}},
    "latent_attention": {
        "latent_attention": {
            "layers": 2,
            "heads": 4,
            "q_lora_rank": 5,
            "kv_lora_rank": 6,
            "qk_nope_head_dim": 3,
            "qk_rope_head_dim": 2,
            "v_head_dim": 4,
        }
    },
    "ssm": {"ssm": {"layers": 2, "d_inner": 6, "d_state": 3, "d_conv": 4, "dt_rank": 2}},
    "ssd": {"ssd": {"layers": 2, "heads": 4, "head_dim": 3, "d_state": 5, "groups": 2, "d_conv": 4}},
    "ffn": {"ffn": {"layers": 2, "intermediate_size": 9, "in_projections": 2}},
    "moe": {
        "moe": {
            "layers": 2,
            "experts": 8,
            "top_k": 2,
            "intermediate_size": 5,
            "in_projections": 2,
            "shared_experts": 1,
            "shared_intermediate_size": 4,
        }
    },
}
TINY["latent_attention_full_query"] = {
    "latent_attention": TINY["latent_attention"]["latent_attention"] | {"q_lora_rank": 0}
}
KINDS = {
    "attention": gz.layers.Attention,
    "local_attention": gz.layers.LocalAttention,
    "latent_attention": gz.layers.LatentAttention,
    "ssm": gz.layers.SSM,
    "ssd": gz.layers.SSD,
    "ffn": gz.layers.FFN,
    "moe": gz.layers.MoE,
}
WIDTH, VOCABULARY = 7, 11


def layer_flops(kind: str, part: dict[str, int], seen: int, absorbed: bool) -> float:
    """FLOPs that a token takes in one layer, where its query sees that many keys."""
    d = WIDTH
    if kind == "attention":
        return attention_flops(d, part["heads"], part["kv_heads"], part["head_dim"], seen)
    if kind == "local_attention":
        return attention_flops(d, part["heads"], part["kv_heads"], part["head_dim"], min(seen, part["window"]))
    if kind == "latent_attention":
        return latent_flops(d, part, seen, absorbed)
    if kind == "ssm":
        c, n, r = part["d_inner"], part["d_state"], part["dt_rank"]
        projections = matmul(d, 2 * c) + matmul(c, r + 2 * n) + matmul(r, c) + matmul(c, d)
        return projections + 2 * c * part["d_conv"] + 6 * c * n
    if kind == "ssd":
        h, c, n, g = part["heads"], part["heads"] * part["head_dim"], part["d_state"], part["groups"]
        convolved = c + 2 * g * n
        return matmul(d, c + convolved + h) + 2 * convolved * part["d_conv"] + 6 * c * n + matmul(c, d)
    if kind == "ffn":
        return (part["in_projections"] + 1) * matmul(d, part["intermediate_size"])
    experts = part["top_k"] * part["intermediate_size"] + part["shared_experts"] * part["shared_intermediate_size"]
    return matmul(d, part["experts"]) + (part["in_projections"] + 1) * matmul(d, experts)


@pytest.mark.first(3)
@pytest.mark.parametrize("name", sorted(TINY))
def test_flops_are_those_of_every_token(name: str):
    ((kind, part),) = TINY[name].items()
    model = gz.Model(WIDTH, part["layers"], VOCABULARY, **{kind: KINDS[kind](**part)})
    batch, prompt, output = 3, 6, 4
    workload = gz.Workload(batch, prompt, output, prefill_chunks=(gz.specs.PrefillChunk(2, 3),))
    head = matmul(WIDTH, VOCABULARY)

    prefill = part["layers"] * sum(layer_flops(kind, part, i + 1, False) for i in range(prompt)) + head
    found = once(make_case(model, workload=workload), Question("prefill", BARE, ("flop_count",)))
    # The chunk is for the chunked stage alone; the absorbed form is for decode.
    assert float(found["flop_count"]) == pytest.approx(batch * prefill, rel=1e-12)

    last = BARE.replace(decode_position="last")
    decode = part["layers"] * layer_flops(kind, part, prompt + output, True) + head
    found = once(make_case(model, workload=workload), Question("decode", last, ("flop_count",)))
    assert float(found["flop_count"]) == pytest.approx(batch * decode, rel=1e-12)

    chunk = part["layers"] * sum(layer_flops(kind, part, 2 + i + 1, False) for i in range(3)) + head
    if kind == "latent_attention":  # a chunk expands the latents before it too
        expanded = part["heads"] * (part["qk_nope_head_dim"] + part["v_head_dim"])
        chunk += part["layers"] * 2 * matmul(part["kv_lora_rank"], expanded)
    found = once(make_case(model, workload=workload), Question("chunked", BARE, ("flop_count",)))
    assert float(found["flop_count"]) == pytest.approx(chunk, rel=1e-12)


def test_the_tpot_is_the_mean_of_the_decode_steps():
    # Prefill gives token 1 of O; step j = 1 … O − 1 has j generated tokens in the cache.
    prompt, output = 700, 9
    platform = big_platform(mem_bw="1 GB/s")
    model = gz.model("llama-3.1-8b")
    steps = []
    for j in range(1, output):
        case = make_case(model, platform, gz.Workload(2, prompt, j))
        steps.append(once(case, Question("decode", DEFAULT.replace(decode_position="last"), ("latency",)))["latency"])
    case = make_case(model, platform, gz.Workload(2, prompt, output))
    found = once(case, Question("request", DEFAULT, ("tpot", "ttft", "latency")))
    assert float(found["tpot"]) == pytest.approx(np.mean(steps), rel=1e-12)
    assert float(found["latency"]) == pytest.approx(float(found["ttft"]) + np.sum(steps), rel=1e-12)


# ------------------------------------------------------------------------------------- mixes and stacks of kinds


@pytest.mark.slow
@pytest.mark.parametrize("preset", sorted(PRESETS))
@pytest.mark.parametrize("stage", ["request", "chunked"])
def test_all_models_of_the_catalogue_have_figures(stage: str, preset: str):
    workload = gz.Workload(4, 900, 50, **(chunks() if stage == "chunked" else {}))
    models = stack([model for model in map(gz.model, gz.models()) if not generates_nothing(model)])
    found = once(make_case(models, workload=workload), Question(stage, PRESETS[preset], breakdown=True))
    assert all(np.all(np.isfinite(value)) for value in found.values())
    assert np.all(found["feasible"])
    assert np.all(found["latency"] > 0)


SPLIT_STAGES = ("request", "chunked")


@pytest.mark.first(1)
@pytest.mark.parametrize("preset", sorted(PRESETS))
@pytest.mark.parametrize("stage", SPLIT_STAGES)
def test_a_kind_split_in_two_changes_nothing(stage: str, preset: str):
    whole = gz.model("llama-3.1-8b")
    full = whole.attention
    assert full is not None
    sizes = {name: getattr(full, name) for name in ("heads", "kv_heads", "head_dim")}
    parts = whole.replace(
        attention=full.replace(layers=20), local_attention=gz.layers.LocalAttention(12, window=1_000_000, **sizes)
    )
    workload = gz.Workload(5, 1100, 70, 2, **chunks())
    spread = gz.Parallelism(4, 1, 2)
    asked = Question(stage, PRESETS[preset], breakdown=True)
    found = [once(make_case(model, workload=workload, parallelism=spread), asked) for model in (whole, parts)]
    assert worst(*found)[0] < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("preset", sorted(PRESETS))
@pytest.mark.parametrize("stage", SPLIT_STAGES)
def test_models_stacked_in_a_list_keep_their_figures(stage: str, preset: str):
    workload = gz.Workload(6, 1100, 70, 2, **chunks())
    asked = Question(stage, PRESETS[preset], breakdown=True)
    together = once(make_case(pick(ZOO), workload=workload), asked)
    for i, name in enumerate(ZOO):
        alone = once(make_case(gz.model(name), workload=workload), asked)
        ours = {figure: np.broadcast_to(value, (len(ZOO),))[i] for figure, value in together.items()}
        difference, figure = worst(ours, alone)
        assert difference < 1e-12, (name, figure)


@pytest.mark.slow
def test_workloads_and_platforms_stacked_in_a_list_keep_their_figures():
    workloads = {
        "chunk": gz.Workload(prefill_chunks=(gz.specs.PrefillChunk(100, 50),)),
        "both": gz.Workload(**chunks()),
        "decode": gz.Workload(decode_chunks=(gz.specs.DecodeChunk(4, 4, 900), gz.specs.DecodeChunk(1, 3, 200, 20))),
    }
    platforms = {
        "one level": gz.Platform(1e15, 3e12, 1e13),
        "offload": gz.Platform(1e15, 3e12, 1e10, offload_bw=1e11),
        "two levels": big_platform(),
    }
    asked, model, spread = Question("chunked", DEFAULT), gz.model("gpt-oss-20b"), gz.Parallelism(tp=8)
    together = once(make_case(model, stack(list(platforms.values())), stack(list(workloads.values())), spread), asked)
    for i, name in enumerate(platforms):
        alone = once(make_case(model, platforms[name], list(workloads.values())[i], spread), asked)
        ours = {figure: np.broadcast_to(value, (3,))[i] for figure, value in together.items()}
        difference, figure = worst(ours, alone)
        assert difference < 1e-12, (name, figure)
