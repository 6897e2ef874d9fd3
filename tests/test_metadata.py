"""Metadata of fields: which value is better, roles, paths, the help of every spec, and tables for notebooks."""

import dataclasses
import pydoc
import xml.etree.ElementTree as ElementTree

import jax
import numpy as np
import pytest

import genz_jax as gz
from genz_jax.base.fields import Axis, Spec, at, field_at, put
from genz_jax.base.html import html_table
from genz_jax.base.paths import leaves
from genz_jax.labelled.inputs import read_case
from genz_jax.machine.cost import CostResult
from genz_jax.reduce.reductions import sense_of
from genz_jax.serving.results import (
    DecodeResult,
    MemoryResult,
    OperatorResult,
    PrefillResult,
    RequestResult,
    SpeculativeDecodeResult,
)
from genz_jax.serving.targets import read_target

CHIP = gz.platform("H100-SXM").replace(
    network=(gz.specs.NetworkLevel(8, "450 GB/s"), gz.specs.NetworkLevel(1024, "50 GB/s"))
)


def specs(kind: type = Spec) -> list[type]:
    """All classes of specs of the package."""
    found = [one for one in kind.__subclasses__() if one.__module__.startswith("genz_jax.")]
    return found + [inner for one in found for inner in specs(one)]


# --------------------------------------------------------------------------------------------------- better and roles


@pytest.mark.parametrize(
    ("kind", "name", "better"),
    [
        (RequestResult, "ttft", "min"),
        (RequestResult, "energy_per_token", "min"),
        (RequestResult, "throughput_per_device", "max"),
        (RequestResult, "interactivity", "max"),
        (PrefillResult, "throughput", "max"),
        (DecodeResult, "memory", "min"),
        (DecodeResult, "flop_count", None),
        (SpeculativeDecodeResult, "expected_tokens", None),
        (MemoryResult, "free", "max"),
        (MemoryResult, "largest_batch", "max"),
        (MemoryResult, "memory_excess", "min"),
        (CostResult, "price", "min"),
        (CostResult, "die_yield", "max"),
    ],
)
def test_a_figure_says_which_value_is_better(kind, name, better):
    assert field_at(kind, name)["better"] == better


@pytest.mark.parametrize("kind", [RequestResult, PrefillResult, DecodeResult, MemoryResult, OperatorResult, CostResult])
def test_times_energies_and_money_are_better_small_and_rates_large(kind):
    for field in dataclasses.fields(kind):
        unit = field.metadata.get("units", "1")
        if unit in ("s", "J", "J token-1", "USD", "USD h-1"):
            assert field.metadata["better"] == "min", field.name
        if unit in ("token s-1", "request s-1"):
            assert field.metadata["better"] == "max", field.name
        if "codes" in field.metadata:
            assert field.metadata.get("better") is None, field.name


def test_where_neither_is_better_a_sense_is_asked_for():
    with pytest.raises(ValueError, match=r"'flop_count' is neither known to be better small nor large; give sense="):
        sense_of("flop_count", None, field_at(DecodeResult, "flop_count"))
    assert sense_of("flop_count", "max", field_at(DecodeResult, "flop_count")) == -1.0


@pytest.mark.parametrize(
    ("name", "role", "resource"),
    [
        ("flops", "rate", "compute"),
        ("mem_bw", "rate", "memory"),
        ("mem_capacity", "capacity", "memory"),
        ("link_bw", "rate", "network"),
        ("network.1.latency", "latency", "network"),
        ("rates.fp8", "relative rate", "compute"),
        ("memory_efficiency", "efficiency", "memory"),
        ("memory_reserve", "reserve", "memory"),
        ("power", "power", None),
        ("power_split.network", "power", "network"),
        ("link_domain", "count", None),
        ("network.0.topology", "choice", None),
    ],
)
def test_a_number_of_a_platform_says_its_role_and_resource(name, role, resource):
    meta = field_at(CHIP, name)
    assert (meta["role"], meta["resource"]) == (role, resource)


def test_every_number_of_a_platform_has_a_role():
    assert all(field_at(CHIP, path)["role"] != "other" for path in CHIP.paths())


# -------------------------------------------------------------------------------------------------------------- paths


def test_paths_name_the_leaves_in_their_order():
    case, _ = read_case("deepseek-v3", CHIP, None, None, None, None)
    by_path = leaves(case)
    assert all(a is b for a, b in zip(by_path.values(), jax.tree.leaves(case), strict=True))
    assert all(at(case, path) is leaf for path, leaf in by_path.items())
    own = [path for path in CHIP.paths() if at(CHIP, path) is not None]
    assert own == list(leaves(CHIP))


def test_an_axis_is_one_number():
    swept = CHIP.replace(mem_bw=gz.axis([1e12, 2e12]))
    assert isinstance(leaves(swept)["mem_bw"], Axis)


@pytest.mark.parametrize("path", ["mem_bw", "offload_bw", "link_bw", "network.1.latency", "rates.fp8"])
def test_putting_agrees_with_replacing(path):
    new = 0.5 if path.endswith("latency") else 0.5e6
    assert str(put(CHIP, path, np.asarray(new))) == str(CHIP.replace(**{path: new}))
    case, _ = read_case("llama-3.1-8b", CHIP, None, None, None, None)
    moved = put(case, f"platform.{path}", np.asarray(new))
    assert float(at(moved, f"platform.{path}")) == new
    assert str(moved.model) == str(case.model)


