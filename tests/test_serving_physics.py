"""Prefix caching, imbalance of experts, forms of latent attention and multi-token prediction, against closed forms."""

import numpy as np
import pytest
from helpers import ZOO, big_platform, make_case, once

import genz_jax as gz
from genz_jax.serving.evaluate import Question
from genz_jax.specs.assumptions import Assumptions
from genz_jax.work.prediction_module import prediction_module

DEFAULT, GENZ = Assumptions.default, Assumptions.genz


def figures(model, stage, workload, assumptions=DEFAULT, platform=None, speculation=None, **spread):
    case = make_case(gz.model(model), platform, workload, gz.Parallelism(**spread), speculation=speculation)
    question = Question(stage, assumptions, operators=speculation is None)
    return {name: np.asarray(value) for name, value in once(case, question).items()}


# ------------------------------------------------------------------------------------------------- prefix caching


@pytest.mark.first(1)
@pytest.mark.parametrize(
    ("name", "fused"),
    [
        ("llama-3.1-8b", False),
        *((name, True) for name in ("gemma-3-27b", "mixtral-8x7b", "deepseek-v3", "falcon-mamba-7b")),
    ],
)
def test_a_cached_prefix_leaves_the_work_of_a_chunk_behind_it(name: str, fused: bool):
    # Where every prompt hits, prefill is the chunk of the rest behind the cached tokens, whose one request it is.
    physics = DEFAULT.replace(fused_attention=fused)
    hit = figures(name, "prefill", gz.Workload(1, 3000, cached_tokens=1000), physics)
    chunk = figures(name, "chunked", gz.Workload(prefill_chunks=(gz.specs.PrefillChunk(1000, 2000),)), physics)
    for figure in ("flop_count", "latency", "compute_time"):
        assert float(hit[figure]) == pytest.approx(float(chunk[figure]), rel=1e-12), figure


@pytest.mark.first(1)
@pytest.mark.parametrize("assumptions", [DEFAULT, GENZ], ids=["default", "genz"])
@pytest.mark.parametrize("name", ["llama-3.1-8b", "gpt-oss-20b", "jamba-1.5-mini"])
def test_hits_mix_whole_and_cached_prompts(name: str, assumptions: Assumptions):
    def flops(**cache) -> float:
        return float(figures(name, "prefill", gz.Workload(8, 2048, **cache), assumptions)["flop_count"])

    none, every = flops(), flops(cached_tokens=1024)
    assert flops(cached_tokens=1024, cache_hit_rate=0.25) == pytest.approx(0.75 * none + 0.25 * every, rel=1e-9)
    assert flops(cached_tokens=1024, cache_hit_rate=0.0) == pytest.approx(none, rel=1e-12)
    assert flops(cached_tokens=0) == pytest.approx(none, rel=1e-12)
    assert every < 0.6 * none


@pytest.mark.slow
def test_more_hits_are_never_slower_and_decode_does_not_care():
    times = [
        figures("llama-3.1-70b", "request", gz.Workload(16, 4096, 64, cached_tokens=3000, cache_hit_rate=rate), tp=8)
        for rate in (0.0, 0.3, 0.9, 1.0)
    ]
    ttft = [float(t["ttft"]) for t in times]
    assert ttft == sorted(ttft, reverse=True)
    assert len({float(t["tpot"]) for t in times}) == 1


@pytest.mark.slow
def test_a_prompt_that_is_cached_whole_has_no_figures_and_says_why():
    workload = gz.Workload(4, 512, 8, cached_tokens=gz.axis([0, 511, 512, 600]))
    ds = gz.sweep("llama-3.1-8b", "H100-SXM", workload, progress=False)
    assert ds.feasible.values.tolist() == [True, True, False, False]
    assert gz.words(ds.reason).values.tolist()[2:] == ["cached_beyond_prompt"] * 2
    with pytest.raises(ValueError, match=r"Workload\.cached_tokens = 512: .*511"):
        gz.estimate("llama-3.1-8b", "H100-SXM", gz.Workload(4, 512, 8, cached_tokens=512))


# ----------------------------------------------------------------------------------------- imbalance of experts


def test_the_busiest_rank_sets_the_time_of_experts_and_messages():
    # 8 ranks, the busiest with 1.5 times its share: GEMMs of experts and all-to-alls take 1.5 times as long.
    workload = gz.Workload(8, 4096, 16)
    platform = big_platform(mem_bw="1000 TB/s", collective_overhead=0.0, **{"network.0.latency": 0.0})
    even, uneven = (
        figures("mixtral-8x7b", "prefill", workload, platform=platform, ep=8, expert_imbalance=busy)
        for busy in (1.0, 1.5)
    )
    for name in ("moe.up_gate_proj", "moe.down_proj", "moe.dispatch", "moe.combine"):
        figure = f"operator_latency/{name}"
        assert float(uneven[figure]) == pytest.approx(1.5 * float(even[figure]), rel=1e-9), name
    for name in ("attention.qkv_proj", "moe.router", "moe.all_gather"):
        assert float(uneven[f"operator_latency/{name}"]) == float(even[f"operator_latency/{name}"]), name


@pytest.mark.first(1)
@pytest.mark.parametrize("ep", [1, 2])
def test_a_rank_cannot_have_more_than_all_tokens(ep: int):
    most, more = (
        float(figures("mixtral-8x7b", "prefill", gz.Workload(2, 512), ep=ep, expert_imbalance=busy)["latency"])
        for busy in (float(ep), 50.0)
    )
    assert most == more


def test_an_imbalance_below_one_is_refused():
    with pytest.raises(ValueError, match=r"Parallelism\.expert_imbalance = 0\.5: must be finite and 1 or more"):
        gz.Parallelism(expert_imbalance=0.5)


