"""The study of requirements beside the tables of arXiv 2406.01698 v1."""

import common
import jax
import numpy as np
import pytest
import requirements as study
import xarray as xr

import genz_jax as gz


@pytest.fixture(scope="module")
def found() -> xr.Dataset:
    """The published formulas on our counts, beside the table."""
    names = list(study.PUBLISHED.values())
    return study.by_formula(names).merge(study.table(names))


@pytest.mark.slow
@pytest.mark.parametrize("figure", ["mem_bw", "flops", "mem_capacity", "weights", "idle_weights", "kv_cache"])
def test_published_formulas_on_our_counts_are_the_table(found, figure):
    np.testing.assert_allclose(found[figure], found[f"table_{figure}"], rtol=1e-12, atol=1e-9)
    assert np.isfinite(found[figure]).all()
    assert found[figure].shape == (5, 5)


def test_headlines_of_the_paper(found):
    """Figures printed in v1's section 7, whose TB/s are MiB/1e6 per second."""
    v1_terabytes = found.mem_bw / (1e6 * 2.0**20)
    assert round(float(v1_terabytes.max()), 2) == 31.06
    assert str(v1_terabytes.isel(v1_terabytes.argmax(...)).model.values) == "gpt-4"
    petaflops = found.flops / 1e15
    assert round(float(petaflops.max()), 2) == 16.17
    assert str(petaflops.isel(petaflops.argmax(...)).workload.values) == "qa-rag"
    assert round(float(found.mem_capacity.max() / 2**30)) == 1871
    printed = study.ratios(found.expand_dims(approach=["published"]))
    assert printed["KV cache of code generation / weights, llama-2-7b"] == pytest.approx(0.818, abs=5e-4)


@pytest.mark.slow
@pytest.mark.parametrize("physics", ["genz", pytest.param("default", marks=pytest.mark.slow)])
def test_exact_requirements_are_met_and_near_the_formulas(found, physics):
    """The formulas leave out embedding and head, and, as `genz`, look at the last token, where `default` averages."""
    names, cases = ["llama-2-7b"], study.USE_CASES
    with jax.enable_x64(True):
        exact = study.exact(names, physics, links=False)
    ratio = exact.mem_bw.sel(model="llama-2-7b") / found.mem_bw.sel(model="llama-2-7b")
    assert physics != "genz" or ((ratio > 1.0) & (ratio < 1.02)).all()
    for case in cases:
        at = {"model": "llama-2-7b", "workload": case}
        device = study.platform(mem_bw=float(exact.mem_bw.sel(at)))
        result = gz.estimate("llama-2-7b", device, gz.workload(case), precision="int8", assumptions=physics)
        limit = {"20 ms": 0.02, "10 ms": 0.01}[gz.catalog.about("workload", case).notes["tpot"]]
        assert float(result.tpot) == pytest.approx(limit, rel=1e-9)


@pytest.mark.slow
def test_command_writes_dataset_and_figure(tmp_path, capsys):
    dataset = common.run(study.__file__, study.compute, study.plot, ["--smoke", "--out", str(tmp_path)])
    assert "computed in" in capsys.readouterr().out
    again = xr.open_dataset(tmp_path / "requirements.nc")
    np.testing.assert_array_equal(again.mem_bw, dataset.mem_bw)
    assert (tmp_path / "requirements.png").stat().st_size > 20_000
    assert again.mem_bw.attrs["units"] == "byte s-1"
