"""Tables of the README: accuracy, computed now, and speed, from the saved results of the benchmarks."""

import re
import tomllib
from pathlib import Path

import figure
import jax
import numpy as np
import report
import results

import genz_jax as gz
from genz_jax import parity
from genz_jax.calibration import validate

ROOT = Path(__file__).parent.parent
DATA = ROOT / "tests" / "data" / "genz"


def accuracy() -> str:
    """Differences from the published analyser's tables, and from the parameter counts that the catalogue states."""
    lines = ["| compared with | what | cases | worst relative difference |", "|---|---|---:|---:|"]
    for name, double, tolerance in (("float64", True, 1e-9), ("float32", False, 1e-5)):
        with jax.enable_x64(double):
            found, _ = parity.run(DATA / "summary.csv", DATA / "models.json", tolerance)
        if found.differences:
            raise SystemExit(f"parity in {name}: {len(found.differences)} figures differ")
        lines.append(
            f"| published analyser, `genz`, {name} | {found.figures:,} figures of all stages | {found.cases:,} "
            f"| {found.worst:.1e} |"
        )
    catalogue = tomllib.loads((ROOT / "genz_jax" / "catalog" / "models.toml").read_text(encoding="utf-8"))
    published = {name: entry["parameters"] for name, entry in catalogue.items() if "parameters" in entry}
    held = gz.sweep(list(published), "H100-SXM", stage="prefill", figures=["weights"], progress=False).weights
    differences = np.abs(held.values / 2.0 / np.array(list(published.values())) - 1.0)
    worst = list(published)[int(differences.argmax())]
    lines.append(
        f"| parameter counts stated in the catalogue | weights, median {np.median(differences):.2%} | {len(published)} "
        f"| {differences.max():.2%} ({worst}) |"
    )
    return "\n".join(lines)


def measured() -> str:
    """Errors of an H100's shipped kernels: of operators held out, of whole steps as predicted now."""
    shipped = ROOT / "genz_jax" / "catalog" / "measured" / "H100-SXM.pytorch.toml"
    held_out = gz.catalog.measured("H100-SXM", "pytorch").errors
    lines = [
        "| measured on an H100 with PyTorch | rows | held out | median | bias | plain roofline × 0.8 |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for kind in ("operators", "steps"):
        found = validate(kind, ROOT / "tests" / "data" / "h100" / f"{kind}.csv", shipped)
        for name, (own, plain) in found.errors.items():
            error = held_out[name]["error"] if kind == "operators" else own.error
            median = held_out[name]["median"] if kind == "operators" else own.median
            lines.append(f"| {name} | {own.rows} | {error:.1%} | {median:.1%} | {own.bias:.2f} | {plain.error:.0%} |")
    return "\n".join(lines)


def speed() -> str:
    """Points per second of the hardware-only sweep beside its competitors in the same run, and of the other cases."""
    try:
        rows = results.read(results.HERE / "results.json")
    except ValueError as error:
        raise SystemExit(str(error)) from None
    rivals = {"genz-llm": "genz-llm", "NumPy": "NumPy", "numba": "numba", "C, naive": "naive C", "C, factored": "C"}
    heads = " | ".join(f"× {words}" for words in rivals.values())
    lines = [
        f"| case | points | points/s | first call | {heads} | of write limit |",
        "|---|---:|---:|---:|" + "---:|" * 6,
    ]
    chosen = [row for row in rows if row.case == results.HARDWARE and row.points >= 10**4]
    others = [results.largest(rows, case) for case in figure.CASES if case != results.HARDWARE]
    for row in (*chosen, *(row for row in others if row is not None)):
        ratios = [row.ratio(name) for name in rivals]
        share = row.share_of_write(fresh=False)
        cells = [
            figure.CASES[row.case].replace("\n", " "),
            f"{row.points:,}",
            report.power(row.ours["points_per_second"]),
            f"{row.ours['first_seconds']:.2f} s",
            *("" if ratio is None else report.times(ratio) for ratio in ratios),
            "" if share is None else f"{share:.0%}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    first = rows[0].record
    versions = f"JAX {first['jax']}, genz-llm {first['genz_llm']}, NumPy {first['numpy']}, {first['compiler']}"
    return "\n".join([*lines, "", f"{first['cpu']}, {first['cores']} cores; {versions}."])


def main() -> None:
    """Put the tables between their marks in the README."""
    path = ROOT / "README.md"
    text = path.read_text(encoding="utf-8")
    for name, table in (("accuracy", accuracy()), ("measured", measured()), ("speed", speed())):
        marked = f"<!-- {name} -->\n{table}\n<!-- /{name} -->"
        text, count = re.subn(f"<!-- {name} -->.*?<!-- /{name} -->", lambda _, m=marked: m, text, flags=re.DOTALL)
        if count != 1:
            raise SystemExit(f"README.md: {count} blocks marked {name}; one is needed")
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
