"""Measuring a GPU: the table and how it is gone on with, the plan, the time it takes, what is said of the rest."""

import csv
import dataclasses
import itertools
import json
import re
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import genz_jax as gz
from genz_jax import measure as engine
from genz_jax.cli import app
from genz_jax.measure.report import Report
from genz_jax.measure.table import COLUMNS, SECTIONS, Table

ROW = ("gemm", "bf16", {"m": 1, "n": 2, "k": 3}, (1.5, 1.25))
KEYS = {
    "gemm": {("bf16", "m n k"), ("fp8_rowwise", "m n k"), ("fp8_tensorwise", "m n k")},
    "decode_attention": {
        (name, "batch context heads kv_heads head_dim") for name in ("split_kv", "flash_packed", "cudnn_packed")
    },
    "prefill_attention": {(name, "batch seq heads kv_heads head_dim") for name in ("flash", "cudnn")},
    "experts": {
        (name, "tokens experts top_k hidden intermediate distinct busiest") for name in ("bf16_gate_up", "bf16_down")
    },
    "memory": {
        *(("copy", "bytes"), ("fill", "bytes"), ("add_rms_norm", "tokens hidden"), ("quantize_fp8", "tokens hidden")),
        *(("silu_mul", "tokens intermediate"), ("rotate_and_cache", "tokens heads kv_heads head_dim")),
    },
}
"""Names and parameters of operators: those of the tables that are calibrated with."""

MODELS = ("llama-3.1-8b", "llama-3.1-70b", "mixtral-8x7b", "qwen3-30b-a3b")
KEYS["decode"] = {(name, "layers format batch context") for name in MODELS}
KEYS["prefill"] = {(name, "layers format batch tokens attention") for name in MODELS}

TORCH = pytest.mark.slow  # PyTorch takes seconds to import, and the first tier does without it


@pytest.fixture
def place(tmp_path) -> Path:
    return tmp_path / "table.csv"


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def keys_of(parameters: str) -> str:
    return " ".join(part.partition("=")[0] for part in parameters.split())


def measure(path: Path, sections: tuple[str, ...] = SECTIONS, seconds: float = 120.0, resume: bool = False) -> Report:
    pytest.importorskip("torch")
    return engine.measure(path, seconds, resume, sections, "cpu", progress=False)


# ---------------------------------------------------------------------------------------------------------- table


def test_a_table_is_lines_of_six_columns(place):
    with Table(place) as table:
        table.add(*ROW)
        assert place.read_text(encoding="utf-8").count("\n") == 2  # on the disk at once
        table.add("decode", "m", {"layers": 2, "format": "bf16"}, (10.0, 9.0), 123.45)
        assert table.rows == 2
    assert place.read_text(encoding="utf-8").splitlines() == [
        "section,name,parameters,us,us_min,watts",
        "gemm,bf16,m=1 n=2 k=3,1.5000,1.2500,",
        "decode,m,layers=2 format=bf16,10.0000,9.0000,123.5",
    ]


def test_a_table_is_not_written_over(place):
    Table(place).__exit__()
    before = place.read_bytes()
    with pytest.raises(ValueError, match=r"exists; go on with it by --resume, or choose another name"):
        Table(place)
    with pytest.raises(ValueError, match=r"must end in \.csv"):
        Table(place.with_suffix(".txt"))
    assert place.read_bytes() == before


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("cut", ["gemm,bf16,m=1 n=2 k=4,1.0", "gemm,bf16,m=1 n=2 k=4,1.0000,1.0000,", "g", '"', ""])
def test_a_line_that_was_not_finished_is_dropped(place, cut, newline):
    whole = newline.join([",".join(COLUMNS), "gemm,bf16,m=1 n=2 k=3,1.5000,1.2500,", ""])
    place.write_text(whole + cut, encoding="utf-8", newline="")
    with Table(place, resume=True) as table:
        assert (table.rows, table.kept) == (1, 1)
        table.add("gemm", "bf16", {"m": 1, "n": 2, "k": 4}, (2.0, 2.0))
    assert place.read_bytes().decode() == whole + "gemm,bf16,m=1 n=2 k=4,2.0000,2.0000,\n"
    assert [row["us"] for row in rows_of(place)] == ["1.5000", "2.0000"]


