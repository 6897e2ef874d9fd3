"""Report: the saved results of the benchmarks as a Markdown table and a figure.

Reads the JSON file that `pytest --benchmark-json` writes, and nothing else.
"""

import argparse
import statistics
import sys
from pathlib import Path

import figure
import limits
from results import HERE, WRITES, Row, read
from targets import targets

VERSIONS = {
    "genz_jax": "genz_jax",
    "genz-llm": "genz_llm",
    "JAX": "jax",
    "NumPy": "numpy",
    "numba": "numba",
    "numexpr": "numexpr",
    "Python": "python",
}
HEADER = (
    "| case | points | | points/s | ns/point | genz_jax is × | of write limit | of FMA peak | first call, s "
    "| compilation, s | memory, GB | cores busy | difference |"
)


def power(number: float) -> str:
    """A number with two significant digits and a power of ten, for example 1.3 · 10⁸."""
    mantissa, exponent = f"{number:.1e}".split("e")
    return f"{mantissa} · 10{str(int(exponent)).translate(str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'))}"


def times(ratio: float) -> str:
    """A ratio, with a power of ten where it is large."""
    return power(ratio) if ratio >= 1e4 else f"{ratio:,.0f}" if ratio >= 100 else f"{ratio:.2f}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}" if value < 0.1 else f"{value:.0%}"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def table(rows: list[Row]) -> str:
    """All contests as Markdown, a line for each competitor."""
    lines = [HEADER, "|---|---:|---|" + "---:|" * (HEADER.count("|") - 4)]
    for row in rows:
        for name, one in row.competitors.items():
            compiled = one.get("compile_seconds") or None
            added, worst = one.get("added_bytes"), one.get("worst_relative_difference")
            cells = [
                row.case,
                f"{row.points:,}",
                name + (f" ({one['calls']} points)" if one["sampled"] else ""),
                power(one["points_per_second"]),
                f"{one['ns_per_point']:,.2f}",
                "" if name == "genz_jax" else times(one["ratio"]),
                _share(one.get("of_write")),
                _share(one.get("of_multiply_add")),
                _number(one.get("first_seconds"), ".2f"),
                _number(compiled, ".2f"),
                _number(None if added is None else added / 1e9, ".2f"),
                _number(one["cores_busy"], ".1f"),
                _number(worst, ".0e"),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def promises(rows: list[Row]) -> str:
    """All targets as Markdown."""
    lines = ["| target | measured | met |", "|---|---|---|"]
    words = {True: "yes", False: "**no**", None: "–"}
    lines += [f"| {one.promise} | {one.found} | {words[one.met]} |" for one in targets(rows)]
    return "\n".join(lines)


def bounds(rows: list[Row]) -> str:
    """Limits of the machine as Markdown: medians over all contests."""
    found: dict[str, list[float]] = {}
    for row in rows:
        for name, rate in row.record.get("limits", {}).items():
            found.setdefault(name, []).append(rate)
    lines = ["| limit | median | least and most of all contests |", "|---|---:|---:|"]
    for name, rates in found.items():
        words, unit = (
            ("fused multiply-adds, float32", "GFLOP/s") if name == limits.MULTIPLY_ADD else (WRITES[name], "GB/s")
        )
        low, middle, high = (value / 1e9 for value in (min(rates), statistics.median(rates), max(rates)))
        lines.append(f"| {words} | {middle:,.1f} {unit} | {low:,.1f} to {high:,.1f} |")
    return "\n".join(lines)


def document(rows: list[Row]) -> str:
    """The whole report as Markdown."""
    contests = [row for row in rows if row.competitors]
    first = contests[0].record
    versions = [f"{name} {first[key]}" for name, key in VERSIONS.items() if first[key]]
    loads = [row.record["load"] for row in contests]
    load = statistics.median(loads)
    machine = f"{first['cpu']}, {first['cores']} cores"
    if first["device"]:
        machine += f", {first['device']}"
    traces = max(row.record["traces"] for row in contests)
    quick = "\n**Small sizes and few calls, to see that all works: no measurement.**\n" if first["quick"] else ""
    transfer = (
        "\n- On a GPU, `gz.sweep` returns its Dataset on the host: its time has the transfer, block by block; `left on "
        "the device`\n  is one compiled call that ends with `block_until_ready`, without labels and transfer."
        if first["device"]
        else ""
    )
    return f"""# Speed
{quick}
{promises(rows)}

–: not at the size or not in the form that the target asks for.

## Limits of the machine

{bounds(contests)}

Measured by turns with each contest, on all cores, over more memory than the caches hold.

## Contests

{table(contests)}

- Each line of a case and size is of one run: all competitors compute the same figures of the same points, are asserted
  equal (difference: greatest relative one from genz_jax), and take turns. points/s: median over the turns. genz_jax
  is ×: median over the turns of the ratio of times; for genz-llm ratio of the medians.
- genz_jax: `gz.sweep`, `gz.gradients` or `gz.require`, from specs to a labelled Dataset, with `assumptions="genz"`, in
  float32. It counts operators in that time; NumPy, numba, numexpr and C are given the counts.
- hardware: llama-3.1-70b on 8 devices, batch 16, over peak rate × memory bandwidth. 30 models: dense, MoE, latent
  attention, state space and hybrid, 4 batches, 4 tensor parallel sizes. published: beside genz-llm alone.
- C: `{first["compiler"] or "no compiler"}`, `-O3 -march=native -ffast-math -fopenmp` on all cores. Naive: point by
  point, a loop over operators. Factored: times of compute hoisted per rate and of memory per bandwidth, in blocks of
  the cache. Both make their result anew at each call, as genz_jax does; `resident` writes over that of an earlier call.
- genz-llm evaluates one point per call: a random sample of the points.
- of write limit: bytes of the result over time, as share of the fastest write to memory that is there. of FMA peak: a
  maximum and a sum for each operator and point over time, as share of the fused multiply-adds that the cores can do.
- first call: with nothing compiled; compilation: first call less the median. memory: peak resident memory beyond what
  the process had before the call. cores busy: processor time over time. Traces per first call: {traces:g} at most.\
{transfer}
- {", ".join(versions)}.
- {machine}; load average before the contests {min(loads):.1f} to {max(loads):.1f}, median {load:.1f}\
{" (other work ran on this machine)" if load > 1.5 * first["cores"] else ""}.
"""


def main() -> None:
    """Print the report and write `results.md` and `results.png`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=HERE / "results.json", help="file of --benchmark-json")
    parser.add_argument("--out", type=Path, default=HERE, help="directory of results.md and results.png")
    options = parser.parse_args()
    try:
        rows = read(options.json)
    except ValueError as error:
        sys.exit(f"report: {error}")
    options.out.mkdir(parents=True, exist_ok=True)
    text = document(rows)
    print(text)
    (options.out / "results.md").write_text(text, encoding="utf-8")
    figure.draw(rows, options.out / "results.png")


if __name__ == "__main__":
    main()
