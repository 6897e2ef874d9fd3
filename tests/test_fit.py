"""What fits: requests and tokens beside feasibility point by point, fewest devices beside every deployment of fewer."""

import itertools
import json

import numpy as np
import pytest
from typer.testing import CliRunner

import genz_jax as gz
from genz_jax.cli import app

LOAD = gz.Workload(1, 1024, 128)


def feasible(model: str, load: gz.Workload, *rest, **options) -> bool:
    return bool(gz.estimate(model, "H100-SXM", load, *rest, stage="memory", **options).feasible)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "spread", "engine"),
    [
        ("llama-3.1-70b", gz.Parallelism(tp=4), gz.Engine()),
        ("llama-3.1-8b", gz.Parallelism(dp=2), gz.Engine(2048, max_sequences=512)),
        pytest.param("gemma-3-27b", gz.Parallelism(tp=2, pp=2), gz.Engine(), marks=pytest.mark.slow),
        pytest.param("qwen3-next-80b-a3b", gz.Parallelism(tp=4), gz.Engine(), marks=pytest.mark.slow),
    ],
)
def test_one_request_more_on_each_replica_does_not_fit(model, spread, engine):
    found = gz.fit(model, "H100-SXM", LOAD.replace(batch=4), spread, engine=engine)
    replicas = int(spread.dp)
    assert found.fits
    assert found.largest_batch % replicas == 0
    assert feasible(model, LOAD.replace(batch=found.largest_batch), spread, engine=engine)
    assert not feasible(model, LOAD.replace(batch=found.largest_batch + replicas), spread, engine=engine)
    # The activations of one request more may be what does not fit, so that there may be room for a cache more.
    assert found.largest_batch <= found.concurrency < found.largest_batch + 2 * replicas


def test_tokens_are_the_bytes_that_are_left_over_those_of_a_token():
    # Llama 3.1 8B: 8,030,261,248 parameters and 131,072 bytes of cache a token in bf16.
    found = gz.fit("llama-3.1-8b", "H100-SXM", gz.Workload(1, 2048 - 16, 16))
    held = gz.estimate("llama-3.1-8b", "H100-SXM", gz.Workload(found.largest_batch, 2048 - 16, 16), stage="memory")
    room = found.usable - 2 * 8_030_261_248 - float(held.activations)
    assert found.kv_tokens == pytest.approx(room / 131_072, abs=1)
    assert found.share == pytest.approx(found.memory / found.usable)
    assert found.capacity == float(gz.platform("H100-SXM").mem_capacity)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "batch"), [("llama-3.1-70b", 1), ("mixtral-8x7b", 2), ("llama-3.1-70b", 100)])
