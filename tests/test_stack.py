import jax
import numpy as np
import pytest

import genz_jax as gz
from genz_jax.specs.stack import take

H100, H200 = gz.platform("H100-SXM"), gz.platform("H200")
ONE_LEVEL = H100.replace(network=(gz.specs.NetworkLevel(8, "450 GB/s", "1 us"),))


def latency(model, platform, workload=None, parallelism=None, stage="decode"):
    options = {"stage": stage, "figures": ["latency", "memory", "traffic"], "progress": False}
    return gz.sweep(model, platform, workload, parallelism, "fp8", **options)


def test_numbers_become_arrays_along_a_new_axis():
    stacked = gz.stack([H100, H200, gz.platform("B200")])
    np.testing.assert_array_equal(stacked.mem_bw, [3.35e12, float(H200.mem_bw), float(gz.platform("B200").mem_bw)])
    assert all(np.shape(leaf) == (3,) for leaf in jax.tree.leaves(stacked))
    assert isinstance(stacked, gz.Platform)


def test_stacking_one_adds_an_axis_and_taking_it_removes_it():
    for spec in (H100, gz.model("jamba-1.5-mini"), gz.Workload(), gz.Parallelism(), gz.Precision("fp8")):
        back = take(gz.stack([spec]), np.array(0))
        for mine, theirs in zip(jax.tree.leaves(spec), jax.tree.leaves(back), strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_absent_parts_are_padded_with_no_layers():
    models = [gz.model(name) for name in ("llama-3.1-8b", "mixtral-8x7b", "falcon-mamba-7b", "deepseek-v3")]
    stacked = gz.stack(models)
    for part in ("attention", "latent_attention", "ssm", "ffn", "moe"):
        layers = [0.0 if getattr(m, part) is None else float(getattr(m, part).layers) for m in models]
        np.testing.assert_array_equal(getattr(stacked, part).layers, layers)
    assert stacked.ssd is None
    assert stacked.local_attention is None


@pytest.mark.slow
def test_padding_changes_no_figure():
    names = ["llama-3.1-8b", "mixtral-8x7b", "falcon-mamba-7b", "deepseek-v2-lite", "gemma-3-27b", "mamba2-2.7b"]
    together = latency(names, "MI300X")
    for name in names:
        alone = latency(name, "MI300X")
        for figure in ("latency", "memory", "traffic"):
            one, other = float(alone[figure]), float(together[figure].sel(model=name))
            assert other == pytest.approx(one, rel=1e-6)


@pytest.mark.slow
def test_a_network_level_that_is_not_there_joins_nothing_new():
    chips = {"one level": ONE_LEVEL, "two levels": H100}
    spread = gz.Parallelism(tp=gz.axis([1, 2, 8, 16]))
    together = latency("llama-2-7b", chips, None, spread)
    for name, chip in chips.items():
        alone = latency("llama-2-7b", chip, None, spread)
        np.testing.assert_allclose(together.latency.sel(platform=name), alone.latency, rtol=1e-6)
    assert np.isnan(together.latency.sel(platform="one level", tp=16))
    assert np.isfinite(together.latency.sel(platform="two levels", tp=16))


@pytest.mark.slow
def test_a_missing_offload_link_is_one_of_no_bandwidth():
    small = H100.replace(mem_capacity="4 GB")
    chips = {"none": small, "link": small.replace(offload_bw="64 GB/s")}
    np.testing.assert_array_equal(gz.stack(list(chips.values())).offload_bw, [0.0, 64e9])
    together = latency("llama-2-7b", chips)
    assert np.isnan(together.latency.sel(platform="none"))
    alone = latency("llama-2-7b", chips["link"])
    np.testing.assert_allclose(together.latency.sel(platform="link"), alone.latency, rtol=1e-6)


@pytest.mark.slow
def test_chunks_that_are_not_there_cost_nothing():
    first = gz.Workload(prefill_chunks=(gz.specs.PrefillChunk(0, 512),))
    second = gz.Workload(
        prefill_chunks=(gz.specs.PrefillChunk(512, 256), gz.specs.PrefillChunk(0, 128)),
        decode_chunks=(gz.specs.DecodeChunk(4, 4, 900),),
    )
    stacked = gz.stack([first, second])
    np.testing.assert_array_equal(stacked.prefill_chunks[1].new_tokens, [0, 128])
    np.testing.assert_array_equal(stacked.decode_chunks[0].sequences, [0, 4])
    options = {"stage": "chunked", "figures": ["latency", "throughput"], "progress": False}
    together = gz.sweep("llama-2-7b", H100, {"first": first, "second": second}, **options)
    for name, workload in (("first", first), ("second", second)):
        alone = gz.sweep("llama-2-7b", H100, workload, **options)
        for figure in ("latency", "throughput"):
            np.testing.assert_allclose(together[figure].sel(workload=name), alone[figure], rtol=1e-6)


@pytest.mark.parametrize(
    ("specs", "words"),
    [
        ([], "at least one"),
        ([gz.Workload(batch=gz.axis([1, 2])), gz.Workload()], "Workload.*axis.*single"),
        ([gz.Workload(), gz.Workload(batch=gz.axis([1, 2]))], "Workload.*axis.*single"),
        ([gz.Parallelism(pp=2), gz.Parallelism(pp=2, micro_batches=4)], r"Parallelism\.micro_batches.*all or"),
        ([H100, gz.Workload()], "Platform.*Workload|Workload.*Platform"),
    ],
    ids=["none", "axis first", "axis last", "some only", "two kinds"],
)
def test_errors(specs, words):
    with pytest.raises(ValueError, match=words) as caught:
        gz.stack(specs)
    assert "\n" not in str(caught.value)
