"""Calibration: tables are read with every doubt refused, known constants come back, measured times are met."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import genz_jax as gz
from genz_jax.calibration import jobs, validate
from genz_jax.calibration.table import COLUMNS, Row, read_table
from genz_jax.catalog import ideal_kernels
from genz_jax.cli import app
from genz_jax.kernels import Form, Gemm, Overlap, Stream
from genz_jax.specs import Precision
from genz_jax.work.operators.elementwise import activation, norm
from genz_jax.work.operators.products import attention_scores, attention_values, gemm, grouped_gemm

DATA = Path(__file__).parent / "data" / "h100"
OPERATORS, STEPS = DATA / "operators.csv", DATA / "steps.csv"
H100 = gz.platform("H100-SXM")
US = 1e-6


def write(path: Path, rows: list[tuple[str, str, str, float]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for section, name, parameters, us in rows:
            writer.writerow([section, name, parameters, f"{us:.6f}", f"{us:.6f}", ""])
    return path


def made(form: Form, section: str, name: str, cases: list[str]) -> list[tuple[str, str, str, float]]:
    """Rows that a form would give."""
    parameters = [dict(pair.split("=") for pair in case.split()) for case in cases]
    rows = [Row(i, section, name, p, math.nan, math.nan, math.nan) for i, p in enumerate(parameters)]
    work = jobs.job(jobs.asked_of(rows, ""), name, H100, ideal_kernels(H100))
    return [
        (section, name, case, float(t) * 1e6) for case, t in zip(cases, np.asarray(form.seconds(work)), strict=True)
    ]


def products(count: int = 400) -> list[str]:
    rng = np.random.default_rng(1)
    m, n, k = (2.0 ** rng.uniform(low, high, count) for low, high in ((0, 13), (8, 15), (8, 14)))
    return [f"m={int(a)} n={int(b)} k={int(c)}" for a, b, c in zip(m, n, k, strict=True)]


TRUE = Gemm(2.5 * US, 0.8, 0.9, depth_time=0.3 * US, fill=150.0, tile=64.0, splits=8.0, split_time=2.5 * US)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    table = write(tmp_path_factory.mktemp("made") / "made.csv", made(TRUE, "gemm", "bf16", products()))
    return gz.calibrate(table, "H100-SXM", progress=False)


# ------------------------------------------------------------------------------------------------------------- tables

BAD = {
    "no times": ("section,name,parameters\ngemm,bf16,m=1 n=1 k=1\n", "lacks the columns us, us_min, watts"),
    "another column": ("section,name,parameters,us,us_min,watts,x\n", "unknown columns x"),
    "empty": ("", "is empty"),
    "no rows": (",".join(COLUMNS) + "\n", "has no rows"),
    "nan": (",".join(COLUMNS) + "\ngemm,bf16,m=1 n=2 k=3,nan,1,\n", "line 2: us = nan: must be finite and above 0"),
    "zero": (",".join(COLUMNS) + "\ngemm,bf16,m=1 n=2 k=3,0,0,\n", "line 2: us = 0: must be finite and above 0"),
    "seconds": (",".join(COLUMNS) + "\ngemm,bf16,m=1 n=2 k=3,0.00001,0.00001,\n", "line 2: us = .*seconds"),
    "short": (",".join(COLUMNS) + "\ngemm,bf16,m=1 n=2 k=3\n", "line 2: has 3 values"),
    "no pairs": (",".join(COLUMNS) + "\ngemm,bf16,m 1,5,5,\n", "line 2: parameters 'm 1': must be key=value"),
    "twice": (",".join(COLUMNS) + "\ngemm,bf16,m=1 m=2 n=1 k=1,5,5,\n", "line 2: the parameter m stands twice"),
    "least above": (",".join(COLUMNS) + "\ngemm,bf16,m=1 n=2 k=3,5,6,\n", "line 2: us_min = 6 is above us = 5"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_table_is_refused_with_its_line(case, tmp_path):
    text, words = BAD[case]
    (tmp_path / "bad.csv").write_text(text)
    with pytest.raises(ValueError, match=words):
        gz.calibrate(tmp_path / "bad.csv", "H100-SXM", progress=False)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("gemm,bf16,m=1 n=2,5,5,", "line 2: no k among m, n"),
        ("gemm,bf16,m=1 n=2 k=x,5,5,", "line 2: k = 'x': must be a number above 0"),
        ("gem,bf16,m=1 n=2 k=3,5,5,", "line 2: unknown section 'gem/bf16'"),
        ("decode,llama-3.1-8b,layers=32 batch=1 context=9,5,5,", "too few rows of operators .*steps alone"),
        ("gemm,bf16,m=1 n=2 k=3,5,5,", "too few rows of operators .*1 of gemm/bf16"),
    ],
)
def test_a_row_that_no_kernel_stands_for_is_refused(row, words, tmp_path):
    (tmp_path / "bad.csv").write_text(f"{','.join(COLUMNS)}\n{row}\n")
    with pytest.raises(ValueError, match=words):
        gz.calibrate(tmp_path / "bad.csv", "H100-SXM", progress=False)


def test_the_columns_are_those_of_the_measured_tables():
    assert OPERATORS.read_text().partition("\n")[0].split(",") == list(COLUMNS)
    assert len(read_table(OPERATORS)) > 2000


# --------------------------------------------------------------------------------------------------------------- jobs


def test_rows_ask_for_what_the_engines_operators_ask_for():
    def asked(section: str, name: str, **p: float) -> jobs.Asked:
        row = Row(1, section, name, {key: str(value) for key, value in p.items()}, 1.0, 1.0, 1.0)
        return jobs.asked_of([row], "")

    precision = Precision("bf16")
    op = gemm("x", "ffn", batch=1.0, m=10.0, n=300.0, k=70.0, precision=precision)
    got = asked("gemm", "bf16", m=10, n=300, k=70)
    assert (got.flops[0], got.bytes[0]) == (op.flops, op.input + op.weight + op.output)

    sizes = dict(batch=3.0, heads=8.0, kv_heads=2.0, head_dim=64.0)
    for section, tokens, queries in (("prefill_attention", "seq", 50.0), ("decode_attention", "context", 1.0)):
        pairs = 50.0 * 51.0 / 2.0 if queries > 1 else 50.0
        tokens_of = {"queries": queries, "context": 50.0, "pairs": pairs}
        both = [
            build("x", precision=precision, **sizes, **tokens_of)  # type: ignore[arg-type]
            for build in (attention_scores, attention_values)
        ]
        got = asked(section, "flash", **sizes, **{tokens: 50})
        assert got.flops[0] == sum(op.flops for op in both)
        assert got.bytes[0] == both[0].input + both[0].weight + both[1].weight + both[1].output

    got = asked("experts", "bf16_gate_up", tokens=6, top_k=2, hidden=32, intermediate=48, distinct=4)
    op = grouped_gemm("x", "ffn", groups=4.0, m=3.0, n=96.0, k=32.0, precision=precision)
    assert (got.flops[0], got.bytes[0]) == (op.flops, op.input + op.weight + op.output)
    op = norm("x", rows=5.0, width=64.0, precision=precision)
    assert asked("memory", "add_rms_norm", tokens=5, hidden=64).bytes[0] == op.input + op.output
    op = activation("x", elements=320.0, inputs=2.0, precision=precision)
    assert asked("memory", "silu_mul", tokens=5, intermediate=64).bytes[0] == op.input + op.output


# ---------------------------------------------------------------------------------------------------------------- fit


def test_constants_that_made_a_table_come_back(found):
    form = found.library.forms["gemm/bf16"]
    assert type(form) is Gemm
    for name in ("launch", "depth_time", "compute_efficiency", "memory_efficiency", "fill", "split_time"):
        assert float(getattr(form, name)) == pytest.approx(float(getattr(TRUE, name)), rel=0.005), name
        parameter = found.parameters["gemm/bf16"][name]
        assert parameter.determined
        assert parameter.low <= parameter.value <= parameter.high
    assert found.errors["gemm/bf16"].error < 0.002


def test_times_twice_as_long_are_predicted_twice_as_long(found, tmp_path):
    cases = products()
    rows = [(s, n, p, 2.0 * us) for s, n, p, us in made(TRUE, "gemm", "bf16", cases)]
    slow = gz.calibrate(write(tmp_path / "slow.csv", rows), "H100-SXM", progress=False)
    one, two = (made(each.library.forms["gemm/bf16"], "gemm", "bf16", cases[:50]) for each in (found, slow))
    np.testing.assert_allclose([b[-1] / a[-1] for a, b in zip(one, two, strict=True)], 2.0, rtol=0.02)


def test_what_a_table_does_not_determine_keeps_what_was_known(tmp_path):
    known = Gemm(9 * US, 0.77, 0.6, depth_time=0.123 * US, fill=111.0, tile=64.0, splits=8.0, split_time=4.2 * US)
    platform = H100.replace(kernels=ideal_kernels(H100).replace(gemm_bf16=known))
    cases = [
        f"m={m} n={n} k={k}" for m in (4096, 8192, 16384) for n in (8192, 16384) for k in (4096, 8192, 9000, 16384)
    ]
    table = write(tmp_path / "large.csv", made(TRUE, "gemm", "bf16", cases))  # whose depth is never cut
    found = gz.calibrate(table, platform, progress=False)
    form = found.library.forms["gemm/bf16"]
    assert "gemm/bf16.split_time" in found.undetermined
    assert float(form.split_time) == pytest.approx(4.2 * US)  # type: ignore[union-attr]
    assert float(form.compute_efficiency) == pytest.approx(0.8, rel=0.02)  # type: ignore[union-attr]


def test_kernels_that_a_table_has_too_few_rows_of_stay_as_they_are(tmp_path):
    known = Overlap(7 * US, 0.5, 0.6, exponent=2.0)
    platform = H100.replace(kernels=ideal_kernels(H100).replace(decode_attention=known, experts_bf16=known))
    few = "batch=1 context=512 heads=8 kv_heads=8 head_dim=128"
    rows = [*made(TRUE, "gemm", "bf16", products(60)), ("decode_attention", "split_kv", few, 9.0)]
    found = gz.calibrate(write(tmp_path / "few.csv", rows), platform, progress=False)
    kernels = found.platform.kernels
    assert kernels is not None
    assert type(kernels.gemm_bf16) is Gemm
    for form in (kernels.decode_attention, kernels.experts_bf16):
        assert form.constants == known.constants  # type: ignore[union-attr]
    assert found.library.notes["too_few_rows"] == ["decode_attention/split_kv"]
    assert "too few rows, left as known before: decode_attention/split_kv" in str(found)
    found.save(tmp_path / "few.toml")
    assert gz.platform(tmp_path / "few.toml").kernels.experts_bf16.constants == known.constants  # type: ignore[union-attr]


def test_a_file_is_a_platform_wherever_a_name_is(found, tmp_path):
    found.save(tmp_path / "mine.toml")
    read = gz.platform(tmp_path / "mine.toml")
    load = gz.Workload(batch=4)
    alone = float(gz.estimate("llama-3.2-1b", found.platform, load).latency)
    assert float(gz.estimate("llama-3.2-1b", read, load).latency) == pytest.approx(alone, rel=1e-9)
    assert float(gz.estimate("llama-3.2-1b", str(tmp_path / "mine.toml"), load).latency) == pytest.approx(
        alone, rel=1e-9
    )
    assert "made.csv" in read.basis
    said = CliRunner().invoke(
        app, ["estimate", "-m", "llama-3.2-1b", "-p", str(tmp_path / "mine.toml"), "--batch", "4"]
    )
    assert said.exit_code == 0
    assert "measured kernels: H100-SXM, made.csv" in said.output
    ideal = CliRunner().invoke(app, ["estimate", "-m", "llama-3.2-1b", "-p", "H100-SXM"])
    assert "ideal kernels" in ideal.output


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (('form = "Gemm"', 'form = "Gem"'), "form = 'Gem': must be one of"),
        (("launch", "lunch"), "lunch"),
        (("gemm_bf16 =", "gemm_b16 ="), "use.gemm_b16: no such kernel; did you mean"),
        (("title", "titel"), "lacks title"),
        (("[", "[["), "cannot be read"),
    ],
)
def test_a_damaged_file_is_refused(found, change, words, tmp_path):
    found.save(tmp_path / "mine.toml")
    text = (tmp_path / "mine.toml").read_text()
    (tmp_path / "bad.toml").write_text(text.replace(*change, 1))
    with pytest.raises(ValueError, match=words):
        gz.platform(tmp_path / "bad.toml")


# ---------------------------------------------------------------------------------------------------------- measured

TARGETS = {
    "gemm/bf16": 0.055,
    "gemm/fp8_tensorwise": 0.065,
    "gemm/fp8_rowwise": 0.065,
    "decode_attention/split_kv": 0.06,
    "prefill_attention/cudnn": 0.07,
    "prefill_attention/flash": 0.09,
    "experts/bf16": 0.065,
    "memory/add_rms_norm": 0.10,
    "memory/silu_mul": 0.10,
    "memory/quantize_fp8": 0.10,
}
"""Errors that predictions of an H100's operators may have, of folds that no constant was fitted on."""

