"""Data, context and expert parallelism: against the unsplit model, step-by-step simulations, and counts by hand."""

import itertools

import equinox as eqx
import jax
import numpy as np
import pytest
from helpers import ZOO, big_platform, make_case, once, pick, request_question, worst
from hypothesis import given, settings, strategies as st

import genz_jax as gz
from genz_jax.machine.execute import _beside
from genz_jax.machine.network import network_time
from genz_jax.machine.roofline import OperatorTime
from genz_jax.serving.evaluate import Question, slim
from genz_jax.specs import assumptions
from genz_jax.work.operators import collectives
from genz_jax.work.step import Segment

PRESETS = {"default": assumptions.default, "genz": assumptions.genz}
both = pytest.mark.parametrize("preset", sorted(PRESETS))
ATTENTION_ONLY = [name for name in ZOO if not any((m := gz.model(name), m.ssm, m.ssd, m.delta_net)[1:])]


def close(a, b, rtol: float = 1e-12):
    np.testing.assert_allclose(np.asarray(a, dtype=float), np.asarray(b, dtype=float), rtol=rtol)


# -------------------------------------------------------------------------------------------------- data parallelism


@pytest.mark.slow
@both
@pytest.mark.parametrize("replicas", [2, 3, 16])
def test_replicas_are_as_many_systems_side_by_side(preset: str, replicas: int):
    spread = gz.Parallelism(tp=2, pp=2)
    asked = request_question(PRESETS[preset])
    one = once(make_case(pick(ZOO), workload=gz.Workload(8, 300, 50), parallelism=spread), asked)
    many = make_case(pick(ZOO), workload=gz.Workload(8 * replicas, 300, 50), parallelism=spread.replace(dp=replicas))
    found = once(many, asked)
    times = 1.0 if preset == "genz" else replicas  # published energy is that of one device
    grows = {"throughput": replicas, "devices": replicas, "energy": times, "energy_per_token": times / replicas}
    for name, value in one.items():
        close(found[name], value * grows.get(name.removeprefix("prefill_").removeprefix("decode_"), 1.0))


def test_every_replica_runs_an_iteration_of_chunked_prefill():
    load = gz.Workload(
        prefill_chunks=(gz.specs.PrefillChunk(0, 512),), decode_chunks=(gz.specs.DecodeChunk(8, 8, 900),)
    )
    asked = Question("chunked", assumptions.default)
    one, two = (
        once(make_case(gz.model("llama-3.1-8b"), workload=load, parallelism=gz.Parallelism(dp=dp)), asked)
        for dp in (1, 2)
    )
    close(two["latency"], one["latency"])
    close(two["throughput"], 2 * one["throughput"])
    close(two["energy"], 2 * one["energy"])


# ----------------------------------------------------------------------------------------------- context parallelism


@pytest.mark.slow
@both
@pytest.mark.parametrize("stage", ["request", "chunked", "speculative_decode"])
def test_one_rank_is_no_context_parallelism_bit_for_bit(preset: str, stage: str):
    load = gz.Workload(4, 300, 50, 2)
    if stage == "chunked":
        load = load.replace(
            prefill_chunks=(gz.specs.PrefillChunk(9, 70),), decode_chunks=(gz.specs.DecodeChunk(2, 4, 30, 5),)
        )
    draft = gz.Speculation(gz.model("llama-3.2-1b"), 4, 0.8) if stage.startswith("spec") else None
    case = make_case(pick(ZOO), workload=load, parallelism=gz.Parallelism(2, 1, 2), speculation=draft)
    without = slim(case)
    assert without.parallelism.cp is None
    question = Question(stage, PRESETS[preset])
    # One process: XLA may order the operations of two programs in its own ways.
    asked, expected = once(case, question), once(without, question)
    assert worst(asked, expected)[0] == 0.0


def per_operator(name: str, stage: str, preset: str, cp: int, **changes) -> dict[str, np.ndarray]:
    load = gz.Workload(4, 1024, 64).replace(**changes)
    case = make_case(gz.model(name), workload=load, parallelism=gz.Parallelism(tp=2, cp=cp))
    return once(case, Question(stage, PRESETS[preset], operators=True))


@pytest.mark.first(1)
@both
@pytest.mark.parametrize("name", ZOO)
def test_ranks_share_the_flops_of_a_prompt(name: str, preset: str):
    whole = per_operator(name, "prefill", preset, 1)
    for cp in (2, 8):
        part = per_operator(name, "prefill", preset, cp)
        for key, flops in whole.items():
            if not key.startswith("operator_flops/"):
                continue
            # Only one rank has the last token of a prompt, of which `default` samples.
            alone = key.endswith("/head") and PRESETS[preset].last_token_head
            # The published analyser takes whole tokens per expert.
            whole_tokens = "/moe." in key and preset == "genz"
            close(part[key] * (1 if alone else cp), flops, 0.05 if whole_tokens else 1e-12)