@pytest.mark.parametrize("begun", [None, "", "section,na"])
def test_a_table_without_a_whole_line_is_begun(place, begun):
    if begun is not None:
        place.write_text(begun, encoding="utf-8")
    with Table(place, resume=True) as table:
        table.add(*ROW)
    assert [row["us_min"] for row in rows_of(place)] == ["1.2500"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n1,2\n", "its columns are not section,name,parameters,us,us_min,watts; choose another name"),
        (",".join(COLUMNS) + "\ngemm,bf16,m=1,1.0,1.0,\ngemm,bf16,m=1,x,1.0,\n", "line 3 is no row"),
        (",".join(COLUMNS) + "\ngemm,bf16,m=1,1.0\n", "line 2 is no row"),
        (",".join(COLUMNS) + "\ngemm,bf16,m=1,0,0,\n", "line 2 is no row of the table; remove it and go on"),
        ("notes", "is no table; choose another name"),
    ],
)
def test_another_table_is_told_and_left_alone(place, text, said):
    place.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=re.escape(said)):
        Table(place, resume=True)
    assert place.read_text(encoding="utf-8") == text


def test_a_table_that_a_spreadsheet_wrote_is_gone_on_with(place):
    lines = ["\ufeff" + ",".join(COLUMNS), "gemm,bf16,m=1 n=2 k=3,1.5,1.25,", "", ""]
    place.write_text("\r\n".join(lines), encoding="utf-8", newline="")
    with Table(place, resume=True) as table:
        assert table.rows == 1
        table.add("gemm", "bf16", {"m": 1, "n": 2, "k": 4}, (2.0, 2.0))
    with Table(place, resume=True) as table:
        assert table.rows == 2


def test_what_is_found_in_measuring_does_not_tell_rows_apart(place):
    from genz_jax.measure.table import key

    with Table(place) as table:
        table.add("decode", "m", {"batch": 1, "distinct": "7.25"}, (1.0, 1.0))
        table.add("experts", "bf16_down", {"tokens": 4, "distinct": 7}, (1.0, 1.0))
    with Table(place, resume=True) as table:
        assert key("decode", "m", "batch=1") in table
        assert key("experts", "bf16_down", "tokens=4 distinct=7") in table
        assert key("experts", "bf16_down", "tokens=4 distinct=6") not in table


def test_a_report_has_a_line_for_each_cause():
    report = Report("a GPU")
    report.skipped["gemm", "fp8_rowwise", "no fp8 on this GPU"] += 690
    report.skipped["decode", "m", "out of memory"] += 1
    report.left.update(["gemm"] * 1234 + ["memory"])
    assert report.lines() == [
        "skipped: gemm fp8_rowwise, 690 cases: no fp8 on this GPU",
        "skipped: decode m, 1 case: out of memory",
        "no time left: 1,235 cases (gemm 1,234, memory 1); --resume times more of them",
    ]


# ----------------------------------------------------------------------------------------------------------- plan


def bench_of(**changes):
    """A bench on a GPU that is not there: cases are planned, their buffers never made."""
    torch = pytest.importorskip("torch")
    from genz_jax.measure import reference
    from genz_jax.measure.cases import Bench
    from genz_jax.measure.device import Device

    faulty = changes.pop("faulty", {})
    about: dict[str, Any] = {"kind": "cuda", "memory": 78e9, "cache": 50e6, "processors": 132, "shared": 232448}
    about |= {"fp8": torch.float8_e4m3fn, **changes}
    return Bench(Device("GPU", "cuda:0", **about), reference, faulty)


@TORCH
def test_the_plan_has_sections_names_and_parameters_of_the_tables():
    from genz_jax.measure import run

    cases = [case for stream in run.streams(bench_of(), SECTIONS) for case in stream.cases]
    found = {section: set() for section in SECTIONS}
    for case in cases:
        found[case.section].add((case.name, " ".join(case.parameters)))
        assert not case.unable
    assert found == KEYS
    assert sum(case.size < 78e9 for case in cases) / len(cases) > 0.98
    watched = sum(case.powered for case in cases) / len(cases)
    assert 0.01 < watched < 0.1