STEP_TARGETS = {
    "decode/llama-3.1-8b/bf16": 0.03,
    "decode/llama-3.1-8b/fp8": 0.06,
    "prefill/llama-3.1-8b/bf16": 0.05,
    "prefill/llama-3.1-8b/fp8": 0.065,
    "decode/mixtral-8x7b/bf16": 0.05,
    "prefill/mixtral-8x7b/bf16": 0.09,
}
"""The same of whole steps, of which three constants are fitted, and none of a decode step of a dense model."""


@pytest.fixture(scope="module")
def measured():
    return gz.calibrate([OPERATORS, STEPS], "H100-SXM", title="H100-SXM, PyTorch 2.11", progress=False)


@pytest.mark.slow
def test_measured_times_are_met(measured):
    for name, target in (TARGETS | STEP_TARGETS).items():
        assert measured.errors[name].error <= target, (name, measured.errors[name])


@pytest.mark.slow
def test_what_is_shipped_is_what_the_tables_give(measured):
    shipped = gz.catalog.measured("H100-SXM", "pytorch")
    for name, form in measured.library.forms.items():
        assert type(shipped.forms[name]) is type(form)
        for constant, value in form.constants.items():
            assert shipped.forms[name].constants[constant] == pytest.approx(value, rel=1e-3), (name, constant)