@pytest.mark.first(1)
@both
@pytest.mark.parametrize("name", ATTENTION_ONLY)
def test_ranks_share_the_cache_and_the_attention_of_decode(name: str, preset: str):
    whole, part = (per_operator(name, "decode", preset, cp) for cp in (1, 4))
    close(part["kv_cache"] * 4, whole["kv_cache"])
    close(part["weights"], whole["weights"])
    for key, flops in whole.items():
        if key.startswith("operator_flops/"):
            core = key.endswith(("scores", "values", "attention"))
            close(part[key] * (4 if core else 1), flops)
    prompt, split = (per_operator(name, "prefill", preset, cp) for cp in (1, 4))
    close(split["kv_cache"] * 4, prompt["kv_cache"])


@pytest.mark.slow
@both
def test_more_ranks_never_need_more_memory(preset: str):
    sizes = 2.0 ** np.arange(8)
    for i in range(len(ZOO)):
        case = make_case(gz.model(ZOO[i]), workload=gz.Workload(4, 4096, 64), parallelism=gz.Parallelism(cp=sizes))
        found = once(case, Question("request", PRESETS[preset]))
        assert np.all(np.diff(found["memory"]) <= 0)
        assert np.all(found["feasible"])


def test_long_prompts_are_faster_on_more_ranks():
    case = make_case(gz.model("llama-3.1-8b"), workload=gz.Workload(1, 131072, 64), parallelism=gz.Parallelism(tp=8))
    ttft = []
    for cp in (1, 2, 4, 8):
        spread = eqx.tree_at(lambda c: c.parallelism, case, gz.Parallelism(tp=8, cp=cp))
        ttft.append(float(once(spread, Question("request", assumptions.default))["ttft"]))
    for slow, fast in itertools.pairwise(ttft):
        assert slow / 2 <= fast < slow


@given(ranks=st.integers(1, 16), chunk=st.integers(1, 50))
def test_dealt_out_queries_have_equal_shares_of_a_causal_prompt(ranks: int, chunk: int):
    # Rank i has chunks i and 2n − 1 − i of the 2n that a prompt is cut into (arXiv 2411.01783).
    length = 2 * ranks * chunk
    sees = np.arange(1, length + 1)
    segment = Segment("", True, 1.0, float(length), float(length), prompt=True, parts=float(ranks))
    context, pairs = segment.seen(None, assumptions.default)
    for rank in range(ranks):
        mine = np.r_[rank * chunk : (rank + 1) * chunk, length - (rank + 1) * chunk : length - rank * chunk]
        assert float(pairs) == pytest.approx(sees[mine].sum(), rel=1e-12)
        assert float(segment.own_queries) == len(mine)
    assert float(context) == length


@given(
    ranks=st.integers(2, 12),
    attention=st.floats(1e-6, 1e-2),
    one_pass=st.floats(1e-6, 1e-2),
)
def test_a_ring_beside_attention_takes_the_time_of_its_steps(ranks: int, attention: float, one_pass: float):
    clock = 0.0
    for step in range(ranks):  # while it attends to one block a rank receives the next
        clock += max(attention / ranks, one_pass if step < ranks - 1 else 0.0)
    time = OperatorTime(0.0, 0.0, (ranks - 1) * one_pass, (ranks - 1) * one_pass)
    exposed = _beside(time, [0.25 * attention, 0.75 * attention], float(ranks))
    assert attention + float(exposed.latency) == pytest.approx(clock, rel=1e-9)
    assert float(exposed.network) == time.network


