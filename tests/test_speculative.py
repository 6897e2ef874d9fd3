"""Speculative decoding: expected tokens against enumeration and simulation, and its two passes against their stages."""

import math
from typing import Any

import jax
import numpy as np
import pytest
from helpers import ZOO, big_platform, make_case, once, pick
from hypothesis import given, strategies as st

import genz_jax as gz
from genz_jax.serving.evaluate import Question
from genz_jax.serving.speculative import expected_tokens
from genz_jax.specs import assumptions
from genz_jax.specs.reasons import Reason

DEFAULT, GENZ = assumptions.default, assumptions.genz
PRESETS = {"default": DEFAULT, "genz": GENZ}
DRAFT, TOKENS, ACCEPTANCE = "llama-3.2-1b", 5.0, 0.7
WORKLOAD = gz.Workload(4, 900, 60)


def close(found: Any, expected: Any, rtol: float = 1e-12) -> None:
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=rtol)


def speculation(tokens: float = TOKENS, acceptance: float = ACCEPTANCE) -> gz.Speculation:
    return gz.Speculation(gz.model(DRAFT), tokens, acceptance)


@given(n=st.integers(1, 40), x=st.floats(0, 1))
def test_expected_tokens_is_the_sum_over_outcomes(n: int, x: float):
    # k tokens are accepted and the next is not, k = 0 … n − 1; or all n are.
    accepted = sum(k * x**k * (1 - x) for k in range(n)) + n * x**n
    found = float(expected_tokens(float(n), x))
    assert found == pytest.approx(min(n, 1 + accepted), rel=1e-9)


@pytest.mark.parametrize(("n", "x"), [(4, 0.0), (4, 1.0), (1, 0.5), (4, 1 - 1e-13), (4, 1e-300), (1000, 0.999999)])
def test_expected_tokens_at_its_limits(n: int, x: float):
    found = float(expected_tokens(float(n), x))
    explicit = min(n, 1 + math.fsum(x**k for k in range(1, n + 1)))
    assert found == pytest.approx(explicit, rel=1e-9)


@pytest.mark.parametrize(("n", "x"), [(4, 0.5), (8, 0.6), (3, 0.2)])
def test_expected_tokens_is_the_mean_of_simulated_steps(n: int, x: float):
    trials = 200_000
    drafts = np.random.default_rng(1).random((trials, n)) < x
    tokens = 1 + np.cumprod(drafts, axis=1).sum(axis=1)
    error = tokens.std() / math.sqrt(trials)
    assert tokens.mean() < n  # where the bound of n does not matter
    assert abs(float(expected_tokens(float(n), x)) - tokens.mean()) < 4 * error


@given(n=st.integers(1, 20), x=st.floats(0, 0.98), more=st.floats(0, 0.02))
def test_more_acceptance_and_more_drafts_never_give_fewer_tokens(n: int, x: float, more: float):
    assert float(expected_tokens(float(n), x + more)) >= float(expected_tokens(float(n), x)) - 1e-12
    assert float(expected_tokens(float(n + 1), x)) >= float(expected_tokens(float(n), x)) - 1e-12


@pytest.mark.parametrize("x", [0.0, 1e-9, 0.3, 0.9, 1.0 - 1e-9, 1.0])
def test_slope_of_expected_tokens(x: float):
    n = 4
    slope = float(jax.grad(expected_tokens, 1)(float(n), x))
    within = 1 + sum(x**k for k in range(1, n + 1)) < n
    expected = sum(k * x ** (k - 1) for k in range(1, n + 1)) if within else 0.0
    assert slope == pytest.approx(expected, rel=1e-6)