def test_short_and_full_names_are_inverse():
    for path in CHIP.paths():
        assert CHIP.full(CHIP.short(path)) == path
        assert field_at(CHIP, CHIP.short(path)) == field_at(CHIP, path)
    assert CHIP.short("network.0.bandwidth") == "link_bw"
    assert CHIP.full("link_latency") == "network.0.latency"


def test_a_target_is_a_measure_of_the_machine_or_a_count():
    case, _ = read_case("llama-3.1-8b", CHIP, None, None, None, None)
    assert read_target("network.0.bandwidth", case) == read_target("link_bw", case)
    assert read_target("link_latency", case).most
    assert not read_target("mem_capacity", case).most
    for name in ("power", "rates.fp8", "memory_reserve", "network.0.topology", "output_tokens"):
        with pytest.raises(ValueError, match=f"target = '{name}': must be one of flops, mem_bw"):
            read_target(name, case)


# --------------------------------------------------------------------------------------------------------------- help


def test_help_is_looked_for_in_all_specs():
    shown = {gz.Workload, gz.Platform, gz.Model, gz.Engine, gz.Parallelism, gz.Precision, gz.Speculation, gz.SLO}
    assert shown | {gz.Budget, gz.CostModel, gz.layers.MoE, gz.layers.LocalAttention} <= set(specs())


@pytest.mark.parametrize("kind", specs(), ids=lambda kind: kind.__name__)
def test_help_explains_every_field(kind):
    text = pydoc.plain(pydoc.render_doc(kind))
    lines = {line.split(" (")[0].strip(" |"): line for line in kind.__doc__.splitlines() if line.startswith("    ")}
    fields = dataclasses.fields(kind)
    assert list(lines) == [field.name for field in fields]
    for field in fields:
        line = lines[field.name]
        assert line.strip() in text
        if "units" in field.metadata:
            unit, rule = field.metadata["units"], field.metadata["rule"]
            assert f"({'number' if unit == '1' else unit})" in line
            assert field.metadata["long_name"] in line
            assert rule.text in line
        assert any(end in line for end in ("; by default ", "; required.", "; follows from the others."))


def test_help_has_the_defaults():
    text = f"{gz.Workload.__doc__}\n{gz.Platform.__doc__}"
    lines = {line.split(" (")[0].strip(): line for line in text.splitlines()}
    assert lines["batch"].endswith("requests at once; must be a whole number of 1 or more; by default 1.")
    assert lines["input_tokens"].endswith("by default 1,024 tokens.")
    assert lines["cached_tokens"].endswith("by default None.")
    assert lines["power"].endswith("by default 700 W.")
    assert lines["flops"].endswith("required.")
    for kind in specs():
        for field in dataclasses.fields(kind):
            if isinstance(field.default, str) and kind is not gz.Precision:
                assert f"by default {field.default}." in (kind.__doc__ or ""), (kind, field.name)


def test_a_spec_of_others_has_its_help():
    class Cabinet(gz.Engine):
        """A cabinet."""

        width: float = dataclasses.field(default=2.0)

    text = Cabinet.__doc__ or ""
    assert text.startswith("A cabinet.\n\nAttributes:\n    tokens_per_step (token): ")
    assert "    width (float); by default 2.0." in text


# --------------------------------------------------------------------------------------------------------------- HTML


def rows(shown: str) -> list[list[str]]:
    """The cells of a table."""
    table = ElementTree.fromstring(shown)
    assert table.tag == "table"
    assert {row.tag for row in table} <= {"tr"}
    assert {cell.tag for row in table for cell in row} <= {"td"}
    return [["".join(cell.itertext()) for cell in row] for row in table]


@pytest.mark.parametrize(
    "shown",
    [
        CHIP,
        gz.model("deepseek-v3"),
        gz.Workload(batch=4, cached_tokens=128),
        gz.workload("chat") if "chat" in gz.workloads() else gz.Workload(),
        CHIP.replace(mem_bw=gz.axis([1e12, 2e12])),
        gz.Precision("fp8"),
        gz.SLO(ttft="100 ms"),
        gz.cost(CHIP),
        gz.estimate("llama-3.2-1b", CHIP),
    ],
    ids=lambda shown: type(shown).__name__,
)
def test_a_notebook_shows_what_print_shows(shown):
    cells = rows(shown._repr_html_())
    assert " ".join(" ".join(row) for row in cells).split() == str(shown).split()
    assert len(cells) == len(str(shown).splitlines())
    widths = {sum(int(cell.get("colspan", 1)) for cell in row) for row in ElementTree.fromstring(shown._repr_html_())}
    assert len(widths) == 1


def test_text_is_escaped():
    named = gz.model("llama-3.2-1b").replace(label=type(CHIP.label)("<b>x</b> & 'y'"))
    assert "<b>" not in named._repr_html_()
    assert rows(named._repr_html_())[0] == ["Model <b>x</b> & 'y'"]
    assert rows(html_table([["<td>", '"'], ["&amp;"]])) == [["<td>", '"'], ["&amp;"]]


def test_lines_become_columns():
    assert rows(html_table("a title\n\nname   12  x y\n  in    3")) == [
        ["a title"],
        [""],
        ["name", "12", "x y"],
        ["  in", "3"],
    ]
    assert rows(html_table("")) == []