def test_shipped_kernels_meet_the_tables_operators():
    found = validate("operators", OPERATORS, "H100-SXM")
    assert np.isfinite(found.predicted).all()
    shipped = gz.catalog.measured("H100-SXM", "pytorch")
    rows = [row for row in read_table(OPERATORS) if row.section == "gemm" and row.name == "bf16"]
    work = jobs.job(jobs.asked_of(rows, ""), "bf16", H100, ideal_kernels(H100))
    times = np.asarray(shipped.forms["gemm/bf16"].seconds(work))
    assert np.expm1(np.abs(np.log(times / (np.array([row.us for row in rows]) * US))).mean()) < 0.05


def test_predictions_need_no_measured_columns(found, tmp_path):
    found.save(tmp_path / "mine.toml")
    with OPERATORS.open() as file:
        lines = [line for line in csv.reader(file)][:400]
    whole, bare, moved = (tmp_path / f"{name}.csv" for name in ("whole", "bare", "moved"))
    rng = np.random.default_rng(0)
    times = rng.permutation([line[3] for line in lines[1:]])
    tables = {
        whole: lines,
        bare: [line[:3] for line in lines],
        moved: [lines[0], *([*line[:3], t, t, ""] for line, t in zip(lines[1:], times, strict=True))],
    }
    predicted = []
    for path, content in tables.items():
        with path.open("w", newline="") as file:
            csv.writer(file).writerows(content)
        out = tmp_path / f"{path.stem}_out.csv"
        said = CliRunner().invoke(
            app, ["validate", "operators", str(path), "-p", str(tmp_path / "mine.toml"), "--out", str(out)]
        )
        assert said.exit_code == 0, said.output
        with out.open() as file:
            rows = list(csv.reader(file))
        assert [row[:-1] for row in rows] == content
        assert rows[0][-1] == "predicted_us"
        predicted.append([row[-1] for row in rows[1:]])
    assert predicted[0] == predicted[1] == predicted[2]
    known = [text != "" for text in predicted[0]]
    assert known == [line[:2] == ["gemm", "bf16"] for line in lines[1:]]  # no other kernel was fitted


