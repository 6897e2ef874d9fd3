"""The registry of kinds of layers: none is free, one can be added from outside, counts are those of closed forms."""

import dataclasses
import typing
from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax
import numpy as np
import pytest
from parameter_oracle import closed_form

import genz_jax as gz
from genz_jax.base import fields, units
from genz_jax.base.fields import Spec, number
from genz_jax.specs.assumptions import Assumptions
from genz_jax.specs.reasons import Reason
from genz_jax.work.layers import registry
from genz_jax.work.layers.registry import layer, layers_of
from genz_jax.work.operators.products import gemm
from genz_jax.work.sharding import RULES, mapping_reason
from genz_jax.work.step import Deployment, shard
from genz_jax.work.steps import forward, prefill_step

ROOMY = gz.Platform(1e15, "10 TB/s", "100 TB")


def kinds_in(hint: Any) -> Iterator[type[Spec]]:
    """Classes of parts that a field's type allows."""
    if isinstance(hint, type) and issubclass(hint, Spec):
        yield hint
    for inner in typing.get_args(hint):
        yield from kinds_in(inner)


def drawn(kind: type[Spec], rng: np.random.Generator, **given: Any) -> Any:
    """A spec of a kind, with small numbers of the values that each field takes, and all parts that it may have."""
    values: dict[str, Any] = {}
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        if field.name in given or field.name == "label":
            continue
        if "units" not in field.metadata:
            (inner,) = kinds_in(hints[field.name])
            part = drawn(inner, rng)
            values[field.name] = (part, drawn(inner, rng)) if hints[field.name] == tuple[inner, ...] else part
        elif field.name in ("layers", "intermediate_size"):
            values[field.name] = int(rng.integers(1, 9))
        elif field.metadata["rule"].high == 1:
            values[field.name] = int(rng.integers(0, 2))
        else:
            low = 0 if field.metadata["rule"].low_included and field.metadata["rule"].low == 0 else 1
            values[field.name] = int(rng.integers(low, 9))
    # Layers share all weights, or keys and values alone; none with an indexer shares all.
    ties = rng.integers(0, 2) == 0 and "indexer" not in values
    for name in ("tied_layers", "shared_kv_layers"):
        if name in values:
            values[name] = min(values[name], values["layers"]) if ties == (name == "tied_layers") else 0
    return kind(**values, **given)


def random_model(seed: int) -> gz.Model:
    return drawn(gz.Model, np.random.default_rng(seed))


PARTS = [kind for hint in typing.get_type_hints(gz.Model).values() for kind in kinds_in(hint)]


def operators(model: gz.Model, tp: float = 1) -> Any:
    deployment = Deployment(gz.Parallelism(tp=tp), gz.Precision("bf16"), Assumptions())
    return forward(model, prefill_step(gz.Workload(2, 8, 1), deployment), deployment)


# ----------------------------------------------------------------------------------------------------- completeness


def test_a_model_has_parts_of_every_kind():
    assert len(PARTS) == 15
    assert {type(part) for _, part, _ in layers_of(random_model(0))} == set(PARTS)


@pytest.mark.parametrize("kind", PARTS, ids=lambda kind: kind.__name__)
def test_a_kind_without_a_record_raises(kind: type[Spec], monkeypatch: pytest.MonkeyPatch):
    model = random_model(0)
    (field, *_) = (name for name, part, _ in layers_of(model) if type(part) is kind)
    monkeypatch.delitem(registry._LAYERS, kind)
    with pytest.raises(ValueError, match=rf"Model\.{field}: no record says what a {kind.__name__} costs"):
        operators(model)
    with pytest.raises(ValueError, match=field):
        gz.parameter_count(model)
    with pytest.raises(ValueError, match=field):
        gz.estimate(model.replace(lm_head=1, bidirectional=0), ROOMY)


@pytest.mark.parametrize("kind", PARTS, ids=lambda kind: kind.__name__)
def test_no_kind_is_free(kind: type[Spec]):
    model = random_model(1)
    names = [name for name, part, _ in layers_of(model) if type(part) is kind]
    for name in names:
        mine = [op for op in operators(model) if op.name.split(".")[0] == name]
        assert sum(float((op.input + op.output) * op.repeats) for op in mine) > 0


# ------------------------------------------------------------------------------------------- a kind from outside


class Mixture(Spec):
    """A kind that the package does not know: a matrix of channels, split over the ranks."""

    layers: Any = number(units.ONE, "layers", rule=fields.COUNT)
    channels: Any = number(units.ONE, "channels", rule=fields.WHOLE)