@TORCH
def test_sections_get_their_shares_and_cases_come_in_one_random_order():
    from genz_jax.measure import run

    plan, again = (run.streams(bench_of(), SECTIONS) for _ in range(2))
    assert sum(stream.share for stream in plan) == pytest.approx(1)
    for first, second in zip(plan, again, strict=True):
        assert [case.parameters for case in first.cases] == [case.parameters for case in second.cases]
    products = [case.parameters["m"] for case in plan[0].cases]
    assert products != sorted(products)
    assert len(set(products[:60])) > 15
    only = run.streams(bench_of(), ["prefill"])
    assert {case.section for stream in only for case in stream.cases} == {"prefill"}


@TORCH
def test_what_a_gpu_lacks_is_known_before_it_is_tried():
    from genz_jax.measure import run

    bench = bench_of(kind="rocm", fp8=None, faulty={"decode_split": "its kernel computes wrong values here"})
    unable = {
        (case.section, case.name, case.unable)
        for stream in run.streams(bench, SECTIONS)
        for case in stream.cases
        if case.unable
    }
    assert ("gemm", "fp8_rowwise", "no fp8 on this GPU") in unable
    assert ("memory", "quantize_fp8", "no fp8 on this GPU") in unable
    assert ("prefill_attention", "cudnn", "cuDNN is on NVIDIA's GPUs alone") in unable
    assert ("decode_attention", "split_kv", "its kernel computes wrong values here") in unable
    assert ("decode", "mixtral-8x7b", "its kernel computes wrong values here") in unable
    assert ("prefill", "llama-3.1-8b", "no fp8 on this GPU") in unable
    assert not any(section == "prefill" and name == "mixtral-8x7b" for section, name, _ in unable)


@TORCH
def test_layers_are_cut_to_the_memory():
    from genz_jax.measure import run, steps

    def layers(**changes) -> dict[tuple[str, str], Any]:
        cases = [case for stream in run.streams(bench_of(**changes), ["decode"]) for case in stream.cases]
        return {(case.name, str(case.parameters["format"])): case.parameters["layers"] for case in cases}

    full, small = layers(), layers(memory=22e9)
    assert {name: full[name, "bf16"] for name in MODELS} == {n: s.layers for n, s in steps.MODELS.items()}
    assert 20 < small["llama-3.1-8b", "bf16"] < 32
    assert small["llama-3.1-8b", "fp8"] == 32
    for (name, form), number in small.items():
        shape = dataclasses.replace(steps.MODELS[name], layers=number)
        assert shape.size(form == "fp8") < 0.6 * 22e9
    tiny = [case for stream in run.streams(bench_of(memory=2e9), ["decode"]) for case in stream.cases]
    assert all(case.size > 2e9 for case in tiny if case.name == "llama-3.1-70b")


@TORCH
def test_buffers_fill_the_cache_several_times():
    bench = bench_of()
    assert bench.copies(2 * 4096 * 4096) * 2 * 4096 * 4096 >= 3 * 50e6
    assert bench.copies(2 * 1024 * 1024) * 2 * 1024 * 1024 >= 3 * 50e6
    assert bench.copies(1e9) == 1
    assert bench.copies(1.0) == 128


@TORCH
def test_routing_gives_every_token_its_experts():
    pytest.importorskip("torch")
    from genz_jax.measure.products import routed

    for tokens, skewed in itertools.product((1, 16, 512), (False, True)):
        load = routed(tokens, 32, 4, skewed)
        assert load.sum() == 4 * tokens
        assert load.max() <= tokens
    assert routed(512, 32, 4, True).max() > 2 * routed(512, 32, 4, False).max()


@TORCH
@pytest.mark.parametrize("name", MODELS)
def test_decoders_have_the_sizes_of_the_catalogue(name):
    pytest.importorskip("torch")
    from genz_jax.measure.steps import MODELS as shapes

    shape, model = shapes[name], gz.model(name)
    whole = dataclasses.replace(shape, layers=int(float(model.layers)))
    assert whole.size(False) / 2 == pytest.approx(float(gz.parameter_count(model).total), rel=1e-3)


