"""The command line: every command, every example of its help, and bad input as one line."""

import csv
import json
import math
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import xarray as xr
from typer.main import get_command
from typer.testing import CliRunner, Result

import genz_jax as gz
from genz_jax.base.formats import BLOCK_FORMATS, FORMATS
from genz_jax.cli import app, case_options, cases as cli_cases, options, outputs
from genz_jax.cli.sweep import summarize

DATA = Path(__file__).parent / "data" / "genz"
COMMANDS = (
    "estimate",
    "sweep",
    "search",
    "require",
    "sensitivity",
    "tune",
    "cost",
    "parity",
    "models",
    "platforms",
    "workloads",
)
POINT = ("-m", "llama-3.1-70b", "-p", "H100-SXM")
EIGHT = (*POINT, "--tp", "8", "--precision", "fp8", "--batch", "32", "--input", "2048", "--output", "256")
GRID = ("-m", "llama-3.1-8b", "-p", "H100-SXM", "--stage", "decode")

Cli = Callable[..., Result]


def _run(*args: str) -> Result:
    return CliRunner().invoke(app, list(args), catch_exceptions=False)


@pytest.fixture(scope="module")
def table() -> list[dict[str, str]]:
    """Forty cases of the reference table, of three stages."""
    with open(DATA / "summary.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    kinds = {"prefill": 20, "decode": 15, "spec_prefill": 5}
    plain = [row for row in rows if "deepseek" not in row["model"].lower()]
    return [row for stage, n in kinds.items() for row in [r for r in plain if r["stage"] == stage][:n]]


def _write(path: Path, rows: list[dict[str, str]], without: set[str] = frozenset()) -> None:  # type: ignore[assignment]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [name for name in rows[0] if name not in without], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def folder(tmp_path, monkeypatch, table) -> Path:
    """An empty working folder but for the files that examples name."""
    monkeypatch.chdir(tmp_path)
    _write(tmp_path / "cases.csv", table)
    (tmp_path / "models.json").write_text((DATA / "models.json").read_text(encoding="utf-8"), encoding="utf-8")
    return tmp_path


def _made(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"cases.csv", "models.json"}


# ---------------------------------------------------------------------------------------------------------- help


def _examples(command: str) -> list[str]:
    """Command lines under "Examples:" in the help of a command."""
    text = _run(command, "--help").stdout.split("Examples:")[1].replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines()]
    return [" ".join(line.split()) for line in lines if line.startswith("genz-jax ")]


EXAMPLES = [
    pytest.param(line, marks=[pytest.mark.slow] if i or command == "tune" else [])
    for command in COMMANDS
    for i, line in enumerate(_examples(command))
]


@pytest.mark.first(1)
@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_of_help_run(example, folder):
    result = _run(*shlex.split(example)[1:])
    assert result.exit_code == 0, result.stderr
    assert result.stdout
    assert result.stderr == ""
    if "--json" in example:
        json.loads(result.stdout)
    for name in ("out.nc", "out.png", "predicted.csv"):
        assert (folder / name).exists() == (name in example)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_every_option(command):
    result = _run(command, "--help")
    assert result.exit_code == 0
    assert len(_examples(command)) >= 2


CASE_COMMANDS = ("estimate", "sweep", "search", "require", "sensitivity", "tune")


@pytest.mark.parametrize("command", CASE_COMMANDS)
def test_options_of_a_case_stand_in_one_order(command):
    names = [parameter.name for parameter in get_command(app).commands[command].params]  # type: ignore[attr-defined]
    known = [name for name in case_options._OPTIONS if name in names]
    kept = [name for name in names if name in case_options._OPTIONS and not (command == "search" and name == "stage")]
    assert kept == [name for name in known if name in kept]
    assert {"model", "platform", "workload", "batch", "precision", "assumptions", "set"} <= set(kept)
    assert "asked" not in names


