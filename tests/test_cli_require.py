"""The commands `require` and `sensitivity` say what the library says."""

import json

import pytest
from typer.testing import CliRunner, Result

import genz_jax as gz
from genz_jax.cli import app

POINT = ("-m", "gpt2", "-p", "H100-SXM")


def _run(*args: str) -> Result:
    return CliRunner().invoke(app, list(args), catch_exceptions=False)


@pytest.mark.slow
def test_require_is_that_of_the_library():
    result = _run("require", "mem_bw", *POINT, "--batch", "4", "--slo", "tpot=1ms,2ms", "--slo", "ttft=100ms", "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    slo = gz.SLO(ttft="100 ms", tpot=gz.axis(["1 ms", "2 ms"]))
    expected = gz.require("mem_bw", "gpt2", "H100-SXM", gz.Workload(batch=4), slo=slo)
    assert [point["mem_bw"]["value"] for point in found["points"]] == list(expected.mem_bw.values)
    assert [point["limit"] for point in found["points"]] == ["tpot", "tpot"]
    assert found["extreme"] == "least"


def test_require_says_why_not():
    result = _run("require", "mem_bw", *POINT, "--batch", "4", "--slo", "tpot=1ns,2ms", "--slo", "ttft=100ms")
    assert result.exit_code == 0
    assert "cannot: bound by the matrix units" in result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("form", [(), ("--json",)])
def test_require_ends_with_1_where_nothing_meets_the_objective(form):
    assert _run("require", "mem_bw", *POINT, "--slo", "tpot=1ns", *form).exit_code == 1


@pytest.mark.slow
def test_sensitivity_is_that_of_the_library():
    result = _run("sensitivity", *POINT, "--stage", "decode", "--json", "--top", "3")
    assert result.exit_code == 0, result.stderr
    (point,) = json.loads(result.stdout)["points"]
    ds = gz.sensitivity("gpt2", "H100-SXM", stage="decode")
    table = gz.rank_parameters(ds, most=3)
    assert [row["parameter"] for row in point["helps"]] == list(table.parameter.values)
    assert [row["gain"] for row in point["helps"]] == list(table.gain.values)
    assert sum(point["shares"].values()) == pytest.approx(1.0)


@pytest.mark.first(2)
@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("require", "speed", *POINT, "--slo", "tpot=1ms"), ["speed", "mem_bw"]),
        (("require", "mem_bw", *POINT), ["no limit"]),
        (("require", "mem_bw", *POINT, "--slo", "tpot=fast"), ["fast"]),
        (("require", "mem_bw", *POINT, "--slo", "tpot=1ms", "-o", "x.csv"), ["x.csv", ".nc"]),
        (("require", "mem_bw", *POINT, "-w", "ai-assistant,chat"), ["ai-assistant"]),
        (("sensitivity", *POINT, "--figures", "memory"), ["memory"]),
        (("sensitivity", *POINT, "--step", "0"), ["step"]),
    ],
)
def test_bad_input_is_one_line(args, words):
    result = _run(*args)
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert all(word in result.stderr for word in words), result.stderr
