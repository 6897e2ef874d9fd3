"""What fits by the memory, against whether single requests and batches of them run, on cases at random."""

import json
import warnings

import numpy as np
import pytest
from typer.testing import CliRunner

import genz_jax as gz
from genz_jax.cli import app

MODELS = ("llama-3.1-8b", "qwen2.5-14b", "gemma-2-9b", "deepseek-v2-lite", "mixtral-8x7b", "llama-3.1-70b")
PLATFORMS = ("A100-SXM-40GB", "H100-SXM", "L40S", "MI300X")


def case(seed: int):
    rng = np.random.default_rng(seed)
    tp, pp, dp = int(rng.choice([1, 2, 4, 8])), int(rng.choice([1, 2])), int(rng.choice([1, 1, 2]))
    load = gz.Workload(dp * int(rng.integers(1, 40)), int(rng.integers(64, 9000)), int(rng.integers(2, 700)))
    return str(rng.choice(MODELS)), str(rng.choice(PLATFORMS)), load, gz.Parallelism(tp, 1, pp, dp=dp)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [*range(6), *(pytest.param(i, marks=pytest.mark.slow) for i in range(6, 40))])
def test_as_many_requests_run_as_are_said_to_fit_and_not_one_more(seed: int):
    model, platform, load, spread = case(seed)
    found = gz.fit(model, platform, load, spread)
    dp = int(spread.dp)

    def runs(batch: float) -> bool:
        return bool(gz.estimate(model, platform, load.replace(batch=batch), spread).feasible)

    assert found.fits == runs(float(load.batch))
    if found.largest_batch:
        assert runs(found.largest_batch)
    assert not runs(found.largest_batch + dp)
    # So many requests of this length in so many tokens, whole blocks of 16 for each.
    length = float(load.input_tokens + load.output_tokens)
    assert found.kv_tokens == pytest.approx(found.concurrency * length, abs=1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [*range(3), *(pytest.param(i, marks=pytest.mark.slow) for i in range(3, 12))])
def test_the_fewest_devices_are_those_of_a_scan_by_hand(seed: int):
    rng = np.random.default_rng(seed)
    model, platform = str(rng.choice(["qwen2.5-14b", "llama-3.1-70b"])), str(rng.choice(["L40S", "A100-SXM-40GB"]))
    load = gz.Workload(int(rng.choice([1, 2, 3])), int(rng.integers(100, 20_000)), 100)
    found = gz.fit(model, platform, load)
    if found.fits:
        assert found.least is None
        return
    devices, fits = 0, False
    while not fits and devices < 16:
        devices += 1
        for tp in (n for n in range(1, devices + 1) if devices % n == 0):
            for pp in (n for n in range(1, devices // tp + 1) if devices % (tp * n) == 0):
                try:
                    spread = gz.Parallelism(tp, 1, pp, dp=devices // (tp * pp))
                    fits |= bool(gz.estimate(model, platform, load, spread).feasible)
                except ValueError:
                    continue
    assert found.least_devices == devices


@pytest.mark.first(1)
@pytest.mark.parametrize("stage", ["request", "prefill", "decode"])
def test_the_status_of_estimate_says_whether_it_runs(stage: str):
    def run(*args: str):
        return CliRunner().invoke(app, ["estimate", "-m", "llama-3.1-70b", "-p", "H100-SXM", "--stage", stage, *args])

    assert run("--tp", "4").exit_code == 0
    bad = run()
    assert bad.exit_code == 1
    assert "does_not_fit" in bad.stdout
    lines = [line.split()[:2] for line in bad.stdout.splitlines() if line.split()]
    rows = [words for words in lines if words[0].endswith("bound") or words[0] == "compute_format"]
    assert rows
    assert all(value == "–" for _, value in rows)
    tree = json.loads(run("--json").stdout)
    words = {name: figure["value"] for name, figure in tree["figures"].items() if name.endswith("bound")}
    assert words
    assert not set(words.values()) & {"compute", "memory", "network"}
    assert tree["figures"]["compute_format"]["value"] is None


def test_only_the_context_that_is_asked_for_is_warned_of():
    def warned(*args: str) -> list[str]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            CliRunner().invoke(app, ["estimate", "-m", "gpt2", "-p", "H100-SXM", *args])
        return [str(one.message) for one in caught if issubclass(one.category, gz.ContextWarning)]

    # GPT-2 takes 1,024 tokens, less than the 1,152 of the default requests.
    assert warned("--input", "900", "--output", "124") == []
    (told,) = warned("--input", "2000", "--output", "48")
    assert "context of 2,048 tokens: gpt2 was made for 1,024" in told