@pytest.mark.parametrize("command", [name for name in CASE_COMMANDS if name not in ("sweep", "require", "sensitivity")])
def test_commands_of_one_model_say_which_takes_several(command):
    needed = {"search": ["--chips", "1"], "tune": ["power", "--bound", "mem_bw=1TB/s:2TB/s"]}.get(command, [])
    result = _run(command, "-m", "gpt2,opt-125m", "-p", "H100-SXM", *needed)
    assert result.exit_code == 2
    assert result.stderr == f"error: --model = 'gpt2,opt-125m': {command} takes one; genz-jax sweep takes several\n"


def test_a_clock_shows_that_a_command_computes(monkeypatch, capsys):
    monkeypatch.setattr(outputs, "_DELAY", 0.05)
    monkeypatch.setattr(outputs, "_EVERY", 0.02)
    with outputs.waiting("compiling"):  # stderr is no terminal
        time.sleep(0.3)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(outputs, "on_terminal", lambda: True)
    with outputs.waiting("compiling"):
        time.sleep(0.3)
    shown = capsys.readouterr().err
    assert "compiling, 00:00" in shown
    assert "\n" not in shown
    assert shown.split("\r")[-2].strip() == ""  # the line is gone


def test_no_arguments_show_help():
    result = _run()
    assert result.exit_code == 0
    for command in COMMANDS:
        assert command in result.stdout


def test_version():
    assert _run("--version").stdout == f"genz-jax {gz.__version__}\n"


def test_completion_continues_the_last_name_of_a_list():
    assert options._models("llama-3.1-7") == ["llama-3.1-70b"]
    assert options._platforms("A100-SXM-80GB,h100-s") == ["A100-SXM-80GB,H100-SXM"]
    assert options._workloads("cha") == ["chat"]
    assert options._formats("") == [*FORMATS, *BLOCK_FORMATS]
    assert options._stages("speculative_p") == ["speculative_prefill"]
    assert options._assumptions("g") == ["genz"]


# ------------------------------------------------------------------------------------------------------- estimate


