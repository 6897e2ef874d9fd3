"""The command `search`: the same as gz.search, as a table and as JSON."""

import json
import shlex

import pytest
import xarray as xr
from typer.testing import CliRunner, Result

import genz_jax as gz
from genz_jax.cli import app
from genz_jax.cli.search import read_numbers

ASK = "search -m llama-3.1-8b -p H100-SXM --chips 1:4 --batch 4,32 --input 512 --output 64"


def run(line: str) -> Result:
    return CliRunner().invoke(app, shlex.split(line), catch_exceptions=False)


def asked(**changes) -> gz.results.SearchResult:
    return gz.search("llama-3.1-8b", "H100-SXM", gz.Workload(1, 512, 64), **{"chips": range(1, 5), "batch": [4, 32],
                     "progress": False, **changes})  # fmt: skip


def test_json_is_what_gz_search_finds():
    found = json.loads(run(f"{ASK} --slo tpot=6ms --cost 2 --top 3 --json").stdout)
    expected = asked(slo=gz.SLO(tpot="6 ms"), cost=2.0)
    assert found["candidates"] == expected.candidates
    assert found["feasible"] == int(expected.dataset["feasible"].values.sum())
    assert found["meet_slo"] == int(expected.dataset["meets_slo"].values.sum())
    assert found["excluded"] == expected.excluded
    assert (found["smallest"], found["smallest_for_slo"]) == (expected.smallest, expected.smallest_for_slo)
    assert len(found["best"]) == 3
    assert expected.best is not None
    best = found["best"][0]
    assert best["at"]["tp"] == int(expected.best.tp)
    assert best["at"]["precision"] == "bf16"
    for figure in ("tpot", "throughput_per_device", "cost_per_million_tokens"):
        assert best["figures"][figure]["value"] == pytest.approx(float(expected.best[figure]))
    assert best["figures"]["tpot"]["unit"] == "s"
    assert best["figures"]["reason"]["value"] == "feasible"
    assert len(found["front"]) == expected.pareto(slo=True).sizes["candidate"]


def test_the_table_shows_the_best_and_the_smallest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shown = run(f"{ASK} --slo ttft=30ms --tp 1,2 --dp 1 --pp 1:2 -o all.nc --plot size.png --plot-figure size")
    assert shown.exit_code == 0
    assert "smallest system that fits: 1 device\n" in shown.stdout
    assert "SLO: ttft at most 30 ms" in shown.stdout
    assert "best by throughput_per_device" in shown.stdout
    assert "written: all.nc" in shown.stdout
    with xr.open_dataset("all.nc") as dataset:
        assert set(dataset.tp.values) == {1, 2}
        assert dataset.sizes["candidate"] == asked(tp=[1, 2], dp=1, pp=[1, 2]).dataset.sizes["candidate"]
    assert (tmp_path / "size.png").stat().st_size > 10_000


@pytest.mark.slow
def test_several_precisions_and_changes_of_a_spec():
    found = json.loads(run(f"{ASK} --precision fp8,bf16 --set mem_bw='6 TB/s' --cp all --json").stdout)
    chip = gz.platform("H100-SXM").replace(mem_bw="6 TB/s")
    expected = gz.search("llama-3.1-8b", chip, gz.Workload(1, 512, 64), chips=range(1, 5), batch=[4, 32], cp=None,
                         precision=["fp8", "bf16"], progress=False)  # fmt: skip
    assert found["candidates"] == expected.candidates
    assert expected.best is not None
    assert found["best"][0]["figures"]["tpot"]["value"] == pytest.approx(float(expected.best.tpot))


@pytest.mark.slow
def test_where_nothing_runs_it_says_what_would():
    shown = run("search -m llama-3.1-405b -p H100-SXM --chips 2 --batch 1 --precision fp8")
    assert shown.exit_code == 1
    assert "no candidate runs; 6 devices would" in shown.stdout
    assert "does_not_fit" in shown.stdout


@pytest.mark.slow
def test_where_nothing_meets_the_limits_the_status_is_1_and_the_limit_is_told():
    shown = run(f"{ASK} --slo tpot=1us --slo ttft=100s")
    assert shown.exit_code == 1
    (told,) = [line for line in shown.stdout.splitlines() if line.startswith("no candidate meets")]
    assert "has tpot " in told
    assert "at most 1 µs" in told
    assert "ttft" not in told
    assert len(told) <= 300
    found = run(f"{ASK} --slo tpot=1us --json")
    assert found.exit_code == 1
    tree = json.loads(found.stdout)
    closest = tree["closest"]["figures"]["tpot"]["value"]
    assert tree["misses"] == {"tpot": {"value": closest, "limit": 1e-6}}
    assert run(f"{ASK} --slo tpot=1s --json").exit_code == 0


def test_encode_has_the_limit_of_a_whole_batch():
    line = "search -m bert-base -p H100-SXM --chips 2 --pp 1,2 --batch 16,256 --input 512 --stage encode"
    load = gz.Workload(1, 512, 1)
    given = {"chips": 2, "pp": [1, 2], "batch": [16, 256], "stage": "encode", "progress": False}
    times = gz.search("bert-base", "H100-SXM", load, **given).dataset["batch_time"].values
    limit = float(sorted(times)[len(times) // 2])
    found = json.loads(run(f"{line} --slo e2e={limit * 1.0001!r} --json").stdout)
    assert found["meet_slo"] == (times <= limit * 1.0001).sum()
    assert 0 < found["meet_slo"] < len(times)
    refused = run(f"{line} --slo ttft=1s")
    assert (refused.exit_code, "'encode', which has only e2e" in refused.stderr) == (2, True)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (f"{ASK} --slo tpot", "must be NAME=VALUE"),
        (f"{ASK} --slo tpit=1ms", "'tpit': no such limit; did you mean ttft, tpot"),
        (f"{ASK} --slo tpot=1ms --slo tpot=2ms", "'tpot': given twice"),
        (f"{ASK} --slo tpot=1GB", "'byte'"),
        (f"{ASK} --tp two", "--tp = 'two': must be whole numbers"),
        (f"{ASK} --objective speed", "objective = 'speed'"),
        (f"{ASK} --plot-figure speed", "--plot-figure = 'speed': must be one of front, size, cost"),
        (f"{ASK} --plot out.gif", "out.gif"),
        (ASK.replace("1:4", "0"), "chips = 0"),
        (ASK.replace("1:4", "9999"), "chips = 9999"),
        (ASK.replace("llama-3.1-8b", "gpt2,opt-125m"), "search takes one"),
    ],
)
def test_bad_input_is_one_line(line, words):
    result = run(line)
    assert result.exit_code == 2
    assert words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_numbers():
    assert read_numbers("--chips", "8") == [8]
    assert read_numbers("--chips", "1:3, 8") == [1, 2, 3, 8]
    with pytest.raises(ValueError, match="must be whole numbers"):
        read_numbers("--chips", "1:2:3")