class WithMixture(gz.Model):
    mixture: Mixture | None = eqx.field(default=None, kw_only=True)


@pytest.fixture
def mixture(monkeypatch: pytest.MonkeyPatch):
    """The kind, registered for one test."""
    monkeypatch.setattr(registry, "_LAYERS", dict(registry._LAYERS))

    @layer(Mixture, parameters="ssm", sharded=("channels",), role="mixer", preference=100)
    def mixture_layer(name: str, part: Mixture, hidden: Any, step: Any, deployment: Any) -> list:
        sizes = {"batch": step.sequences, "m": step.tokens, "precision": deployment.precision}
        return [gemm(f"{name}.mix", "ssm_scan", n=shard(part.channels, deployment.ranks), k=hidden, **sizes)]


def with_mixture(**changes: Any) -> WithMixture:
    plain = gz.model("llama-3.1-8b")
    own = {field.name: getattr(plain, field.name) for field in dataclasses.fields(plain)}
    return WithMixture(**own | changes, mixture=Mixture(5, 1_000_002))


def test_a_kind_from_outside_is_computed_counted_and_stored(mixture: None):
    plain, model = gz.model("llama-3.1-8b"), with_mixture()
    added = 5 * 1_000_002 * 4096
    one, other = gz.parameter_count(plain), gz.parameter_count(model)
    assert (float(other.total - one.total), float(other.ssm)) == (added, added)
    workload = gz.Workload(2, 100, 1)
    found = gz.estimate(model, ROOMY, workload, precision="int8", stage="prefill")
    assert float(found.weights) == pytest.approx(float(other.total), rel=1e-6)
    before, after = (gz.flop_count(m, workload) for m in (plain, model))
    assert after.total - before.total == after.operators["mixture.mix"] == 2 * 200 * added


def test_a_kind_from_outside_must_divide_over_the_ranks_and_makes_prediction_modules(mixture: None):
    deployment = Deployment(gz.Parallelism(tp=4), gz.Precision("bf16"), Assumptions())
    assert int(mapping_reason(with_mixture(), deployment)) == Reason.heads_not_divisible
    told = RULES[Reason.heads_not_divisible].message(with_mixture(), deployment, gz.Workload(), "mine")
    assert "tp·ep = 4: must divide attention.heads = 32" in told
    assert "mixture.channels = 1e+06 of mine" in told
    module = 2 * 4096**2 + 3 * 4096 + 1_000_002 * 4096 + 3 * 4096 * 14336 + 4096
    assert float(gz.parameter_count(with_mixture(mtp_layers=1)).mtp) == module


# ----------------------------------------------------------------------------------------------- parameter counts


def test_counts_of_the_catalogue_are_those_of_closed_forms():
    models = gz.stack([gz.model(name) for name in gz.models()])
    counted, expected = dataclasses.asdict(gz.parameter_count(models)), dataclasses.asdict(closed_form(models))
    for field, values in expected.items():
        np.testing.assert_array_equal(counted[field], values, err_msg=field)


@pytest.mark.parametrize("seed", range(20))
def test_counts_of_random_models_are_those_of_closed_forms(seed: int):
    model = random_model(seed)
    assert gz.parameter_count(model) == closed_form(model)


def test_counts_are_compiled_and_differentiable():
    model = random_model(3)
    with jax.enable_x64(True):
        compiled = jax.jit(lambda model: dataclasses.asdict(gz.parameter_count(model)))(model)
        for field, value in dataclasses.asdict(closed_form(model)).items():
            assert float(compiled[field]) == pytest.approx(float(value))
        slope = jax.grad(lambda h: gz.parameter_count(model.replace(hidden_size=h)).total)(7.0)
    low, high = (closed_form(model.replace(hidden_size=h)).total for h in (7, 8))
    assert model.attention is not None
    assert float(slope) == pytest.approx(float(high - low))


# ---------------------------------------------------------------------------------------------------------- rules


def test_every_rule_tells_what_breaks_it():
    """The message of a rule names a spec and a field of it, whatever the model."""
    deployment = Deployment(gz.Parallelism(3, 3, 99, dp=9, cp=99), gz.Precision("bf16"), Assumptions())
    workload = gz.Workload(1, 8, 1, cached_tokens=8, cache_hit_rate=1)
    for rule in RULES.values():
        told = rule.message(random_model(0), deployment, workload, "mine")
        assert told.startswith(("Parallelism.", "Workload.", "Model.", "model = "))