def test_estimate_is_that_of_the_library():
    result = _run("estimate", *EIGHT, "--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    load = gz.Workload(batch=32, input_tokens=2048, output_tokens=256)
    expected = gz.estimate("llama-3.1-70b", "H100-SXM", load, gz.Parallelism(tp=8), "fp8")
    assert (found["model"], found["platform"], found["devices"]) == ("llama-3.1-70b", "H100-SXM", 8)
    for name in ("ttft", "tpot", "throughput", "memory", "energy_per_token"):
        assert found["figures"][name]["value"] == float(getattr(expected, name))
    assert found["figures"]["tpot"]["unit"] == "s"
    assert found["figures"]["bound"]["value"] == expected.bound
    assert found["figures"]["feasible"]["value"] is True


def test_estimate_prints_a_table():
    result = _run("estimate", *EIGHT)
    assert "llama-3.1-70b on 8 × H100-SXM" in result.stdout
    assert "time to first token" in result.stdout
    assert " ms " in result.stdout


@pytest.mark.slow
def test_figures_that_are_not_there_are_null_or_a_dash():
    result = _run("estimate", *POINT, "--json")
    found = json.loads(result.stdout)["figures"]
    assert result.exit_code == 1
    assert found["tpot"]["value"] is None
    assert found["reason"]["value"] == "does_not_fit"
    shown = _run("estimate", *POINT).stdout
    assert "nan" not in shown
    assert "does_not_fit   weights, KV cache and working memory exceed the memory" in shown


def test_set_changes_any_number():
    changed = ("--set", "mem_bw=6.7 TB/s", "--set", "attention.kv_heads=4", "--set", "link_bw=900GB/s")
    result = _run("estimate", *EIGHT, "--json", *changed, "--set", "model.layers=40", "--set", "network.1.latency=2us")
    chip = gz.platform("H100-SXM").replace(mem_bw="6.7 TB/s", link_bw="900 GB/s", **{"network.1.latency": "2 us"})
    model = gz.model("llama-3.1-70b").replace(layers=40, **{"attention.kv_heads": 4})
    load = gz.Workload(batch=32, input_tokens=2048, output_tokens=256)
    expected = gz.estimate(model, chip, load, gz.Parallelism(tp=8), "fp8")
    assert json.loads(result.stdout)["figures"]["tpot"]["value"] == float(expected.tpot)


def test_a_workload_by_name_is_overridden_by_options():
    asked = cli_cases.read(_options(model="llama-3.1-8b", platform="H100-SXM", workload="chat", batch="7"))
    assert asked.case.workload.name == "chat"
    assert [float(x) for x in (asked.case.workload.batch, asked.case.workload.input_tokens)] == [7, 3000]


@pytest.mark.parametrize(
    ("text", "tokens"), [("128k", 128_000), ("128K", 128_000), ("128Ki", 131_072), ("1.5k", 1500), ("1M", 1_000_000)]
)
def test_whole_numbers_may_have_prefixes(text, tokens):
    point = {"model": "llama-3.1-8b", "platform": "H100-SXM"}
    assert float(cli_cases.read(_options(**point, input=text)).case.workload.input_tokens) == tokens
    asked = cli_cases.read(_options(**point), [f"input={text},7"])
    assert asked.case.workload.input_tokens.values.tolist() == [tokens, 7]
    assert float(cli_cases.read(_options(**point, set=[f"batch={text}"])).case.workload.batch) == tokens


def _options(**given) -> dict:
    names = ["model", "platform", "workload", "precision", "prefill", "decode", "draft", "set", "stage", "kernels"]
    return dict.fromkeys([*names, *cli_cases._OPTIONS]) | {"assumptions": "default"} | given


def test_chunks_and_speculation_choose_the_stage():
    point = {"model": "llama-3.1-8b", "platform": "H100-SXM"}
    asked = cli_cases.read(_options(**point, prefill=["128:512"], decode=["1000", "4:2000", "1:5:300:20"]))
    load = asked.case.workload
    assert asked.stage == "chunked"
    assert [[float(x) for x in vars(c).values()] for c in load.prefill_chunks] == [[128, 512]]
    assert [[float(x) for x in vars(c).values()] for c in load.decode_chunks] == [
        [1, 1, 1000, 0],
        [4, 4, 2000, 0],
        [1, 5, 300, 20],
    ]
    asked = cli_cases.read(_options(**point, draft="llama-3.2-1b", draft_tokens="6", acceptance="0.5"))
    assert asked.stage == "speculative_decode"
    assert asked.case.speculation is not None
    assert [float(asked.case.speculation.tokens), float(asked.case.speculation.acceptance)] == [6, 0.5]


@pytest.mark.slow
def test_operators_and_breakdown_add_up():
    args = ("estimate", "-m", "llama-3.1-8b", "-p", "H100-SXM", "--stage", "decode", "--operators", "--breakdown")
    found = json.loads(_run(*args, "--json").stdout)
    latency = found["figures"]["latency"]["value"]
    operators = found["operators"]["decode"].values()
    assert math.isclose(sum(op["latency"]["value"] for op in operators), latency, rel_tol=1e-5)
    assert math.isclose(sum(x["value"] for x in found["breakdown"]["decode"].values()), latency, rel_tol=1e-5)
    text = _run(*args).stdout
    assert "ffn.up_gate_proj" in text
    assert "language model head" in text


# ---------------------------------------------------------------------------------------------------------- sweep


def test_sweep_writes_the_dataset_of_the_library(folder):
    args = ("--axis", "mem_bw=1TB/s:4TB/s:3:log", "--axis", "batch=1,8", "--axis", "tp=1,3", "--figures", "latency")
    result = _run("sweep", *GRID, *args, "-o", "out.zarr", "--json")
    assert result.exit_code == 0
    summary = json.loads(result.stdout)
    assert summary["dims"] == {"batch": 2, "tp": 2, "mem_bw": 3}
    assert summary["points"] == 12
    assert summary["feasible_share"] == 0.5
    assert summary["reasons"] == {"feasible": 6, "heads_not_divisible": 6}
    best = summary["best"]
    assert (best["figure"], best["at"]["mem_bw"]["value"], best["at"]["tp"]["value"]) == ("latency", 4e12, 1)
    chip = gz.platform("H100-SXM").replace(mem_bw=gz.geomspace("1 TB/s", "4 TB/s", 3))
    spread, load = gz.Parallelism(tp=gz.axis([1, 3])), gz.Workload(batch=gz.axis([1, 8]))
    expected = gz.sweep("llama-3.1-8b", chip, load, spread, stage="decode", figures=["latency", "feasible", "reason"])
    with xr.open_zarr("out.zarr", consolidated=False) as written:
        xr.testing.assert_identical(written.load().drop_attrs(), expected.drop_attrs())


def test_sweep_into_a_store_goes_on_with_it(folder):
    args = ("--axis", "mem_bw=1TB/s:4TB/s:5:log", "--axis", "tp=1,3", "--figures", "latency", "--store", "big.zarr")
    result = _run("sweep", *GRID, *args, "--chunks", "mem_bw=2,tp=1", "-o", "out.nc", "--json")
    assert result.exit_code == 0, result.stderr
    summary = json.loads(result.stdout)
    assert (summary["points"], summary["feasible_share"], summary["store"]) == (10, 0.5, "big.zarr")
    with xr.open_zarr("big.zarr", consolidated=False) as written, xr.open_dataset("out.nc") as whole:
        assert written.latency.encoding["chunks"] == (2, 1)
        assert written.done.values.tolist() == [1] * 6
        xr.testing.assert_equal(written.drop_vars("done").load(), whole.load())
    before = {path: path.stat().st_mtime_ns for path in Path("big.zarr").rglob("*")}
    again = _run("sweep", *GRID, *args)
    assert again.exit_code == 0, again.stderr
    assert "written: big.zarr" in again.stdout
    assert {path: path.stat().st_mtime_ns for path in Path("big.zarr").rglob("*")} == before


@pytest.mark.slow
def test_the_summary_of_a_large_store_does_not_read_it(monkeypatch):
    chip = gz.platform("H100-SXM").replace(mem_bw=gz.axis([1e12, 2e12]))
    dataset = gz.sweep("gpt2", chip, figures=["reason", "feasible", "tpot"])
    monkeypatch.setattr(sys.modules["genz_jax.cli.sweep"], "READ", 1)
    monkeypatch.setattr(xr.DataArray, "values", property(lambda self: pytest.fail("read")))
    found = summarize(dataset, 2.0, stored=True)
    assert (found["points"], found["points_per_second"], "best" in found) == (2, 1.0, False)


@pytest.mark.slow
def test_sweep_prints_a_summary():
    lists = ("-m", "llama-3.1-8b,mixtral-8x7b", "-p", "H100-SXM", "-p", "B200", "--precision", "bf16,fp8")
    axes = ("--axis", "flops=1e15,2e15@chip", "--axis", "link_bw=300GB/s,600GB/s@chip", "--axis", "batch=1:4:9:log")
    result = _run("sweep", *lists, *axes, "--stage", "decode", "--figures", "latency", "--set", "mem_bw=2 TB/s")
    assert result.exit_code == 0, result.stderr
    assert "llama-3.1-8b, mixtral-8x7b on H100-SXM, B200" in result.stdout
    assert "64 points: model 2 × batch 4 × precision 2 × chip 2 × platform 2" in result.stdout
    assert "smallest latency" in result.stdout
    for name in ("model = llama-3.1-8b", "precision = fp8", "batch = 1", "flops = "):
        assert name in result.stdout
    assert "does_not_fit" in result.stdout


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("mem_bw", ("platform", "mem_bw")),
        ("link_bw", ("platform", "link_bw")),
        ("network.0.bandwidth", ("platform", "link_bw")),
        ("network.1.bandwidth", ("platform", "network.1.bandwidth")),
        ("kv_heads", ("model", "attention.kv_heads")),
        ("layers", ("model", "layers")),
        ("model.attention.layers", ("model", "attention.layers")),
        ("input", ("workload", "input_tokens")),
        ("output_tokens", ("workload", "output_tokens")),
        ("micro-batches", ("parallelism", "micro_batches")),
        ("offload_bw", ("platform", "offload_bw")),
        ("weights", ("precision", "weights")),
        ("power_split.static", ("platform", "power_split.static")),
    ],
)
def test_numbers_are_found_by_name(name, found):
    case = cli_cases.read(_options(model="llama-3.1-8b", platform="H100-SXM")).case
    assert cli_cases._Changes(case).find(name) == found