def test_no_deployment_on_fewer_devices_fits(model: str, batch: int):
    load = LOAD.replace(batch=batch)
    found = gz.fit(model, "H100-SXM", load)
    assert found.least is not None
    assert found.least_devices is not None
    assert feasible(model, load, found.least)
    for devices in range(1, found.least_devices):
        for tp, ep, pp in itertools.product(range(1, devices + 1), repeat=3):
            if devices % (tp * ep * pp):
                continue
            spread = gz.Parallelism(tp, ep, pp, dp=devices // (tp * ep * pp))
            try:
                assert not feasible(model, load, spread)
            except ValueError:
                continue


def test_what_fits_nowhere_is_told():
    huge = gz.model("llama-3.1-8b").replace(hidden_size=2**22)
    found = gz.fit(huge, gz.platform("H100-SXM").replace(mem_capacity="1 GB"))
    assert found.least is None
    assert "4,096 devices" in str(found)


def run(*args: str):
    return CliRunner().invoke(app, [*args])


@pytest.mark.slow
def test_estimate_tells_what_fits_and_ends_with_1_where_nothing_does():
    good = run("estimate", "-m", "llama-3.1-8b", "-p", "H100-SXM", "--batch", "32")
    assert good.exit_code == 0
    found = gz.fit("llama-3.1-8b", "H100-SXM", LOAD.replace(batch=32))
    for text in str(found).splitlines():
        assert text in good.stdout
    bad = run("estimate", "-m", "llama-3.1-70b", "-p", "H100-SXM")
    assert bad.exit_code == 1
    assert "fits on 2 devices (tp 2)" in bad.stdout
    bounds = [line.split()[1] for line in bad.stdout.splitlines() if "bound" in line.split("  ")[0]]
    assert bounds == ["–"] * 3
    tree = json.loads(run("estimate", "-m", "llama-3.1-70b", "-p", "H100-SXM", "--json").stdout)
    assert tree["fit"]["least_devices"] == 2
    assert tree["fit"]["least"]["tp"] == 2
    assert tree["figures"]["bound"]["value"] == "none"


# ---------------------------------------------------------------------------------------------- longest context


@pytest.mark.slow
def test_a_context_beyond_the_models_maximum_is_told(tmp_path):
    # Llama 3.1 was made for 131,072 tokens (its config's max_position_embeddings).
    with pytest.warns(gz.ContextWarning, match=r"context of 131,073 tokens: llama-3.1-8b was made for 131,072"):
        gz.estimate("llama-3.1-8b", "H100-SXM", gz.Workload(1, 131_072, 1))
    lengths = gz.Workload(1, gz.axis([1000, 200_000]), 10)
    with pytest.warns(gz.ContextWarning):
        dataset = gz.sweep(["llama-3.1-8b", "llama-2-7b"], "H100-SXM", lengths, progress=False)
    assert json.loads(dataset.attrs["context_beyond_maximum"]) == {
        "model": "llama-3.1-8b, llama-2-7b", "maximum": 4096, "asked": 200_010,
    }  # fmt: skip
    within = gz.sweep("llama-3.1-8b", "H100-SXM", gz.Workload(1, 131_071, 1), progress=False)
    assert "context_beyond_maximum" not in within.attrs
    told = run("estimate", "-m", "gpt2", "-p", "H100-SXM", "--input", "2000", "--output", "48", "--json")
    assert json.loads(told.stdout)["context_beyond_maximum"] == {
        "model": "gpt2", "maximum": 1024, "asked": 2048,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("keys", "maximum"),
    [
        ({"max_position_embeddings": 131072, "rope_scaling": {"rope_type": "llama3", "factor": 8.0,
          "original_max_position_embeddings": 8192}}, 131_072),  # Llama 3.1
        ({"max_position_embeddings": 163840, "rope_scaling": {"type": "yarn", "factor": 40,
          "original_max_position_embeddings": 4096}}, 163_840),  # DeepSeek-V3
        ({"max_position_embeddings": 32768, "rope_scaling": {"type": "yarn", "factor": 4.0}}, 131_072),  # Qwen2.5
        ({"max_position_embeddings": 4096, "rope_scaling": {"type": "linear", "factor": 2.0}}, 8192),
        ({}, None),
    ],
)  # fmt: skip
def test_the_maximum_of_a_config_is_the_one_that_engines_take(tmp_path, keys, maximum):
    config = {"model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
              "num_attention_heads": 4, "vocab_size": 100} | keys  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert gz.model(str(tmp_path)).label.max_context == maximum


# ---------------------------------------------------------------------------------- the largest batch of a search


@pytest.mark.slow
@pytest.mark.parametrize(
    "seed", [0, 1, pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)]
)
def test_a_search_tries_the_largest_batch_that_meets_the_limits(seed: int):
    rng = np.random.default_rng(seed)
    load = gz.Workload(1, int(rng.integers(200, 3000)), int(rng.integers(10, 300)))
    slo = gz.SLO(tpot=float(rng.uniform(0.006, 0.03)), ttft=float(rng.uniform(0.2, 2.0)))
    found = gz.search("llama-3.1-8b", "H100-SXM", load, chips=2, precision="fp8", slo=slo, progress=False)
    batches = np.arange(1, 1200)
    for spread in (gz.Parallelism(tp=2), gz.Parallelism(dp=2)):
        swept = gz.sweep(
            "llama-3.1-8b", "H100-SXM", load.replace(batch=gz.axis(batches)), spread, "fp8", progress=False
        )
        good = (swept.ttft <= float(slo.ttft)) & (swept.tpot <= float(slo.tpot)) & swept.feasible
        best = int(batches[good.values & (batches % int(spread.dp) == 0)].max())
        same = (found.dataset.tp == float(spread.tp)) & (found.dataset.pp == 1)
        assert int(found.dataset.batch[same & found.dataset.meets_slo].max()) == best


@pytest.mark.slow
def test_every_stage_has_tokens_per_device_and_a_price():
    for stage, tokens in (("prefill", 700), ("decode", 1)):
        found = gz.search("llama-3.1-8b", "H100-SXM", gz.Workload(1, 700, 60), chips=2, stage=stage, cost=3.6,
                          batch=[8], progress=False)  # fmt: skip
        rate = found.dataset.throughput * tokens
        np.testing.assert_allclose(found.dataset.throughput_per_device, rate / 2)
        np.testing.assert_allclose(found.dataset.cost_per_million_tokens, 2 * 3.6 / 3600 / rate * 1e6)
        free = gz.search("llama-3.1-8b", "H800", chips=2, stage=stage, batch=[8], progress=False)
        np.testing.assert_allclose(free.dataset.cost_per_hour, 2 * float(gz.cost("H800").cost_per_hour))


@pytest.mark.slow
def test_a_search_that_finds_nothing_ends_with_1_and_names_the_limit():
    common = ["search", "-m", "llama-3.1-8b", "-p", "H100-SXM", "--chips", "1", "--batch", "8"]
    missed = run(*common, "--slo", "tpot=1ms", "--slo", "ttft=100s")
    assert missed.exit_code == 1
    assert "has tpot" in missed.stdout
    assert "at most 1 ms is asked for" in missed.stdout
    assert run(*common, "--slo", "tpot=1s").exit_code == 0