# --------------------------------------------------------------------------------- forms of latent attention


def test_both_forms_of_latent_attention_have_the_flops_of_their_papers():
    # DeepSeek-V2, arXiv 2405.04434: 128 heads of 128 + 64 and 128; latent of 512 with 64 rotated.
    heads, nope, rope, value, latent, layers = 128, 128, 64, 128, 512, 61
    batch, prompt, output = 4, 1000, 1
    context = prompt + output
    flops = {}
    for form in ("naive", "absorbed"):
        found = figures("deepseek-v3", "decode", gz.Workload(batch, prompt, output), DEFAULT.replace(latent_form=form))
        flops[form] = sum(
            float(value)
            for name, value in found.items()
            if name.startswith("operator_flops/latent_attention")
            and name.split(".")[-1] in ("attention", "kv_up_proj", "q_absorb", "v_absorb")
        )
    expanded = 2 * batch * context * latent * heads * (nope + value)
    naive = 2 * batch * heads * context * (nope + rope + value) + expanded
    absorbed = 2 * batch * heads * (context * (2 * latent + rope) + latent * (nope + value))
    assert flops["naive"] == pytest.approx(layers * naive, rel=1e-12)
    assert flops["absorbed"] == pytest.approx(layers * absorbed, rel=1e-12)


@pytest.mark.first(1)
@pytest.mark.parametrize(("stage", "form"), [("prefill", "naive"), ("decode", "absorbed")])
def test_the_form_of_a_stage_is_the_cheaper_one(stage: str, form: str):
    workload = gz.Workload(8, 4096, 64)
    times = {
        name: float(figures("deepseek-v3", stage, workload, DEFAULT.replace(latent_form=name))["latency"])
        for name in ("by stage", "naive", "absorbed")
    }
    assert times["by stage"] == times[form] == min(times.values())
    assert len(set(times.values())) == 2


def test_the_up_projection_is_held_once_where_a_pass_has_both_forms():
    both = gz.Workload(prefill_chunks=(gz.specs.PrefillChunk(0, 64),), decode_chunks=(gz.specs.DecodeChunk(4, 4, 500),))
    alone = gz.Workload(decode_chunks=(gz.specs.DecodeChunk(4, 4, 500),))
    weights = [float(figures("deepseek-v3", "chunked", w)["weights"]) for w in (both, alone)]
    assert weights[0] == pytest.approx(weights[1], rel=1e-12)


# ------------------------------------------------------------------------------------ multi-token prediction


@pytest.mark.first(1)
@pytest.mark.parametrize("acceptance", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("tokens", [1, 3])
def test_a_step_of_multi_token_prediction_gives_the_expected_tokens(tokens: int, acceptance: float):
    speculation = gz.Speculation(None, tokens, acceptance)
    found = figures("deepseek-v3", "speculative_decode", gz.Workload(32, 1000, 100), speculation=speculation, tp=8)
    expected = 1 + sum(acceptance**k for k in range(1, tokens + 1))
    assert float(found["expected_tokens"]) == pytest.approx(expected, rel=1e-9)


@pytest.mark.slow
def test_requests_take_the_time_of_speculative_steps():
    workload, speculation = gz.Workload(32, 1000, 100), gz.Speculation(None, 1, 0.85)
    request = figures("deepseek-v3", "request", workload, speculation=speculation, tp=8)
    first = figures("deepseek-v3", "speculative_prefill", workload, speculation=speculation, tp=8)
    step = figures("deepseek-v3", "speculative_decode", workload, speculation=speculation, tp=8)
    tpot = float(step["batch_time"]) / 1.85
    assert float(request["ttft"]) == pytest.approx(float(first["batch_time"]), rel=1e-12)
    assert float(request["tpot"]) == pytest.approx(tpot, rel=1e-9)
    assert float(request["latency"]) == pytest.approx(float(first["batch_time"]) + 99 * tpot, rel=1e-9)


def test_the_module_adds_its_own_weights_and_one_layer_of_cache():
    # Published: 671 B without and 685 B with the module, whose copies of embedding and head are the model's own.
    model = gz.model("deepseek-v3")
    count = gz.parameter_count(model)
    assert float(count.mtp) == pytest.approx(685e9 - 671.03e9 - 2 * 129280 * 7168, rel=0.1)
    workload = gz.Workload(4, 500, 20)
    plain = once(make_case(model, workload=workload), Question("decode", DEFAULT, ("weights", "kv_cache")))
    case = make_case(model, workload=workload, speculation=gz.Speculation(None, 1))
    own = once(case, Question("speculative_decode", DEFAULT, ("weights", "kv_cache")))
    assert float(own["weights"] - plain["weights"]) == pytest.approx(2 * float(count.mtp), rel=1e-6)
    assert float(own["kv_cache"] / plain["kv_cache"]) == pytest.approx(62 / 61, rel=1e-9)


def test_a_module_is_one_block_of_the_models_kind():
    for name in ZOO:
        model = gz.model(name)
        module = prediction_module(model)
        mixing = [part.layers for part in (module.attention, module.local_attention, module.latent_attention,
                                           module.ssm, module.ssd) if part is not None]  # fmt: skip
        assert float(sum(mixing)) == 1.0
        feeding = [part.layers for part in (module.ffn, module.moe) if part is not None]
        assert float(sum(feeding)) <= 1.0
        if model.moe is not None:
            assert module.moe is not None
            assert float(module.moe.layers) == 1.0


def test_a_model_without_a_module_cannot_draft_for_itself():
    with pytest.raises(ValueError, match=r"llama-3\.1-8b has no module for multi-token prediction"):
        gz.sweep(["deepseek-v3", "llama-3.1-8b"], "B200", speculation=gz.Speculation(), stage="request")