@TORCH
def test_formats_of_fp8_products():
    torch = pytest.importorskip("torch")
    from genz_jax.measure.device import _fp8

    for version, there in (((8, 0), False), ((8, 6), False), ((8, 9), True), ((9, 0), True), ((12, 0), True)):
        found = _fp8(types.SimpleNamespace(major=version[0], minor=version[1]), rocm=False)
        assert found is (torch.float8_e4m3fn if there else None)
    wanted = {"gfx90a:sramecc+": None, "gfx942:xnack-": torch.float8_e4m3fnuz, "gfx950": torch.float8_e4m3fn}
    assert {name: _fp8(types.SimpleNamespace(gcnArchName=name), rocm=True) for name in wanted} == wanted


def test_calibration_knows_every_kind_of_row():
    from genz_jax.calibration import jobs, steps
    from genz_jax.calibration.table import Row

    for section, kinds in KEYS.items():
        for name, parameters in kinds:
            if section in jobs.STEPS:
                assert {"bf16", "fp8"} <= set(steps.FORMATS)
                continue
            known = jobs.section_of(Row(2, section, name, {}, 1.0, 1.0, 1.0))
            assert known is not None, (section, name)
            assert set(known.keys) <= set(parameters.split())


# ------------------------------------------------------------------------------------------------------------ run


@TORCH
def test_a_run_times_every_kind_of_case(place):
    report = measure(place)
    rows = rows_of(place)
    assert place.read_text(encoding="utf-8").splitlines()[0] == ",".join(COLUMNS)
    assert report.added == report.rows == len(rows) > 50
    assert not report.left
    names = {"tiny", "tiny-moe"}
    for section, wanted in KEYS.items():
        found = {(row["name"], keys_of(row["parameters"])) for row in rows if row["section"] == section}
        if section in ("decode", "prefill"):
            keys = next(iter(wanted))[1]
            assert found == {("tiny", keys), ("tiny-moe", f"{keys} distinct")}
        else:
            assert found == {(name, keys) for name, keys in wanted if "cudnn" not in name}
    for row in rows:
        assert 0 < float(row["us_min"]) <= float(row["us"])
        assert row["watts"] == ""
        if row["name"] in names and "distinct" in row["parameters"]:
            assert 2 <= float(row["parameters"].rpartition("=")[2]) <= 4
    assert report.lines() == [
        "skipped: decode_attention cudnn_packed, 4 cases: cuDNN is on NVIDIA's GPUs alone",
        "skipped: prefill_attention cudnn, 4 cases: cuDNN is on NVIDIA's GPUs alone",
    ]


@TORCH
def test_a_run_is_gone_on_with(place):
    sections = ("gemm", "memory", "decode")
    first = measure(place, sections, seconds=1e-3)
    begun = place.read_bytes()
    assert 0 < first.rows < 10
    assert sum(first.left.values()) > 20
    place.write_bytes(begun + b"gemm,bf16,m=")
    second = measure(place, sections, resume=True)
    assert place.read_bytes().startswith(begun)
    assert second.rows == first.rows + second.added == first.rows + sum(first.left.values())
    rows = [tuple(row.values())[:3] for row in rows_of(place)]
    assert len(set(rows)) == len(rows) == second.rows
    whole = place.read_bytes()
    third = measure(place, sections, resume=True)
    assert (third.added, third.rows, third.lines()) == (0, second.rows, [])
    assert place.read_bytes() == whole


@TORCH
def test_time_is_shared_and_kept_to(place, monkeypatch):
    pytest.importorskip("torch")
    from genz_jax.measure import run

    now = itertools.count(0, 0.25)  # seconds at each look at the clock
    monkeypatch.setattr(run.time, "perf_counter", lambda: next(now))
    monkeypatch.setattr(run, "time_calls", lambda calls, device: run_timing())
    report = measure(place, ("gemm", "experts", "memory"), seconds=10.0)
    rows = [row["section"] for row in rows_of(place)]
    assert report.left
    assert next(now) < 14
    assert set(rows) == {"gemm", "experts", "memory"}
    assert rows.count("gemm") > rows.count("memory")