@pytest.mark.slow
def test_a_step_is_one_pass_whatever_its_size(tmp_path):
    table = tmp_path / "steps.csv"
    parameters = ["layers=32 format=bf16 batch=512 context=65536", "layers=8 format=fp8 batch=1 context=256"]
    table.write_text(
        "section,name,parameters\n"
        + "".join(f"decode,llama-3.1-8b,{p}\n" for p in parameters)
        + "decode,no-such-model,layers=8 batch=1 context=9\n"
    )
    found = validate("steps", table, "H100-SXM")
    load = gz.Workload(batch=512, input_tokens=65535, output_tokens=2)
    options = {"stage": "decode", "assumptions": gz.Assumptions(infeasible="finite")}
    alone = gz.estimate("llama-3.1-8b", "H100-SXM", load, precision="bf16", **options).latency
    assert found.predicted[0] == pytest.approx(float(alone), rel=1e-9)
    assert 0 < found.predicted[1] < found.predicted[0]
    assert np.isnan(found.predicted[2])


def test_kernels_by_name():
    platform = gz.platform("H100-SXM", kernels="pytorch")
    assert "PyTorch" in platform.basis
    assert gz.platform("H100-SXM", kernels="ideal").kernels is None
    assert isinstance(platform.kernels.norm, Stream)  # type: ignore[union-attr]
    assert isinstance(platform.kernels.experts_bf16, Overlap)  # type: ignore[union-attr]
    with pytest.raises(
        ValueError, match="kernels = 'vllm': none of that stack were measured on H100-SXM; there are ideal"
    ):
        gz.platform("H100-SXM", kernels="vllm")
    slower = gz.sweep("llama-3.2-1b", platform, gz.Workload(batch=gz.axis([1, 8])), progress=False)
    assert slower.attrs["kernels"].startswith("measured kernels: H100-SXM, PyTorch")
    said = CliRunner().invoke(app, ["estimate", "-m", "llama-3.2-1b", "-p", "H100-SXM", "--kernels", "pytorch"])
    assert said.exit_code == 0
    assert "measured kernels" in said.output