@pytest.fixture(scope="module", params=sorted(PRESETS))
def preset(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.slow
@pytest.mark.parametrize("pp", [1, 4])
def test_a_step_is_its_drafts_and_one_verification(preset: str, pp: int):
    physics, spread = PRESETS[preset], gz.Parallelism(2, 1, pp)
    f = once(
        make_case(pick(ZOO), workload=WORKLOAD, parallelism=spread, speculation=speculation()),
        Question("speculative_decode", physics),
    )
    draft = once(make_case(gz.model(DRAFT), workload=WORKLOAD, parallelism=spread), Question("decode", physics))
    full = once(make_case(pick(ZOO), workload=WORKLOAD, parallelism=spread), Question("decode", physics))
    close(f["draft_time"], np.broadcast_to(TOKENS * draft["latency"], f["draft_time"].shape))
    close(f["latency"], f["draft_time"] + f["full_time"])
    close(f["expected_tokens"], 1 + sum(ACCEPTANCE**k for k in range(1, 6)))
    close(f["throughput"], 4 * f["expected_tokens"] / f["batch_time"])
    close(f["weights"], full["weights"] + draft["weights"])
    close(f["kv_cache"], full["kv_cache"] + draft["kv_cache"])
    close(f["memory"], f["weights"] + f["kv_cache"] + f["activations"] + f["buffers"])
    # Micro-batches come back for their next step while others are on their way, at the pace of the slowest stage; the
    # published time fills and drains.
    if preset == "default" and pp > 1:
        assert np.all(f["batch_time"] >= f["latency"])
        assert np.all(f["batch_time"] < 2 * f["latency"])
    else:
        close(f["batch_time"], f["latency"] * (1 if preset == "default" else 1 + (pp - 1) / pp))
    assert np.all(f["full_time"] > 0)


def test_the_published_verification_is_a_chunk():
    workload = gz.Workload(1, 900, 60, prefill_chunks=(gz.specs.PrefillChunk(960, TOKENS),))
    case = make_case(pick(ZOO), workload=workload, speculation=speculation())
    verified = once(case, Question("speculative_decode", GENZ))["full_time"]
    # Few queries on a long context take the absorbed form of latent attention, which a prompt's chunk does not.
    absorbed = GENZ.replace(latent_form="absorbed")
    chunk = once(make_case(pick(ZOO), workload=workload), Question("chunked", absorbed))["latency"]
    close(verified, chunk)


@pytest.mark.first(1)
def test_prefill_is_that_of_both_models(preset: str):
    physics = PRESETS[preset]
    f = once(
        make_case(pick(ZOO), workload=WORKLOAD, speculation=speculation()), Question("speculative_prefill", physics)
    )
    full = once(make_case(pick(ZOO), workload=WORKLOAD), Question("prefill", physics))
    draft = once(make_case(gz.model(DRAFT), workload=WORKLOAD), Question("prefill", physics))
    close(f["full_time"], full["latency"])
    close(f["latency"], full["latency"] + draft["latency"])
    close(f["throughput"], 4 / f["batch_time"])
    for figure in ("weights", "kv_cache"):
        close(f[figure], full[figure] + draft[figure])
    for figure in ("activations", "buffers"):  # they take turns
        close(f[figure], np.maximum(full[figure], draft[figure]))
    close(f["memory"], sum(f[figure] for figure in ("weights", "kv_cache", "activations", "buffers")))
    close(f["energy"], full["energy"] + draft["energy"])


@pytest.mark.slow
def test_energy_of_a_step_is_that_of_its_passes():
    f = once(
        make_case(pick(ZOO), workload=WORKLOAD, speculation=speculation()), Question("speculative_decode", DEFAULT)
    )
    one = once(
        make_case(pick(ZOO), workload=WORKLOAD, speculation=speculation(1.0)), Question("speculative_decode", DEFAULT)
    )
    draft = once(make_case(gz.model(DRAFT), workload=WORKLOAD), Question("decode", DEFAULT))
    power = big_platform().power
    assert np.all(f["energy"] >= 0.3 * power * f["latency"] * (1 - 1e-12))
    assert np.all(f["energy"] <= power * f["latency"] * (1 + 1e-12))
    # From 1 to 5 drafted tokens: four more draft steps, and a verification of four more tokens.
    assert np.all(f["energy"] - one["energy"] >= 4 * draft["energy"])


def test_either_model_can_be_what_does_not_run():
    spread = gz.Parallelism(tp=3)
    three = gz.model(DRAFT).replace(**{"attention.heads": 33, "attention.kv_heads": 3})
    for full, draft in ((gz.model("llama-3.1-8b"), three), (three, gz.model("llama-3.1-8b"))):
        case = make_case(full, parallelism=spread, speculation=gz.Speculation(draft))
        f = once(case, Question("speculative_decode", DEFAULT))
        assert int(f["reason"]) == Reason.heads_not_divisible
        assert np.isnan(f["latency"])
    both = gz.model("llama-3.1-8b")
    for capacity, reason in ((17, Reason.does_not_fit), (40, Reason.feasible)):
        case = make_case(both, big_platform(mem_capacity=f"{capacity} GB"), speculation=gz.Speculation(both))
        assert int(once(case, Question("speculative_decode", DEFAULT))["reason"]) == reason


def test_speculative_stages_need_a_speculation_and_others_take_none():
    with pytest.raises(ValueError, match="needs speculation"):
        once(make_case(gz.model("gpt2")), Question("speculative_decode", DEFAULT))
    with pytest.raises(ValueError, match="takes no speculation"):
        once(make_case(gz.model("gpt2"), speculation=speculation()), Question("decode", DEFAULT))
