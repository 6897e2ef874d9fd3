"""Stages and requests: identities between their figures, forms that mean the same, and why points do not run."""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from helpers import ZOO, big_platform, chunks, make_case, once, pick, request_question, worst

import genz_jax as gz
from genz_jax.serving.evaluate import Question
from genz_jax.specs import assumptions
from genz_jax.specs.figures import Bound
from genz_jax.specs.reasons import Reason

DEFAULT, GENZ = assumptions.default, assumptions.genz
PRESETS = {"default": DEFAULT, "genz": GENZ}
WORKLOAD = gz.Workload(8, 1500, 120, 2)
SPREAD = gz.Parallelism(2, 1, 4)


def close(found: Any, expected: Any, rtol: float = 1e-12) -> None:
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=rtol)


@pytest.fixture(scope="module", params=sorted(PRESETS))
def preset(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def request_figures(preset: str) -> dict[str, np.ndarray]:
    case = make_case(pick(ZOO), workload=WORKLOAD, parallelism=SPREAD)
    return once(case, request_question(PRESETS[preset], operators=True))


@pytest.fixture(scope="module")
def chunked_figures(preset: str) -> dict[str, np.ndarray]:
    case = make_case(pick(ZOO), workload=gz.Workload(**chunks()), parallelism=SPREAD)
    return once(case, Question("chunked", PRESETS[preset], breakdown=True, operators=True))


def part_sum(found: dict[str, np.ndarray], figure: str) -> np.ndarray:
    return np.sum([np.broadcast_to(v, (len(ZOO),)) for k, v in found.items() if k.startswith(f"{figure}/")], axis=0)


@pytest.mark.slow
def test_a_request_is_prefill_and_decode_steps(preset: str, request_figures: dict[str, np.ndarray]):
    f, batch, output = request_figures, 8, 120
    steps = output - 1 if preset == "default" else output
    close(f["ttft"], f["prefill_batch_time"])
    close(f["tpot"], f["decode_batch_time"])
    close(f["latency"], f["ttft"] + steps * f["tpot"])
    close(f["throughput"], batch * output / f["latency"])
    close(f["throughput_per_device"], f["throughput"] / 8)
    close(f["interactivity"], 1 / f["tpot"])
    close(f["devices"], 8.0)
    close(f["energy"], f["prefill_energy"] + steps * f["decode_energy"])
    close(f["energy_per_token"], f["energy"] / (batch * output))
    close(f["kv_cache"], f["decode_kv_cache"])
    if preset == "genz":
        close(f["memory"], np.maximum(f["prefill_memory"], f["decode_memory"]))
    else:  # what the larger pass works with is set aside beside the cache at full length
        working = sum(np.maximum(f[f"prefill_{x}"], f[f"decode_{x}"]) for x in ("activations", "buffers"))
        close(f["memory"], f["weights"] + f["kv_cache"] + working)
    longer = np.where(steps * f["tpot"] > f["ttft"], f["decode_bound"], f["prefill_bound"])
    np.testing.assert_array_equal(f["bound"], longer)


def test_throughputs_are_completions_per_batch_time(request_figures: dict[str, np.ndarray]):
    for stage in ("prefill", "decode"):
        close(request_figures[f"{stage}_throughput"], 8 / request_figures[f"{stage}_batch_time"])


def test_memory_is_the_sum_of_its_parts(preset: str, request_figures: dict[str, np.ndarray]):
    for stage in ("prefill", "decode"):
        parts = [request_figures[f"{stage}_{part}"] for part in ("weights", "kv_cache", "activations", "buffers")]
        close(request_figures[f"{stage}_memory"], sum(parts))
        assert np.all(parts[2] > 0) == (preset == "default")


@pytest.mark.parametrize("prefix", ["prefill_", "decode_"])
def test_operators_and_components_make_up_a_stage(prefix: str, request_figures: dict[str, np.ndarray]):
    _check_parts(request_figures, prefix)


@pytest.mark.first(1)
def test_operators_and_components_make_up_a_chunked_iteration(chunked_figures: dict[str, np.ndarray]):
    _check_parts(chunked_figures, "")


def _check_parts(f: dict[str, np.ndarray], prefix: str) -> None:
    close(part_sum(f, f"{prefix}breakdown"), f[f"{prefix}latency"])
    for figure in ("latency", "compute_time", "memory_time", "network_time"):
        close(part_sum(f, f"{prefix}operator_{figure}"), f[f"{prefix}{figure}"])
    close(part_sum(f, f"{prefix}operator_flops"), f[f"{prefix}flop_count"])
    traffic = sum(part_sum(f, f"{prefix}operator_{tensor}_bytes") for tensor in ("input", "weight", "output"))
    close(traffic, f[f"{prefix}traffic"])
    # An operator takes the longest of its resources; a stage waits most for the one with the largest sum.
    waits = np.zeros((3, len(ZOO)))
    operators = [name.partition("/")[2] for name in f if name.startswith(f"{prefix}operator_latency/")]
    for name in operators:
        times = [
            np.broadcast_to(f[f"{prefix}operator_{resource}_time/{name}"], (len(ZOO),))
            for resource in ("compute", "memory", "network")
        ]
        latency = np.broadcast_to(f[f"{prefix}operator_latency/{name}"], (len(ZOO),))
        close(latency, np.max(times, axis=0))
        by_network = times[2] > 0
        bound = np.where(by_network, Bound.network, np.where(times[1] >= times[0], Bound.memory, Bound.compute))
        told = np.broadcast_to(f[f"{prefix}operator_bound/{name}"], (len(ZOO),))
        np.testing.assert_array_equal(told[latency > 0], bound[latency > 0])
        for resource in range(3):
            waits[resource] += np.where(bound == resource, latency, 0.0)
    close(waits.sum(axis=0), f[f"{prefix}latency"])
    runs = f[f"{prefix}feasible"]
    np.testing.assert_array_equal(f[f"{prefix}bound"], np.where(runs, waits.argmax(axis=0), Bound.none))


def test_energy_follows_the_busy_times():
    # Without vector operators, whose time at peak is not a figure of its own; nothing on chip counts by default.
    platform = big_platform(compute_efficiency=0.5, memory_efficiency=0.8, power=500.0)
    f = once(make_case(pick(ZOO), platform, WORKLOAD, SPREAD), Question("decode", DEFAULT))
    busy = 0.4 * f["compute_time"] * 0.5 + 0.2 * f["memory_time"] * 0.8 + 0.1 * f["network_time"]
    close(f["energy"], 500.0 * (0.3 * f["latency"] + busy) * 2 * 4)


@pytest.mark.first(2)
@pytest.mark.parametrize("pp", [1, 2, 3, 8])
def test_a_pipeline_sends_one_message_per_boundary(preset: str, pp: int):
    asked = Question("prefill", PRESETS[preset], operators=True)
    model, rows = gz.model("llama-3.1-8b"), 2 * 100
    found = once(make_case(model, workload=gz.Workload(2 * pp, 100), parallelism=gz.Parallelism(1, 1, pp)), asked)
    assert float(found["operator_repeats/pipeline.send"]) == pp - 1
    assert float(found["operator_message_bytes/pipeline.send"]) == (pp - 1) * rows * 4096 * 2
    one = 1e-6 + rows * 4096 * 2 / 450e9
    close(found["operator_latency/pipeline.send"], (pp - 1) * one)


def test_work_of_a_pipeline_is_that_of_all_layers():
    asked = Question("prefill", DEFAULT, ("latency", "network_time", "weights"))
    model = gz.model("llama-3.1-8b")
    alone = once(make_case(model, workload=gz.Workload(2, 100)), asked)
    split = once(make_case(model, workload=gz.Workload(8, 100), parallelism=gz.Parallelism(pp=4)), asked)
    close(split["latency"] - split["network_time"], alone["latency"])
    # A quarter of the layers, and the head with the last norm, on the fullest stage.
    ends = 2 * 128_256 * 4096 * 2 + 4096 * 2
    close(split["weights"], (alone["weights"] - ends) / 4 + 128_256 * 4096 * 2 + 4096 * 2)


def simulate_pipeline(times: list[float], batches: int, passes: int, again: bool) -> float:
    """Time of the last of `passes` rounds of micro-batches, where a stage works on one micro-batch at a time."""
    free, ready, end = [0.0] * len(times), [0.0] * batches, 0.0
    for _ in range(passes):
        for batch in range(batches):
            at = ready[batch] if again else 0.0
            for stage, time in enumerate(times):
                at = max(at, free[stage]) + time
                free[stage] = at
            ready[batch] = end = at
    return end


@pytest.mark.first(2)
@pytest.mark.parametrize(("pp", "micro"), [(1, 1), (4, 4), (4, 8), (4, 2), (4, 1), (1, 4)])
def test_batch_time_is_that_of_a_simulated_pipeline(pp: int, micro: int):
    model, batch = gz.model("llama-3.1-8b"), 16
    case = make_case(model, workload=gz.Workload(batch, 300, 50), parallelism=gz.Parallelism(1, 1, pp, micro))

    def stages(found: Mapping[str, Any]) -> list[float]:
        first, last = (float(found[f"breakdown/{name}"]) for name in ("embedding", "head"))
        times = [(float(found["latency"]) - first - last) / pp] * pp
        times[0] += first
        times[-1] += last
        return times

    prefill = once(case, Question("prefill", DEFAULT, breakdown=True))
    close(prefill["batch_time"], simulate_pipeline(stages(prefill), micro, 1, False))
    decode, rounds = once(case, Question("decode", DEFAULT, breakdown=True)), 400
    first, last = (simulate_pipeline(stages(decode), micro, passes, True) for passes in (rounds // 2, rounds))
    close(decode["batch_time"], (last - first) / (rounds - rounds // 2))


@pytest.mark.first(2)
@pytest.mark.parametrize(("batch", "pp"), [(1, 4), (3, 4), (7, 4), (10, 4), (5, 2)])
@pytest.mark.parametrize("stage", ["prefill", "decode"])
def test_micro_batches_serve_the_whole_batch_and_no_more(stage: str, batch: int, pp: int):
    # A batch that the stages do not divide is served all the same, and stages do not work on empty micro-batches.
    model = gz.model("llama-3.1-8b").replace(tied_embeddings=0)
    asked = Question(stage, DEFAULT, ("batch_time", "throughput", "latency", "energy"))
    platform = big_platform(mem_bw="1e30 B/s", flops="1 TFLOP/s", power_split=gz.specs.PowerSplit(0, 1, 0, 0))
    platform = platform.replace(**{"network.0.latency": 0, "network.0.bandwidth": "1e30 B/s"})
    whole = once(make_case(model, platform, gz.Workload(batch, 300, 50)), asked)
    split = once(make_case(model, platform, gz.Workload(batch, 300, 50), gz.Parallelism(pp=pp)), asked)
    # Compute alone takes time and energy: the same energy on any devices, and no more than pp times the rate.
    close(split["energy"], whole["energy"])
    assert float(split["throughput"]) <= pp * float(whole["throughput"]) * (1 + 1e-12)
    close(split["throughput"], batch / split["batch_time"])
    if batch == 1:
        close(split["batch_time"], split["latency"])


# -------------------------------------------------------------------------------------------------- chunked prefill


CHUNK_FORMS = {
    "n requests are n chunks of one": (
        {"decode_chunks": (gz.specs.DecodeChunk(3, 3, 700),)},
        {"decode_chunks": (gz.specs.DecodeChunk(1, 1, 700),) * 3},
    ),
    "beams of two prompts are two chunks": (
        {"decode_chunks": (gz.specs.DecodeChunk(2, 6, 700, 40),)},
        {"decode_chunks": (gz.specs.DecodeChunk(1, 3, 700, 40),) * 2},
    ),
    "chunks of nothing change nothing": (
        chunks(),
        {
            "prefill_chunks": (gz.specs.PrefillChunk(512, 128), gz.specs.PrefillChunk(0, 0)),
            "decode_chunks": (gz.specs.DecodeChunk(3, 6, 700, 40), gz.specs.DecodeChunk(0, 0, 0, 0)),
        },
    ),
    "order does not matter": (
        {"prefill_chunks": (gz.specs.PrefillChunk(0, 64), gz.specs.PrefillChunk(100, 32))},
        {"prefill_chunks": (gz.specs.PrefillChunk(100, 32), gz.specs.PrefillChunk(0, 64))},
    ),
}


@pytest.mark.first(1)
@pytest.mark.parametrize("form", sorted(CHUNK_FORMS))
def test_chunks_that_mean_the_same_take_the_same(form: str):
    asked = Question("chunked", DEFAULT, breakdown=True)
    first, second = (once(make_case(pick(ZOO), workload=gz.Workload(**given)), asked) for given in CHUNK_FORMS[form])
    for figures in (first, second):  # kernels apart need less at once
        for name in ("activations", "memory"):
            del figures[name]
    difference, figure = worst(first, second)
    assert difference < 1e-12, figure


def test_a_whole_prompt_as_one_chunk_is_prefill():
    kinds = list(ZOO)
    workload = gz.Workload(1, 700, 10, prefill_chunks=(gz.specs.PrefillChunk(0, 700),))
    found = [
        once(make_case(pick(kinds), workload=workload), Question(stage, DEFAULT)) for stage in ("prefill", "chunked")
    ]
    for figure in ("compute_time", "traffic", "weights", "kv_cache"):
        scan = [name in ("falcon-mamba-7b", "mamba2-2.7b", "jamba-1.5-mini", "nemotron-h-8b") for name in kinds]
        alike = ~np.array(scan) if figure == "traffic" else np.full(len(kinds), True)  # a chunk reads the earlier state
        close(found[1][figure][alike], found[0][figure][alike])


def test_decoding_requests_as_a_chunk_are_a_decode_step():
    # A chunk of n requests with a KV length of S + O is a decode step of a batch of n at its end.
    last = DEFAULT.replace(decode_position="last")
    workload = gz.Workload(5, 700, 40, decode_chunks=(gz.specs.DecodeChunk(5, 5, 740),))
    decode, chunk = (
        once(make_case(pick(ZOO), workload=workload), Question(stage, last)) for stage in ("decode", "chunked")
    )
    for figure in ("compute_time", "weights", "kv_cache"):
        close(chunk[figure], decode[figure])
    # No token of a decode chunk comes as an id here, so that the read of its embedding is not counted.
    assert np.all(np.abs(chunk["latency"] / decode["latency"] - 1) < 2e-3)


def test_chunked_throughput_counts_prompt_tokens_and_requests():
    given = {"prefill_chunks": (gz.specs.PrefillChunk(0, 100),), "decode_chunks": (gz.specs.DecodeChunk(64, 64, 700),)}
    f = once(make_case(gz.model("llama-3.1-8b"), workload=gz.Workload(**given)), Question("chunked", DEFAULT))
    close(f["throughput"], (100 + 64) / f["latency"])
    f = once(make_case(gz.model("llama-3.1-8b"), workload=gz.Workload(**given)), Question("chunked", GENZ))
    close(f["throughput"], (100 + 1) / f["latency"])


def test_a_chunked_stage_needs_a_chunk():
    with pytest.raises(ValueError, match="needs at least one chunk"):
        once(make_case(gz.model("gpt2")), Question("chunked", DEFAULT))


# ----------------------------------------------------------------------------------------------- what does not run


SMALL = gz.Platform(1e15, 1e12, "10 GB", network=(gz.specs.NetworkLevel(4, "100 GB/s"),))
IMPOSSIBLE: list[tuple[str, gz.Platform, gz.Parallelism, Reason]] = [
    ("llama-3.1-8b", big_platform(), gz.Parallelism(tp=3), Reason.heads_not_divisible),
    ("llama-3.1-8b", big_platform(), gz.Parallelism(tp=64), Reason.heads_not_divisible),
    ("gemma-3-27b", big_platform(), gz.Parallelism(tp=3), Reason.heads_not_divisible),
    ("deepseek-v3", big_platform(), gz.Parallelism(tp=3), Reason.heads_not_divisible),
    ("falcon-mamba-7b", big_platform(), gz.Parallelism(tp=3), Reason.heads_not_divisible),
    ("mamba2-2.7b", big_platform(), gz.Parallelism(tp=3), Reason.heads_not_divisible),
    ("mixtral-8x7b", big_platform(), gz.Parallelism(ep=16), Reason.experts_not_divisible),
    ("llama-3.1-8b", big_platform(), gz.Parallelism(ep=2), Reason.no_experts_for_ep),
    ("llama-3.1-8b", big_platform(), gz.Parallelism(pp=33), Reason.pp_beyond_layers),
    ("llama-3.1-8b", SMALL, gz.Parallelism(tp=8), Reason.network_too_small),
    ("llama-3.1-8b", SMALL, gz.Parallelism(tp=4, cp=2), Reason.network_too_small),
    ("llama-3.1-8b", SMALL, gz.Parallelism(tp=4, dp=2), Reason.feasible),
    ("llama-3.1-8b", big_platform(), gz.Parallelism(dp=3), Reason.dp_beyond_batch),
    ("llama-3.1-8b", big_platform(), gz.Parallelism(cp=101), Reason.cp_beyond_tokens),
    ("llama-3.1-8b", SMALL, gz.Parallelism(), Reason.does_not_fit),
    ("llama-3.1-8b", SMALL, gz.Parallelism(tp=4), Reason.feasible),
    ("llama-3.1-8b", SMALL.replace(offload_bw="10 GB/s"), gz.Parallelism(), Reason.feasible),
    ("llama-3.1-8b", big_platform(), gz.Parallelism(tp=32), Reason.feasible),
    ("mixtral-8x7b", big_platform(), gz.Parallelism(ep=8, pp=32), Reason.feasible),
]


@pytest.mark.first(1)
@pytest.mark.parametrize("stage", ["prefill", "decode", "request"])
@pytest.mark.parametrize(("name", "platform", "spread", "reason"), IMPOSSIBLE)
def test_points_that_do_not_run_say_why(stage: str, name: str, platform: gz.Platform, spread: gz.Parallelism, reason):
    # Alone, and in a list in which every kind of layer stands.
    for model in (gz.model(name), pick([name])):
        f = once(make_case(model, platform, gz.Workload(2, 100, 10), spread), Question(stage, DEFAULT))
        assert int(np.max(f["reason"])) == reason
        assert bool(np.all(f["feasible"])) == (reason is Reason.feasible)
        for figure in ("latency", "throughput", "energy"):
            assert bool(np.all(np.isfinite(f[figure]))) == (reason is Reason.feasible)
            assert bool(np.all(np.isnan(f[figure]))) == (reason is not Reason.feasible)
        for figure in ("weights", "kv_cache", "memory"):
            assert np.all(f[figure] > 0)


def test_the_published_rule_lets_shards_be_uneven():
    # ⌈8/3⌉ = 3 key-value heads do not divide ⌈32/3⌉ = 11 query heads; ⌈8/12⌉ = 1 divides ⌈32/12⌉ = 3.
    for tp, reason in ((3, Reason.heads_not_divisible), (12, Reason.feasible)):
        f = once(make_case(gz.model("llama-3.1-8b"), parallelism=gz.Parallelism(tp=tp)), Question("decode", GENZ))
        assert int(f["reason"]) == reason


def test_of_several_reasons_the_first_is_told():
    case = make_case(gz.model("llama-3.1-8b"), SMALL, parallelism=gz.Parallelism(3, 2, 40))
    assert int(once(case, Question("decode", DEFAULT))["reason"]) == Reason.heads_not_divisible


BROKEN: list[tuple[str, dict[str, float], Reason]] = [
    ("llama-3.1-8b", {"attention.kv_heads": 5}, Reason.kv_heads_not_divisible),
    ("gpt-oss-20b", {"local_attention.kv_heads": 5}, Reason.kv_heads_not_divisible),
    ("mixtral-8x7b", {"moe.top_k": 9}, Reason.top_k_beyond_experts),
]


@pytest.mark.first(1)
@pytest.mark.parametrize(("name", "changes", "reason"), BROKEN)
def test_models_that_cannot_be_say_why(name: str, changes: dict[str, float], reason: Reason):
    f = once(make_case(gz.model(name).replace(**changes)), Question("request", DEFAULT))
    assert int(f["reason"]) == reason
    assert np.isnan(f["latency"])
    # A part of no layers is at no fault.
    absent = {f"{path.partition('.')[0]}.layers": 0 for path in changes}
    f = once(make_case(gz.model(name).replace(**changes, **absent)), Question("request", DEFAULT))
    assert int(f["reason"]) == Reason.feasible


def test_all_reasons_are_tested():
    # Workloads that cannot be: tests/test_serving_physics.py and tests/test_sense.py; encoders: tests/test_encode.py.
    elsewhere = {Reason.cached_beyond_prompt, Reason.chunks_do_not_agree, Reason.no_head}
    assert {reason for *_, reason in [*IMPOSSIBLE, *BROKEN]} | elsewhere == set(Reason)


@pytest.mark.slow
def test_sharding_splits_weights_and_work_evenly():
    model, asked = gz.model("llama-3.1-8b"), Question("prefill", DEFAULT)
    found = [once(make_case(model, parallelism=gz.Parallelism(tp=tp)), asked) for tp in (1, 2, 4, 8)]
    norms = (2 * 32 + 1) * 4096 * 2
    for (one, two), tp in zip(itertools.pairwise(found), (2, 4, 8), strict=True):
        close(two["weights"] - norms, (one["weights"] - norms) / 2)
        close(two["kv_cache"], one["kv_cache"] / 2)
        close(two["compute_time"], found[0]["compute_time"] / tp)
        assert float(two["flop_count"]) < float(one["flop_count"])
