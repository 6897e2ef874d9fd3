"""The benchmarks in small: all competitors agree, and the report, its targets and its figure are made of the record."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "benchmarks", "-q", "-p", "no:cacheprovider", "-o", "addopts="]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return subprocess.run(
        [*command, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def report(record: Path, out: Path) -> str:
    subprocess.run(
        [sys.executable, "benchmarks/report.py", "--json", str(record), "--out", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert (out / "results.png").stat().st_size > 20_000
    return (out / "results.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_one_contest_and_its_report(tmp_path):
    record = tmp_path / "results.json"
    done = run("--quick", "--benchmark-only", f"--benchmark-json={record}", "-k", "hardware and 10000-decode")
    assert done.returncode == 0, done.stdout[-3000:]
    (contest,) = [bench["extra_info"] for bench in json.loads(record.read_text())["benchmarks"]]
    found = {one["name"]: one for one in contest["competitors"]}
    assert {"genz_jax", "NumPy"} <= set(found)
    if shutil.which("cc"):
        assert {"C, naive", "C, factored", "C, naive, resident", "C, factored, resident"} <= set(found)
        assert {"write, resident", "write, fresh", "multiply-add"} <= set(contest["limits"])
        assert all(rate > 0 for rate in contest["limits"].values())
    assert contest["points"] == 10_000
    assert 40_000 <= contest["result_bytes"] < 45_000
    assert contest["traces"] >= 1
    for name, one in found.items():
        assert one["points_per_second"] > 0
        assert name == "genz_jax" or one["worst_relative_difference"] < 1e-5
    text = report(record, tmp_path)
    assert "| hardware, decode | 10,000 | genz_jax |" in text
    assert "no measurement" in text
    assert "| – |" in text  # targets hold at sizes that this run has not


def test_without_a_gpu_the_gpu_run_says_so():
    done = run("--gpu", "--collect-only")
    assert done.returncode == 4
    assert "--gpu: JAX has no GPU here" in done.stderr


@pytest.mark.slow
def test_all_contests(tmp_path):
    record = tmp_path / "results.json"
    done = run("--quick", "--benchmark-only", f"--benchmark-json={record}")
    assert done.returncode == 0, done.stdout[-3000:]
    benches = json.loads(record.read_text())["benchmarks"]
    cases = {bench["extra_info"]["case"] for bench in benches}
    assert {"breakdown", "energy", "request", "gradient", "requirement", "best parallelism", "best of all"} <= cases
    assert {"hardware, decode", "hardware, prefill", "memory"} <= cases
    text = report(record, tmp_path)
    assert all(f"| {case} |" in text for case in cases - {"memory"})