@pytest.mark.parametrize(("ranks", "stride"), [(2, 1), (8, 1), (8, 4), (16, 2), (3, 8)])
def test_a_pass_waits_for_the_slowest_link_between_neighbours(ranks: int, stride: int):
    levels = [(8, 450e9, 1e-6), (64, 50e9, 5e-6), (4096, 12e9, 2e-5)]
    platform = gz.Platform(1e15, 1e12, 1e11, network=tuple(gz.specs.NetworkLevel(*level) for level in levels))
    block = 3e6
    op = collectives.ring("r", "attention_collectives", elements=block, ranks=ranks, precision=gz.Precision("fp8"),
                        stride=stride)  # fmt: skip
    hops = []
    for rank in range(ranks):
        here, there = rank * stride, (rank + 1) % ranks * stride
        joins = next((bandwidth, delay) for size, bandwidth, delay in levels if here // size == there // size)
        hops.append(joins[1] + block / joins[0])
    close(network_time(op, platform), max(hops))
    close(op.repeats, ranks - 1)


def test_blocks_and_outputs_that_ranks_send():
    model, cp, load = gz.model("llama-3.1-8b"), 4, gz.Workload(3, 8192, 100)
    case = make_case(model, workload=load, parallelism=gz.Parallelism(tp=2, cp=cp))
    found = once(case, Question("request", assumptions.default, operators=True))
    keys_and_values = 3 * 8192 / cp * (8 / 2) * 2 * 128 * 2
    close(found["prefill_operator_message_bytes/attention.pass_keys"], 32 * (cp - 1) * keys_and_values)
    close(found["decode_operator_message_bytes/attention.combine_outputs"], 32 * 3 * (32 / 2) * (128 + 1) * 2)
    # Of a window of 1,024 tokens in blocks of 2,048 a rank needs the nearest alone, from one neighbour.
    local = gz.model("gemma-3-27b")
    found = once(eqx.tree_at(lambda c: c.model, case, local), Question("prefill", assumptions.default, operators=True))
    part = local.local_attention
    assert part is not None
    assert float(part.window) == 1024
    sent = 3 * 1024 * float(part.kv_heads) / 2 * 2 * float(part.head_dim) * 2
    close(found["operator_message_bytes/local_attention.pass_keys"], float(part.layers) * sent)


@pytest.mark.slow
@settings(max_examples=settings().max_examples // 10)
@given(seed=st.integers(0, 2**16))
def test_gradients_with_context_parallelism_are_finite(seed: int):
    rng = np.random.default_rng(seed)
    platform = big_platform(link_bw=float(np.exp(rng.uniform(np.log(1e9), np.log(1e12)))))
    spread = gz.Parallelism(tp=2, cp=int(rng.choice([1, 2, 8])), dp=2)
    case = make_case(gz.model("llama-3.1-8b"), platform, gz.Workload(4, 4096, 64), spread)
    from genz_jax.serving.evaluate import evaluate

    def latency(chip: gz.Platform) -> jax.Array:
        result = evaluate(eqx.tree_at(lambda c: c.platform, case, chip), Question("request", assumptions.default))
        return result.latency  # type: ignore[attr-defined]

    slopes = jax.grad(latency)(jax.tree.map(jax.numpy.asarray, platform))
    assert all(np.isfinite(leaf) for leaf in jax.tree.leaves(slopes))
    assert float(slopes.mem_bw) < 0


# ------------------------------------------------------------------------------------------------ expert parallelism


@pytest.mark.first(1)
@pytest.mark.parametrize(("tp", "ep"), [(1, 8), (2, 4), (4, 2)])
def test_ranks_dispatch_their_own_tokens_and_gather_the_results(tp: int, ep: int):
    load = gz.Workload(2, 512, 16)
    case = make_case(gz.model("mixtral-8x7b"), workload=load, parallelism=gz.Parallelism(tp=tp, ep=ep))
    found = once(case, Question("prefill", assumptions.default, operators=True))
    own, hidden, layers = 2 * 512 // ep, 4096, 32
    # Every token that a rank has goes, two bytes an element, to two experts and back.
    for name in ("dispatch", "combine"):
        close(found[f"operator_message_bytes/moe.{name}"], layers * own * 2 * hidden * 2)
    close(found["operator_message_bytes/moe.all_gather"], layers * ep * own * hidden * 2)
    close(found["operator_message_bytes/moe.all_reduce"], layers * own * hidden * 2 * (tp > 1))
    close(found["operator_flops/moe.router"], layers * 2 * own * hidden * 8)
    published = once(case, Question("prefill", assumptions.genz, operators=True))
    close(published["operator_message_bytes/moe.dispatch"], layers * own * ep * 2 * hidden * 2)
    assert "operator_message_bytes/moe.all_gather" not in published


def test_a_rank_without_tokens_of_its_own_still_waits_for_one():
    case = make_case(gz.model("mixtral-8x7b"), workload=gz.Workload(1, 512, 16), parallelism=gz.Parallelism(ep=8))
    found = once(case, Question("decode", assumptions.default, operators=True))
    close(found["operator_message_bytes/moe.dispatch"], 32 * 1 * 2 * 4096 * 2)


def test_the_messages_of_large_expert_parallelism_do_not_grow():
    model, asked = gz.model("deepseek-v3"), Question("decode", assumptions.default, operators=True)
    sent = []
    for ep in (2, 8, 32, 128):
        case = make_case(model, workload=gz.Workload(1024, 512, 16), parallelism=gz.Parallelism(ep=ep))
        sent.append(float(once(case, asked)["operator_message_bytes/moe.dispatch"]))
    for few, many in itertools.pairwise(sent):
        close(many, few / 4)


@pytest.mark.slow
def test_the_command_line_has_replicas_and_context_parallelism():
    import json

    from typer.testing import CliRunner

    from genz_jax.cli import app

    line = "estimate -m llama-3.1-8b -p GB200 --tp 2 --cp 4 --dp 2 --batch 8 --input 32768 --json"
    found = json.loads(CliRunner().invoke(app, line.split(), catch_exceptions=False).stdout)
    expected = gz.estimate("llama-3.1-8b", "GB200", gz.Workload(8, 32768), gz.Parallelism(2, cp=4, dp=2))
    assert found["devices"] == 16
    assert found["figures"]["ttft"]["value"] == pytest.approx(float(expected.ttft))
