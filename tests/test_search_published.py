"""The search helpers of the published analyser itself (PyPI genz-llm 0.0.16), beside `space="genz"`."""

import contextlib
import io
import json
import warnings
from typing import Any

import numpy as np
import pytest
from helpers import DATA

import genz_jax as gz
from genz_jax import parity
from genz_jax.questions.search import candidates as c
from genz_jax.reduce.pareto import front_mask

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    search = pytest.importorskip("GenZ.LLM_inference.best_parallelization", exc_type=ImportError)
    sizes = pytest.importorskip("GenZ.LLM_inference.platform_size", exc_type=ImportError)

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
CARDS: dict[str, dict[str, Any]] = json.loads((DATA / "models.json").read_text(encoding="utf-8"))
SYSTEMS = {
    "plain": {"Flops": 200, "Memory_size": 32, "Memory_BW": 1000, "ICN": 300, "ICN_LL": 1},
    "large": {"Flops": 989, "Memory_size": 80, "Memory_BW": 3400, "ICN": 450, "ICN_LL": 0.5},
}
MODELS = ("meta-llama/llama-2-7b", "meta-llama/meta-llama-3.1-8b", "qwen/qwen2.5-32b", "mistralai/mixtral-8x7b")
GIB = 2.0**30


def theirs(function, **arguments):
    """What the reference answers, without what it prints."""
    with contextlib.redirect_stdout(io.StringIO()):
        return function(**arguments)


def platform(system: dict[str, float]) -> gz.Platform:
    links = gz.specs.NetworkLevel(2.0**24, system["ICN"] * GIB, system["ICN_LL"] * 1e-6)
    return gz.Platform(system["Flops"] * 1e12, system["Memory_BW"] * GIB, system["Memory_size"] * GIB, (links,))


def ours(name: str, system: str, stage: str, chips: int, batches: list[int]) -> gz.results.SearchResult:
    model = parity.read_model(CARDS[name], False)
    return gz.search(model, platform(SYSTEMS[system]), gz.Workload(1, 2000, 256), chips=chips, batch=batches,
                     stage=stage, assumptions="genz", space="genz", progress=False)  # fmt: skip


def asked(name: str, system: str, stage: str) -> dict[str, Any]:
    return {"stage": stage, "model": name, "input_tokens": 2000, "output_tokens": 256, "bits": "bf16",
            "system_name": SYSTEMS[system] | {"real_values": True}}  # fmt: skip


def rows(result: gz.results.SearchResult) -> dict[str, np.ndarray]:
    """Requested batch, batch, tp, pp, latency in ms and the release's throughput, which counts a full pipeline."""
    d = result.dataset
    batch, pp, latency = (d[name].values.astype(float) for name in ("batch", "pp", "latency"))
    micro = np.maximum(batch // pp, 1)
    total = latency * ((batch // micro - 1) / pp + 1)
    names = ("requested_batch", "batch", "tp", "pp")
    return {name: d[name].values for name in names} | {"latency": latency * 1e3, "rate": batch / total}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("nodes", [1, 2, 8, 13, 64])
def test_candidates(name: str, nodes: int):
    card = CARDS[name]
    expected = {
        (int(tp), int(pp)) for tp, pp in theirs(search.get_various_parallization, model=name, total_nodes=nodes)
    }
    columns = c.reference_spreads(nodes, card["num_attention_heads"], card["num_decoder_layers"])
    assert set(zip(columns["tp"].tolist(), columns["pp"].tolist(), strict=True)) == expected


@pytest.mark.parametrize("stage", ["prefill", "decode"])
@pytest.mark.parametrize(("name", "system", "nodes"), [(MODELS[0], "plain", 8), (MODELS[1], "large", 4),
                                                       (MODELS[2], "large", 8), (MODELS[3], "large", 8)])  # fmt: skip
def test_best_and_front(name: str, system: str, nodes: int, stage: str):
    batches = [1, 2, 4, 8, 16]
    expected = theirs(search.get_pareto_optimal_performance, total_nodes=nodes, batch_list=batches,
                      **asked(name, system, stage))  # fmt: skip
    found = rows(ours(name, system, stage, nodes, batches))
    mask = front_mask(np.stack([found["latency"], -found["rate"]], axis=1))
    front = sorted(zip(found["latency"][mask], found["rate"][mask], strict=True))
    reference = sorted(zip(expected["Latency(ms)"], expected["Tokens/s"], strict=True))
    np.testing.assert_allclose(np.array(front), np.array(reference), rtol=1e-9)
    for batch in batches:
        best = theirs(search.get_best_parallization_strategy, total_nodes=nodes, batch_size=batch,
                      **asked(name, system, stage)).iloc[0]  # fmt: skip
        mine = found["requested_batch"] == batch
        at = int(np.flatnonzero(mine)[np.argmax(found["rate"][mine])])
        assert (found["tp"][at], found["pp"][at], found["batch"][at]) == (best["TP"], best["PP"], best["micro batch"])
        assert found["latency"][at] == pytest.approx(best["Latency(ms)"], rel=1e-9)
        assert found["rate"][at] == pytest.approx(best["Tokens/s"], rel=1e-9)


@pytest.mark.parametrize("stage", ["prefill", "decode"])
@pytest.mark.parametrize(("name", "system", "batch"), [
    (MODELS[0], "plain", 1), (MODELS[0], "plain", 32), (MODELS[1], "large", 64), (MODELS[2], "plain", 4),
    (MODELS[3], "large", 8), ("meta-llama/llama-3.1-70b", "plain", 16),
])  # fmt: skip
def test_smallest_system(name: str, system: str, batch: int, stage: str):
    expected = theirs(sizes.get_minimum_system_size, max_batch_size=batch, **asked(name, system, stage))
    assert ours(name, system, stage, 1, [batch]).smallest == expected