@pytest.mark.parametrize(
    ("values", "whole", "expected", "dims"),
    [
        ("1,2,4", True, [1, 2, 4], None),
        ("1:9:5", False, [1, 3, 5, 7, 9], None),
        ("1:100:3:log@x", False, [1, 10, 100], ("x",)),
        ("1:4:9:log", True, [1, 2, 3, 4], None),
        ("1TB/s:2TB/s:2:lin", False, [1e12, 2e12], None),
        ("8", True, [8], None),
    ],
)
def test_axes_are_read(values, whole, expected, dims):
    axis = cli_cases.read_axis(f"x={values}", values, whole)
    assert axis.values.tolist() == pytest.approx(expected)
    assert axis.dims == dims


# --------------------------------------------------------------------------------------------------------- parity


@pytest.mark.slow
def test_parity_passes_and_writes_predictions(folder, table):
    result = _run("parity", "cases.csv", "--models", "models.json", "--out", "predicted.csv")
    assert result.exit_code == 0, result.stdout
    assert "40 cases" in result.stdout
    with open("predicted.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:3] == ["id", "error", "latency_ms"]
    assert set(rows[0]) < set(table[0])
    assert [row["id"] for row in rows] == [row["id"] for row in table]
    for ours, theirs in zip(rows, table, strict=True):
        if theirs["latency_ms"] and theirs["error"] != "reference_crash":
            assert float(ours["latency_ms"]) == pytest.approx(float(theirs["latency_ms"]), rel=1e-9)


def test_parity_fails_on_a_figure_that_differs(folder, table):
    i = next(i for i, row in enumerate(table) if not row["error"])
    changed = [dict(row) for row in table]
    changed[i]["latency_ms"] = repr(float(changed[i]["latency_ms"]) * (1 + 1e-6))
    _write(folder / "cases.csv", changed)
    result = _run("parity", "cases.csv", "--models", "models.json", "--out", "predicted.csv")
    assert result.exit_code == 1
    assert "1 figure differs" in result.stdout
    assert table[i]["id"] in result.stdout
    assert changed[i]["latency_ms"] in result.stdout
    assert _made(folder) == {"predicted.csv"}


def test_parity_without_outputs_predicts(folder, table):
    inputs = list(table[0])[: list(table[0]).index("error")]
    without = set(table[0]) - set(inputs) - {"draft_model", "acceptance", "n_parallel"}
    _write(folder / "cases.csv", table, without)
    result = _run("parity", "cases.csv", "--models", "models.json", "--out", "predicted.csv")
    assert result.exit_code == 0
    assert "no outputs to compare with" in result.stdout
    assert len((folder / "predicted.csv").read_text(encoding="utf-8").splitlines()) == 41


def test_parity_of_cases_without_the_columns_of_other_stages(folder, table):
    speculative = {"prefill_kv", "decode_kv", "draft_model", "acceptance", "n_parallel", "tokens_generated"}
    rows = [row for row in table if row["stage"] == "prefill"]
    _write(folder / "cases.csv", rows, speculative)
    result = _run("parity", "cases.csv", "--models", "models.json")
    assert result.exit_code == 0, result.stdout


def test_parity_in_single_precision(folder, table):
    _write(folder / "cases.csv", [row for row in table if row["stage"] == "spec_prefill"])
    result = _run("parity", "cases.csv", "--models", "models.json", "--dtype", "float32")
    assert result.exit_code == 0, result.stdout
    assert "tolerance 1e-05" in result.stdout


# ------------------------------------------------------------------------------------------------------ catalogue


def test_models_as_json():
    found = json.loads(_run("models", "llama-3*", "--json").stdout)
    assert set(found) >= {name for name in gz.models() if name.startswith("llama-3")}
    assert all("llama" in name for name in found)
    entry = found["llama-3.1-8b"]
    assert entry["numbers"]["attention.kv_heads"] == 8
    assert entry["parameter_count"]["total"] == entry["parameters"]
    assert entry["source"]


def test_platforms():
    result = _run("platforms", "h100-sxm")
    assert "989.4 TFLOP/s" in result.stdout
    assert "NVIDIA" in result.stdout
    found = json.loads(_run("platforms", "--json").stdout)
    assert list(found) == gz.platforms()
    assert all(entry["numbers"]["mem_bw"] > 0 and entry["source"] for entry in found.values())


def test_workloads():
    result = _run("workloads")
    for name in gz.workloads():
        assert name in result.stdout


# ----------------------------------------------------------------------------------------------------- bad input

ESTIMATE, SWEEP = ("estimate", *POINT, "--tp", "8"), ("sweep", *GRID)
PARITY = ("parity", "cases.csv", "--models", "models.json")
BAD = [
    ((), "unknown-command"),
    (("estimate", "-p", "H100-SXM"), "--model"),
    ((*ESTIMATE, "--colour", "red"), "--colour"),
    (("estimate", "-m", "llama-3.1-7b", "-p", "H100-SXM"), "llama-3.1-8b"),
    (("estimate", "-m", "llama-3.1-8b", "-p", "H1000"), "H1000"),
    (("estimate", "-m", "llama-3.1-8b,mixtral-8x7b", "-p", "H100-SXM"), "sweep"),
    ((*ESTIMATE, "-w", "chatt"), "chat"),
    ((*ESTIMATE, "--precision", "fp7"), "fp7"),
    ((*ESTIMATE, "--precision", ""), "--precision"),
    ((*ESTIMATE, "--stage", "prefil"), "prefill"),
    ((*ESTIMATE, "--stage", "serve"), "request, prefill, decode"),
    ((*ESTIMATE, "--assumptions", "real"), "genz"),
    ((*ESTIMATE, "--batch", "-1"), "batch"),
    ((*ESTIMATE, "--batch", "0"), "batch"),
    ((*ESTIMATE, "--batch", "nan"), "nan"),
    ((*ESTIMATE, "--batch", "inf"), "inf"),
    ((*ESTIMATE, "--batch", "2.5"), "2.5"),
    ((*ESTIMATE, "--batch", "many"), "many"),
    ((*ESTIMATE, "--batch", "8 GB"), "8 GB"),
    ((*ESTIMATE, "--batch", "1.0005k"), "1000.5"),
    ((*ESTIMATE, "--batch", "8", "--set", "batch=9"), "twice"),
    ((*ESTIMATE, "--set", "mem_bw=3T"), "'3T' has the prefix 'T' but no unit; add one, or write 3000000000000"),
    ((*ESTIMATE, "--set", "mem_bw=80 GB"), "80 GB"),
    ((*ESTIMATE, "--set", "mem_bw=0"), "mem_bw"),
    ((*ESTIMATE, "--set", "mem_bw=-1 TB/s"), "mem_bw"),
    ((*ESTIMATE, "--set", "mem_bw"), "NAME=VALUE"),
    ((*ESTIMATE, "--set", "mem_bw="), "mem_bw"),
    ((*ESTIMATE, "--set", "mem_wb=1 TB/s"), "mem_bw"),
    ((*ESTIMATE, "--set", "bandwidth=1 TB/s"), "several"),
    ((*ESTIMATE, "--set", "moe.experts=8"), "moe.experts"),
    (("estimate", *POINT, "--tp", "7"), "heads = 64"),
    (("estimate", *POINT, "--tp", "8", "--ep", "2"), "no experts"),
    (("estimate", *POINT, "--pp", "81"), "80 layers"),
    ((*ESTIMATE, "--prefill", "512"), "PAST:NEW"),
    ((*ESTIMATE, "--decode", "1:2:3"), "1:2:3"),
    ((*ESTIMATE, "--prefill", "0:512", "--stage", "decode"), "chunked"),
    ((*ESTIMATE, "--stage", "chunked"), "chunk"),
    ((*ESTIMATE, "--acceptance", "0.5"), "--draft"),
    ((*ESTIMATE, "--stage", "speculative_decode"), "--draft MODEL"),
    (("estimate", "-m", "bert-base", "-p", "H100-SXM"), "--stage encode"),
    ((*ESTIMATE, "--draft", "llama-3.2-1b", "--acceptance", "1.5"), "1.5"),
    ((*ESTIMATE, "--draft", "llama-3.2-1b", "--breakdown"), "breakdown"),
    ((*SWEEP, "--axis", "mem_wb=1,2"), "mem_bw"),
    ((*SWEEP, "--axis", "qwertyuiop=1,2"), "qwertyuiop"),
    ((*SWEEP, "--axis", "tp"), "tp"),
    ((*SWEEP, "--axis", "tp="), "no values"),
    ((*SWEEP, "--axis", "tp=1,"), "tp=1,"),
    ((*SWEEP, "--axis", "tp=1,1"), "twice"),
    ((*SWEEP, "--axis", "tp=1,2", "--axis", "tp=4"), "twice"),
    ((*SWEEP, "--axis", "tp=1,2", "--tp", "2"), "twice"),
    ((*SWEEP, "--axis", "tp=0,2"), "tp"),
    ((*SWEEP, "--axis", "tp=1,nan"), "nan"),
    ((*SWEEP, "--axis", "mem_bw=1TB/s:2TB/s"), "START:STOP:NUM"),
    ((*SWEEP, "--axis", "mem_bw=1TB/s:2TB/s:0"), "num = 0"),
    ((*SWEEP, "--axis", "mem_bw=1TB/s:inf:5"), "mem_bw"),
    ((*SWEEP, "--axis", "mem_bw=0:2TB/s:5:log"), "above 0"),
    ((*SWEEP, "--axis", "mem_bw=1TB/s:2TB/s:5:cubic"), "cubic"),
    ((*SWEEP, "--axis", "mem_bw=1TB:2TB:5"), "mem_bw"),
    ((*SWEEP, "--axis", "mem_bw=1TB/s,2GB"), "units"),
    ((*SWEEP, "--axis", "mem_bw=1TB/s,2TB/s@"), "@"),
    ((*SWEEP, "--axis", "mem_bw=1e12,2e12@x", "--axis", "flops=1e15,2e15,3e15@x"), "zipped"),
    ((*SWEEP, "--axis", "mem_bw=1TB/s:2TB/s:100000", "--axis", "flops=1e15:2e15:10000000"), "bytes"),
    ((*SWEEP, "--figures", "tpott,"), "--figures"),
    ((*SWEEP, "--figures", "latencies"), "latency"),
    (("sweep", "-m", "llama-3.1-8b,llama-3.1-8b", "-p", "H100-SXM"), "llama-3.1-8b"),
    (("sweep", "-m", "llama-3.1-8b,", "-p", "H100-SXM"), "--model"),
    ((*SWEEP, "-o", "missing/out.nc"), "missing"),
    ((*SWEEP, "-o", "out.txt"), ".nc or .zarr"),
    ((*SWEEP, "--store", "out.txt"), "must end in .zarr"),
    ((*SWEEP, "--chunks", "mem_bw=2"), "give --store FILE.zarr too"),
    ((*SWEEP, "--store", "x.zarr", "--chunks", "mem_bw"), "--chunks 'mem_bw': must be DIM=N, for example mem_bw=256"),
    ((*SWEEP, "--store", "x.zarr", "--chunks", "bandwidth=2"), "no dimension 'bandwidth'"),
    ((*SWEEP, "--plot", "missing/out.png"), "missing"),
    ((*SWEEP, "--plot", "out.gif"), ".png"),
    (("parity", "nothing.csv", "--models", "models.json"), "nothing.csv"),
    (("parity", "cases.csv", "--models", "nothing.json"), "nothing.json"),
    (("parity", "cases.csv", "--models", "cases.csv"), "JSON"),
    (("parity", "models.json", "--models", "models.json"), "columns"),
    ((*PARITY, "--out", "predicted.txt"), ".csv"),
    ((*PARITY, "--out", "missing/predicted.csv"), "missing"),
    ((*PARITY, "--dtype", "float16"), "float16"),
    ((*PARITY, "--rtol", "nan"), "nan"),
    ((*PARITY, "--rtol", "-1"), "-1"),
    ((*PARITY, "--rtol", "tight"), "tight"),
    (("models", "no-such-model"), "no-such-model"),
    (("platforms", "no-such-platform"), "no-such-platform"),
    (("workloads", "chatt"), "chat"),
]


@pytest.mark.first(44)
@pytest.mark.parametrize(("args", "word"), BAD, ids=[" ".join(args) or "unknown" for args, _ in BAD])
def test_bad_input_is_one_line(args, word, folder):
    result = _run(*(args or (word,)))
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.endswith("\n")
    assert result.stderr.count("\n") == 1
    assert word in result.stderr
    assert "gz." not in result.stderr
    said, _, hint = result.stderr.partition("did you mean ")
    assert hint.count(", ") < 2 or hint.rstrip("?\n") not in said  # one list is enough
    assert _made(folder) == set()


def test_interrupt_is_quiet(monkeypatch):
    def interrupted(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(gz, "estimate", interrupted)
    result = _run("estimate", *EIGHT)
    assert result.exit_code == 130
    assert result.stdout + result.stderr == ""


def test_other_exceptions_keep_their_traceback(monkeypatch):
    def broken(*args, **options):
        raise RuntimeError("broken")

    monkeypatch.setattr(gz, "estimate", broken)
    with pytest.raises(RuntimeError, match="broken"):
        _run("estimate", *EIGHT)


@pytest.mark.slow
def test_installed_script():
    script = Path(sys.executable).with_name("genz-jax")
    good = subprocess.run([script, "platforms", "H100-SXM", "--json"], capture_output=True, text=True, check=False)
    assert (good.returncode, good.stderr) == (0, "")
    assert json.loads(good.stdout)["H100-SXM"]["numbers"]["mem_bw"] == 3.35e12
    bad = subprocess.run([script, "platforms", "nothing"], capture_output=True, text=True, check=False)
    assert bad.returncode == 2
    assert bad.stdout == ""
    assert bad.stderr.startswith("error: PATTERN = 'nothing'")


@pytest.mark.slow
def test_what_an_engine_sets_aside_is_that_of_the_library():
    options = ["--stage", "memory", "--max-num-seqs", "1024", "--max-num-batched-tokens", "2048", "--json"]
    found = json.loads(_run("estimate", "-m", "llama-3.1-8b", "-p", "H100-SXM", *options).stdout)["figures"]
    engine = gz.Engine(tokens_per_step=2048, max_sequences=1024)
    expected = gz.estimate("llama-3.1-8b", "H100-SXM", stage="memory", engine=engine)
    for name in ("activations", "longest_context", "largest_batch"):
        assert found[name]["value"] == float(getattr(expected, name))
    assert float(expected.activations) == 1024 * 128_256 * 40  # bytes of an entry of the vocabulary: docs/memory.md