def run_timing():
    from genz_jax.measure.timing import Timing

    return Timing(2.0, 1.0, lambda: None)


@TORCH
def test_what_cannot_be_timed_is_said_once_for_each_cause(place, monkeypatch):
    torch = pytest.importorskip("torch")
    from genz_jax.measure import attention, products

    def full(*args: object, **more: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 12.00 GiB")

    def refused(*args: object, **more: object) -> None:
        raise RuntimeError("mat1 must have\nmuch more to say")

    def without(*args: object, **more: object) -> None:
        raise RuntimeError("No available kernel. Aborting execution.")

    monkeypatch.setattr(products, "scaled_product", full)
    monkeypatch.setattr(products, "grouped_product", refused)
    monkeypatch.setattr(attention, "attend", without)
    report = measure(place, ("gemm", "experts", "prefill_attention"))
    assert set(report.lines()) == {
        "skipped: gemm fp8_rowwise, 4 cases: out of memory",
        "skipped: gemm fp8_tensorwise, 4 cases: out of memory",
        "skipped: experts bf16_gate_up, 3 cases: RuntimeError: mat1 must have",
        "skipped: experts bf16_down, 3 cases: RuntimeError: mat1 must have",
        "skipped: prefill_attention flash, 4 cases: PyTorch has no such kernel here",
        "skipped: prefill_attention cudnn, 4 cases: cuDNN is on NVIDIA's GPUs alone",
    }
    assert {row["name"] for row in rows_of(place)} == {"bf16"}


@TORCH
def test_cases_that_do_not_fit_are_not_tried(place, monkeypatch):
    pytest.importorskip("torch")
    from genz_jax.measure import device

    found = dataclasses.replace(device.find("cpu"), memory=5e3)
    monkeypatch.setattr(device, "find", lambda wanted: found)
    report = measure(place, ("memory",))
    assert report.skipped["memory", "add_rms_norm", "out of memory"] == 0
    assert report.skipped["memory", "silu_mul", "out of memory"] == 0
    report = measure(place.with_name("b.csv"), ("gemm",))
    assert report.skipped["gemm", "bf16", "out of memory"] == 2
    assert report.rows == 10


@TORCH
def test_a_gpu_that_stops_ends_the_run_with_the_rows_kept(place, monkeypatch):
    pytest.importorskip("torch")
    from genz_jax.measure import device, products

    def lost(self: object) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nCUDA kernel errors")

    monkeypatch.setattr(device.Device, "wait", lost)
    monkeypatch.setattr(products, "scaled_product", lambda *args: lost(None))
    said = r"the GPU stopped working \(RuntimeError: CUDA error: an illegal .* encountered\); 4 rows are kept, go on "
    with pytest.raises(ValueError, match=said):
        measure(place, ("gemm",))
    assert len(rows_of(place)) == 4


@TORCH
def test_power_stands_in_some_rows(place, monkeypatch):
    pytest.importorskip("torch")
    from genz_jax.measure import power

    monkeypatch.setattr(power, "counter", lambda device: lambda: 0.0)
    monkeypatch.setattr(power, "mean_watts", lambda joules, replay: 321.04)
    measure(place, ("decode", "prefill"))
    watts = [row["watts"] for row in rows_of(place)]
    assert set(watts) == {"", "321.0"}
    assert watts.count("321.0") < len(watts) / 3


@TORCH
def test_a_counter_that_fails_leaves_the_time_of_the_row(place, monkeypatch):
    pytest.importorskip("torch")
    from genz_jax.measure import power

    asked = []

    def broken() -> float:
        asked.append(1)
        raise OSError("driver gone")

    monkeypatch.setattr(power, "counter", lambda device: broken)
    monkeypatch.setattr(power, "WARM", 0.0)
    report = measure(place, ("decode", "prefill"))
    assert report.rows == 24
    assert not report.skipped
    assert len(asked) == 1


@TORCH
def test_power_is_the_slope_of_the_counter_between_its_steps(monkeypatch):
    pytest.importorskip("torch")
    from genz_jax.measure import power

    now = itertools.count(0, 0.001)
    clock = [0.0]

    def tick() -> float:
        clock[0] = next(now)
        return clock[0]

    monkeypatch.setattr(power.time, "perf_counter", tick)
    watts = power.mean_watts(lambda: 250.0 * (int(clock[0] / 0.1) * 0.1), lambda: None)
    assert watts == pytest.approx(250, rel=0.01)
    assert power.mean_watts(lambda: 0.0, lambda: None) is None


@TORCH
def test_a_step_of_one_token_is_a_prefill_of_one_token():
    torch = pytest.importorskip("torch")
    from genz_jax.measure import device, run
    from genz_jax.measure.decoder import Decoder
    from genz_jax.measure.steps import TINY_MODELS

    bench = run.bench(device.find("cpu"))
    tokens = torch.arange(40)
    for shape, fp8 in itertools.product(TINY_MODELS.values(), (False, True)):
        if shape.experts and fp8:
            continue
        model = Decoder(bench, shape, fp8)
        keys, values = (bench.random(2, 40, 2, 1, 16) for _ in range(2))
        before = keys.clone()
        stepped = model.decode(tokens, keys, values)
        assert not torch.equal(keys, before)  # the step wrote its own
        assert (stepped == model.prefill(tokens[:, None], "flash")).float().mean() > 0.9


# -------------------------------------------------------------------------------------------------------- command


def cli(*args: str) -> Result:
    return CliRunner().invoke(app, ["measure", *args], catch_exceptions=False)


def test_the_command_says_what_is_wrong_in_one_line(place, monkeypatch):
    def error(*args: str) -> str:
        result = cli("--out", str(place), *args)
        assert result.exit_code == 2
        assert result.stdout == ""
        assert result.stderr.count("\n") == 1
        return result.stderr

    assert "--seconds = 'soon': must be a number of seconds" in error("--seconds", "soon")
    assert "--seconds = '0'" in error("--seconds", "0")
    assert "section 'gem': must be one of gemm, decode_attention" in error("--only", "gem")
    monkeypatch.setattr(engine.importlib.util, "find_spec", lambda name: None)
    assert "measuring needs PyTorch, which is not installed; pip install 'genz_jax[measure]'" in error()
    assert not place.exists()
    place.touch()
    assert "exists; go on with it by --resume, or choose another name" in error()


def test_help_has_examples():
    result = cli("--help")
    assert result.exit_code == 0
    assert result.stdout.count("genz-jax measure --out") >= 2


@TORCH
def test_a_missing_gpu_is_said_with_what_helps(place, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for built, said in ((None, "is built for CPUs; install one for CUDA or ROCm"), ("13.0", "see that nvidia-smi or")):
        monkeypatch.setattr(torch.version, "cuda", built)
        monkeypatch.setattr(torch.version, "hip", None)
        result = cli("--out", str(place))
        assert result.exit_code == 2
        assert said in result.stderr
        assert result.stderr.count("\n") == 1
    for name in ("tpu", "cuda:x"):
        assert f"device = {name!r}: must be cuda, cuda:N" in cli("--out", str(place), "--device", name).stderr
    assert not place.exists()


@TORCH
def test_the_command_writes_a_table(place):
    pytest.importorskip("torch")
    options = ("--out", str(place), "--device", "cpu", "--only", "gemm,prefill_attention")
    result = cli(*options)
    assert result.exit_code == 0
    assert result.stdout.endswith(f"16 rows timed, 16 in the table\nwritten: {place}\n")
    assert result.stderr == "skipped: prefill_attention cudnn, 4 cases: cuDNN is on NVIDIA's GPUs alone\n"
    assert cli(*options).exit_code == 2
    found = json.loads(cli(*options, "--resume", "--json").stdout)
    assert (found["rows"], found["added"], found["out"]) == (16, 0, str(place))
    assert len(found["not_timed"]) == 1


@pytest.mark.slow
def test_pytorch_is_imported_by_a_run_alone():
    code = "import sys, genz_jax.cli, genz_jax.measure; print([m for m in ('torch', 'triton') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
