"""A kind of layer, a collective and a figure from outside of the package, by public names alone (docs/extending.md)."""

import ast
import dataclasses
from pathlib import Path
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

import genz_jax as gz
from genz_jax.base import fields, units
from genz_jax.base.fields import number
from genz_jax.machine.network import collective as time_of, levels
from genz_jax.serving.evaluate import STAGES
from genz_jax.serving.stage import Stage
from genz_jax.serving.stages import decode_figures, decode_work
from genz_jax.specs import Spec
from genz_jax.specs.figures import figure
from genz_jax.work.layers.registry import layer
from genz_jax.work.operators.collectives import collective
from genz_jax.work.operators.products import gemm

CHIP = gz.platform("H100-SXM").replace(mem_capacity="10 TB")
LOAD = gz.Workload(4, 100, 10)


class Gate(Spec):
    """A toy part: a gate of so many channels after every layer, whose result the ranks broadcast."""

    layers: Any = number(units.ONE, "layers", rule=fields.COUNT)
    channels: Any = number(units.ONE, "channels", rule=fields.WHOLE)


class GatedModel(gz.Model):
    gate: Gate | None = eqx.field(default=None, kw_only=True)


@layer(Gate, parameters="ffn", role="feed-forward")
def gate_layer(name: str, part: Gate, hidden: Any, step: Any, deployment: Any) -> list:
    shape = {"batch": step.sequences, "m": step.tokens, "n": part.channels, "k": hidden}
    message = {"elements": step.rows * part.channels, "ranks": deployment.ranks, "precision": deployment.precision}
    return [
        gemm(f"{name}.matmul", "ffn", **shape, precision=deployment.precision),
        collective("broadcast", f"{name}.broadcast", "ffn_all_reduce", **message, stride=1.0),
    ]


@time_of("broadcast")
def broadcast(op: Any, platform: Any, assumptions: Any) -> Any:
    """One message over every level that the ranks reach: Σᵢ (λᵢ + d/Bᵢ)."""
    del assumptions
    time = 0.0
    for reached, below, level in levels(op.ranks, op.stride, platform):
        time = time + jnp.where(reached > below, level.latency + op.message / level.bandwidth, 0.0)
    return time


class GreenResult(gz.results.DecodeResult):
    """A decode step with a figure of ours."""

    carbon: Any = figure("kg", "carbon dioxide of a step at 400 g/kWh", better="min", default=None)


def green(work: Any, platform: Any, details: bool = False) -> GreenResult:
    found = decode_figures(work, platform, details)
    own = {name: getattr(found, name) for name in found.__dataclass_fields__}
    return GreenResult(**own, carbon=found.energy / 3.6e6 * 0.4)


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(STAGES, "green", Stage(decode_work, green, details=True))
    return "green"


def gated() -> tuple[gz.Model, gz.Model]:
    plain = gz.model("llama-3.1-8b")
    own = {name: getattr(plain, name) for name in (field.name for field in dataclasses.fields(plain))}
    return plain, GatedModel(**own, gate=Gate(plain.layers, 1024))


def test_a_kind_of_layer_is_counted_timed_and_stored():
    plain, model = gated()
    added = 32 * 1024 * 4096
    counts = [gz.parameter_count(one) for one in (plain, model)]
    assert (float(counts[1].total - counts[0].total), float(counts[1].ffn - counts[0].ffn)) == (added, added)
    before, after = (gz.estimate(one, CHIP, LOAD, stage="prefill") for one in (plain, model))
    assert float(after.flop_count - before.flop_count) == pytest.approx(2 * 400 * added, rel=1e-5)
    assert float(after.weights - before.weights) == pytest.approx(2 * added, rel=1e-5)


def test_a_collective_takes_its_time():
    plain, model = gated()
    spread = gz.Parallelism(tp=4)
    before, after = (gz.estimate(one, CHIP, LOAD, spread, stage="decode") for one in (plain, model))
    link = CHIP.network[0]
    once = float(link.latency) + 4 * 1024 * 2 / float(link.bandwidth)
    assert float(after.network_time - before.network_time) == pytest.approx(32 * once, rel=1e-4)


def test_a_figure_is_in_results_sweeps_reductions_and_gradients(stage: str):
    chip = CHIP.replace(mem_bw=gz.geomspace("1 TB/s", "8 TB/s", 4))
    one = gz.estimate("gpt2", CHIP, LOAD, stage=stage)
    assert float(one.carbon) == pytest.approx(float(one.energy) / 3.6e6 * 0.4)
    assert "carbon dioxide" in str(one)
    swept = gz.sweep("gpt2", chip, LOAD, stage=stage, figures=["carbon"], progress=False)
    assert swept.carbon.attrs["units"] == "kg"
    best = gz.sweep("gpt2", chip, LOAD, stage=stage, reduce=gz.Best("carbon"), progress=False)
    assert float(best.carbon) == pytest.approx(float(swept.carbon.min()))
    slope = gz.gradients("gpt2", CHIP, LOAD, stage=stage, figures="carbon", parameters="power", progress=False)
    step = [gz.estimate("gpt2", CHIP.replace(power=700.0 * f), LOAD, stage=stage).carbon for f in (0.999, 1.001)]
    np.testing.assert_allclose(slope.carbon_gradient.values.item(), (step[1] - step[0]) / 1.4, rtol=1e-3)


def test_no_underscore_name_is_imported():
    tree = ast.parse(Path(__file__).read_text(encoding="utf-8"))
    names = [a.name for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom) for a in n.names]
    assert not [name for name in names if any(part.startswith("_") for part in name.split("."))]


class Unknown(Spec):
    """A part whose operators nothing stands for."""

    layers: Any = number(units.ONE, "layers", rule=fields.COUNT)


class UnknownModel(gz.Model):
    unknown: Unknown | None = eqx.field(default=None, kw_only=True)


@pytest.mark.parametrize(
    ("component", "kind", "parameters", "message"),
    [
        ("memory", "broadcast", "other", "component 'memory' is none of"),
        ("ffn", "casst", "other", "messages of the kind 'casst' have no time"),
        ("ffn", "broadcast", "fnn", "parameters = 'fnn'"),
    ],
)
def test_what_nothing_stands_for_is_refused(component: str, kind: str, parameters: str, message: str):
    @layer(Unknown, parameters=parameters)
    def build(name: str, part: Any, hidden: Any, step: Any, deployment: Any) -> list:
        sent = {"elements": step.rows, "ranks": deployment.ranks, "precision": deployment.precision}
        matmul = gemm(f"{name}.matmul", "ffn", batch=1.0, m=1.0, n=8.0, k=8.0, precision=deployment.precision)
        return [matmul, collective(kind, f"{name}.message", component, **sent, stride=1.0)]

    plain = gz.model("gpt2")
    own = {field.name: getattr(plain, field.name) for field in dataclasses.fields(plain)}
    model = UnknownModel(**own, unknown=Unknown(2))
    spread = gz.Parallelism(tp=2)
    with pytest.raises(ValueError, match=message):
        gz.parameter_count(model) if parameters == "fnn" else gz.estimate(model, CHIP, LOAD, spread)


def test_a_stage_has_details_if_it_says_so(stage: str):
    swept = gz.sweep("gpt2", CHIP, LOAD, stage=stage, breakdown=True, progress=False)
    np.testing.assert_allclose(swept.breakdown.sum("component"), swept.latency, rtol=1e-6)
