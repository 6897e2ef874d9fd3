import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pint
import pytest
from hypothesis import given, strategies as st

import genz_jax as gz
from genz_jax import specs
from genz_jax.base.fields import Spec
from genz_jax.base.formats import FORMATS
from genz_jax.base.label import Label
from genz_jax.specs.precision_text import LAYERS

KINDS = [
    kind
    for kind in vars(specs).values()
    if isinstance(kind, type) and issubclass(kind, Spec) and kind is not Spec and dataclasses.fields(kind)
]
FIELDS = [
    pytest.param(kind, field, id=f"{kind.__name__}.{field.name}")
    for kind in KINDS
    for field in dataclasses.fields(kind)
    if "units" in field.metadata
]
LLAMA, H100 = gz.model("llama-3.1-8b"), gz.platform("H100-SXM")
EXAMPLES = {
    **{type(spec).__name__: spec for spec in (LLAMA, H100, LLAMA.attention, LLAMA.ffn, H100.rates, H100.network[0])},
    "LocalAttention": gz.model("gemma-3-27b").local_attention,
    "LatentAttention": gz.layers.LatentAttention(61, 128, 1536, 512, 128, 64, 128, output_gate=128),
    "MoE": gz.model("mixtral-8x7b").moe,
    "SSM": gz.model("falcon-mamba-7b").ssm,
    "SSD": gz.model("mamba2-2.7b").ssd,
    "DeltaNet": gz.layers.DeltaNet(36, 16, 32, 128, 128, 4, decay_rank=64, gate_rank=64),
    "LinearAttention": gz.layers.LinearAttention(8, 16, 64),
    "ShortConvolution": gz.layers.ShortConvolution(10, 2048, 3),
    "Indexer": gz.layers.Indexer(61, 64, 128, 2048),
    "SparseAttention": gz.layers.SparseAttention(4, 32, 8, 128, indexer=gz.layers.Indexer(4, 4, 128, 2048)),
    "CompressedAttention": gz.layers.CompressedAttention(4, 64, 512, 1024, 128, 8, 1024),
    "Compressor": gz.layers.Compressor(2, 128),
    "LatentExperts": gz.layers.LatentExperts(1024),
    "LayerEmbedding": gz.layers.LayerEmbedding(30, 256, 262144),
    "Projection": gz.layers.Projection(9, 2048, 64),
    "ResidualStreams": gz.layers.ResidualStreams(86, 4, 4),
    "PowerSplit": gz.specs.PowerSplit(0, 0, 0, 0),
    "PrefillChunk": gz.specs.PrefillChunk(0, 512),
    "DecodeChunk": gz.specs.DecodeChunk(4, 4, 1024),
    "Workload": gz.Workload(),
    "Parallelism": gz.Parallelism(),
    "Precision": gz.Precision(),
    "Speculation": gz.Speculation(LLAMA),
    "Engine": gz.Engine(),
}


def set_field(kind: type[Spec], name: str, value: object) -> Spec:
    return EXAMPLES[kind.__name__].replace(**{name: value})


def test_there_is_an_example_of_every_kind_of_spec():
    assert {kind.__name__ for kind in KINDS} == set(EXAMPLES)


# -------------------------------------------------------------------------------------------------- fields and rules


@pytest.fixture(scope="module")
def ureg() -> pint.UnitRegistry:
    registry = pint.UnitRegistry()
    for name in ("flop", "token"):
        registry.define(f"{name} = [{name}]")
    return registry


@pytest.mark.parametrize(("kind", "field"), FIELDS)
def test_every_number_says_what_it_is(ureg, kind, field):
    unit = field.metadata["units"]
    assert ureg.Quantity(1.0, "" if unit == "1" else unit.replace("-1", "**-1").replace(" ", "*")).magnitude == 1.0
    assert len(field.metadata["long_name"]) >= 5
    assert not field.metadata["long_name"].endswith(".")
    assert field.metadata["rule"].text.startswith("must be")


@pytest.mark.parametrize("bad", [-1.0, -1e-30, np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize(("kind", "field"), FIELDS)
def test_no_number_is_negative_or_not_finite(kind, field, bad):
    for value in (bad, np.float32(bad), jnp.asarray(bad), gz.axis([1.0, bad])):
        with pytest.raises(ValueError, match="must be") as caught:
            set_field(kind, field.name, value)
        message = str(caught.value)
        assert f"{kind.__name__}.{field.name}" in message
        assert field.metadata["rule"].text in message
        assert f"{bad:g}" in message
        assert "\n" not in message


@pytest.mark.parametrize(("kind", "field"), FIELDS)
def test_no_number_is_words(kind, field):
    for value in ("many", "3 parsec", "", object(), [1.0, "x"], 1j):
        with pytest.raises(ValueError, match=rf"{kind.__name__}\.{field.name}") as caught:
            set_field(kind, field.name, value)
        assert "\n" not in str(caught.value)


ATTENTION = {"Attention", "LocalAttention", "SparseAttention"}
MIXERS = ATTENTION | {
    "LatentAttention",
    "CompressedAttention",
    "SSM",
    "SSD",
    "DeltaNet",
    "LinearAttention",
    "ShortConvolution",
}
ZERO_OK = {
    **{key: {"Rates"} for key in ("tf32", "fp16", "fp8", "int8", "fp6", "fp4", "int4", "int2")},
    **{key: {"Precision"} for key in (f"{name}_format" for name in specs.TENSORS)},
    **{key: {"Precision"} for key in (f"{name}_activations_format" for name in LAYERS)},
    **{key: {"Precision"} for key in ("kv_outliers", "kv_rank")},
    "memory_reserve": {"Platform"},
    "runtime_memory": {"Platform"},
    **{key: {"Model"} for key in ("lm_head", "bidirectional")},
    **{key: {"Workload"} for key in ("cached_tokens", "cache_hit_rate")},
    "layers": MIXERS | {"FFN", "MoE", "Indexer", "Compressor", "LayerEmbedding", "Projection", "ResidualStreams"},
    "v_head_dim": ATTENTION,
    "value_projection": ATTENTION,
    "output_gate": ATTENTION | {"LatentAttention"},
    "input_size": ATTENTION,
    "norms": MIXERS | {"FFN", "MoE"},
    "qk_norms": ATTENTION,
    "inner_norms": {"SSM", "SSD", "LinearAttention"},
    "biases": ATTENTION | {"LatentAttention", "CompressedAttention", "SSM", "SSD", "ShortConvolution", "FFN", "MoE"},
    "tied_layers": ATTENTION | {"FFN"},
    "shared_kv_layers": ATTENTION,
    "top_k": {"Indexer"},
    "head_weights": {"Indexer"},
    "decay_rank": {"DeltaNet"},
    "gate_rank": {"DeltaNet"},
    "size": {"LatentExperts"},
    "norm": {"LatentExperts"},
    "streams": {"ResidualStreams"},
    "scores": {"ResidualStreams"},
    "router_biases": {"MoE"},
    "shared_gate": {"MoE"},
    "mtp_layers": {"Model"},
    "mtp_dense": {"Model"},
    "mtp_local": {"Model"},
    "final_norms": {"Model"},
    "head_biases": {"Model"},
    "other_parameters": {"Model"},
    "q_lora_rank": {"LatentAttention"},
    "qk_rope_head_dim": {"LatentAttention"},
    "intermediate_size": {"FFN", "MoE"},
    "in_projections": {"FFN", "MoE"},
    "shared_experts": {"MoE"},
    "shared_intermediate_size": {"MoE"},
    "tied_embeddings": {"Model"},
    "latency": {"NetworkLevel"},
    "topology": {"NetworkLevel"},
    "static": {"PowerSplit"},
    "compute": {"PowerSplit", "Precision"},
    "memory": {"PowerSplit"},
    "network": {"PowerSplit"},
    "power": {"Platform"},
    "offload_bw": {"Platform"},
    "collective_overhead": {"Platform"},
    "past_tokens": {"PrefillChunk"},
    "new_tokens": {"PrefillChunk"},
    "prompts": {"DecodeChunk"},
    "sequences": {"DecodeChunk"},
    "context_tokens": {"DecodeChunk"},
    "generated_tokens": {"DecodeChunk"},
    "output_tokens": {"Workload"},
    "acceptance": {"Speculation"},
}


@pytest.mark.parametrize(("kind", "field"), FIELDS)
def test_zero_only_where_it_means_something(kind, field):
    if kind.__name__ in ZERO_OK.get(field.name, ()):
        assert float(getattr(set_field(kind, field.name, 0), field.name)) == 0.0
    else:
        with pytest.raises(ValueError, match=rf"{kind.__name__}\.{field.name} = 0: must be"):
            set_field(kind, field.name, 0)


@pytest.mark.parametrize(
    "name",
    """
    Platform.compute_efficiency Platform.memory_efficiency Platform.link_efficiency Speculation.acceptance
    PowerSplit.static PowerSplit.compute PowerSplit.memory PowerSplit.network Model.tied_embeddings
    """.split(),
)
def test_shares_end_at_one(name):
    kind, field = name.split(".")
    assert float(getattr(EXAMPLES[kind].replace(**{field: 1}), field)) == 1.0
    with pytest.raises(ValueError, match=rf"{name} = 1.001: .*1"):
        EXAMPLES[kind].replace(**{field: 1.001})


@pytest.mark.parametrize(
    "name",
    """
    Workload.batch Workload.input_tokens Workload.output_tokens Workload.beams Parallelism.tp Parallelism.ep
    Parallelism.pp Parallelism.micro_batches Attention.heads MoE.top_k Model.layers PrefillChunk.new_tokens
    DecodeChunk.sequences Speculation.tokens NetworkLevel.size Engine.tokens_per_step Engine.max_sequences
    """.split(),
)
def test_counts_are_whole(name):
    kind, field = name.split(".")
    with pytest.raises(ValueError, match=rf"{name} = 1.5: .*whole"):
        EXAMPLES[kind].replace(**{field: 1.5})


def test_a_number_format_beyond_the_known_is_refused():
    with pytest.raises(ValueError, match="compute"):
        gz.Precision("bf16", compute=len(FORMATS))


def test_a_platform_without_a_network_is_refused():
    with pytest.raises(ValueError, match="network"):
        H100.replace(network=())


@pytest.mark.parametrize("value", [[1, 2, 4], np.array([1.0, 2.0])], ids=["list", "array"])
def test_a_bare_list_in_a_field_is_refused_with_the_axis_to_write(value):
    with pytest.raises(ValueError, match=r"(?i)workload\.batch.*gz\.axis"):
        gz.sweep("gpt2", "H100-SXM", gz.Workload(batch=value), stage="decode", figures=["latency"])


# ---------------------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize(
    "value", [8, 8.0, np.int32(8), np.float32(8), np.array(8), jnp.asarray(8.0), jnp.asarray(8), "8", True * 8]
)
def test_numbers_of_many_kinds_are_the_same(value):
    assert float(gz.Workload(batch=value).batch) == 8.0


def test_text_is_converted_to_base_units():
    chip = H100.replace(mem_bw="3.35 TB/s", flops="989 TFLOPS", mem_capacity="80 GiB", power="0.7 kW")
    assert float(chip.mem_bw) == pytest.approx(3.35e12, rel=1e-15)
    assert float(chip.flops) == pytest.approx(989e12, rel=1e-15)
    assert float(chip.mem_capacity) == 80 * 2**30
    assert float(chip.power) == 700


def test_tracers_pass_unchecked():
    def bandwidth_of(value: jax.Array) -> jax.Array:
        return H100.replace(mem_bw=value).mem_bw * 2

    assert float(jax.jit(bandwidth_of)(1.0)) == 2.0
    assert float(jax.grad(bandwidth_of)(3.0)) == 2.0
    np.testing.assert_array_equal(jax.vmap(bandwidth_of)(jnp.array([1.0, -1.0])), [2.0, -2.0])


@given(st.floats(1e5, 1e20))
def test_values_are_kept_exactly(value):
    assert float(H100.replace(mem_bw=value).mem_bw) == value


def test_specs_are_immutable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        H100.mem_bw = 1.0  # type: ignore[misc]


# ---------------------------------------------------------------------------------------------------------- replace


def test_replace_by_name_alias_and_path():
    assert at(LLAMA.replace(**{"attention.kv_heads": 4}), "attention.kv_heads") == 4
    assert float(H100.replace(**{"network.1.bandwidth": "25 GB/s"}).network[1].bandwidth) == 25e9
    assert float(H100.replace(link_bw="25 GB/s").network[0].bandwidth) == 25e9
    assert float(H100.replace(link_bw="25 GB/s").link_bw) == 25e9
    assert float(H100.replace(link_latency="2 us").link_latency) == pytest.approx(2e-6, rel=1e-15)
    assert float(H100.replace(link_domain=72).network[0].size) == 72
    assert float(H100.replace(**{"rates.fp8": 3}).rates.fp8) == 3
    assert float(H100.replace(**{"power_split.static": 0.25}).power_split.static) == 0.25


def test_replace_leaves_the_rest_and_the_original():
    before = [np.asarray(leaf) for leaf in jax.tree.leaves(H100)]
    changed = H100.replace(mem_bw=1e9, link_bw=2e9, link_latency=3e-6)
    np.testing.assert_array_equal(before, jax.tree.leaves(H100))
    differ = [path for path in H100.paths() if at(changed, path) != at(H100, path)]
    assert differ == ["mem_bw", "network.0.bandwidth", "network.0.latency"]
    assert changed.name == H100.name


def at(spec: Spec, path: str) -> float | None:
    value: Any = spec
    for name in path.split("."):
        value = value[int(name)] if name.isdigit() else getattr(value, name)
    return None if value is None else float(value)


@pytest.mark.parametrize("kind", [k.__name__ for k in KINDS])
def test_replace_reaches_every_number(kind):
    spec = EXAMPLES[kind]
    for path in spec.paths():
        # One of a unit is beyond sense for rates and sizes of memory.
        new = 1e12 if path.rpartition(".")[2] in ("flops", "mem_bw", "mem_capacity", "bandwidth", "onchip_bw") else 1.0
        new = 2e10 if path == "offload_bw" else 0.1 if path.startswith("power_split.") else new
        assert at(spec.replace(**{path: new}), path) == new


def test_replacing_a_whole_part_and_a_number_of_it_at_once():
    attention = gz.layers.Attention(layers=32, heads=16, kv_heads=8, head_dim=128)
    both = LLAMA.replace(**{"attention": attention, "attention.kv_heads": 2})
    assert (at(both, "attention.heads"), at(both, "attention.kv_heads")) == (16, 2)


def test_a_replaced_precision_is_named_anew():
    assert gz.Precision("bf16").replace(weights="fp8").name != "bf16"


@pytest.mark.parametrize(
    ("spec", "path", "words"),
    [
        (H100, "mem_bandwidth", "mem_bandwidth.*did you mean.*mem_bw"),
        (H100, "flop", "did you mean.*flops"),
        (H100, "link_bandwidth", "did you mean.*link_bw"),
        (H100, "network.7.bandwidth", "network has 2 items.*7"),
        (H100, "network.x", "network has 2 items.*x"),
        (H100, "network.0.speed", "NetworkLevel has no field 'speed'.*bandwidth"),
        (H100, "mem_bw.x", "mem_bw is a number.*'x'"),
        (H100, "rates.fp7", "Rates has no field 'fp7'.*fp8"),
        (LLAMA, "attention.kvheads", "Attention has no field 'kvheads'.*kv_heads"),
        (LLAMA, "moe.experts", r"moe is absent.*moe\.experts"),
        (gz.Workload(), "batch_size", "did you mean.*batch"),
        (gz.Parallelism(), "TP", "did you mean.*tp"),
    ],
)
def test_unknown_names_give_the_nearest(spec, path, words):
    with pytest.raises(ValueError, match=words) as caught:
        spec.replace(**{path: 1})
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------------------------------------------- pytrees


@pytest.mark.parametrize("kind", [k.__name__ for k in KINDS])
def test_specs_are_pytrees_of_arrays(kind):
    spec = EXAMPLES[kind]
    leaves, structure = jax.tree.flatten(spec)
    assert all(isinstance(leaf, np.ndarray | np.generic | jax.Array) for leaf in leaves)
    given_paths = [path for path in spec.paths() if at(spec, path) is not None]
    assert [float(leaf) for leaf in leaves] == pytest.approx([at(spec, path) for path in given_paths])
    same = jax.tree.unflatten(structure, leaves)
    assert type(same) is type(spec)
    assert jax.tree.structure(jax.tree.map(lambda x: x * 2, spec)) == structure


def test_the_name_is_no_part_of_the_structure():
    first, second = gz.model("llama-3.1-8b"), gz.model("llama-3.1-70b")
    assert first.name != second.name
    assert jax.tree.structure(first) == jax.tree.structure(second)
    assert jax.tree.structure(gz.platform("H100-SXM")) == jax.tree.structure(gz.platform("H200"))
    assert jax.tree.structure(gz.Precision("fp8")) == jax.tree.structure(gz.Precision("int4", "bf16"))
    assert Label("a") == Label("b")
    assert hash(Label("a")) == hash(Label("b"))
    assert Label("a") != "a"


# -------------------------------------------------------------------------------------------------------- precision


@pytest.mark.parametrize(
    ("arguments", "sizes", "compute", "name"),
    [
        (("bf16",), (2, 2, 2), "bf16", "bf16"),
        (("fp8",), (1, 1, 1), "fp8", "fp8"),
        (("int4", "bf16"), (0.5, 2, 2), "bf16", "int4-bf16-bf16"),
        (("int4", "bf16", "fp8"), (0.5, 2, 1), "bf16", "int4-bf16-fp8"),
        (("fp4", "fp8", "fp8"), (0.5, 1, 1), "fp8", "fp4-fp8-fp8"),
        (("fp8", "fp8", "fp8", "bf16"), (1, 1, 1), "bf16", "fp8"),
        (("FP8",), (1, 1, 1), "fp8", "fp8"),
        (("fp32",), (4, 4, 4), "fp32", "fp32"),
        (("int2",), (0.25, 0.25, 0.25), "int2", "int2"),
    ],
)
def test_precision_of_format_names(arguments, sizes, compute, name):
    precision = gz.Precision(*arguments)
    found = tuple(float(x) for x in (precision.weights, precision.activations, precision.kv_cache))
    assert found == sizes
    assert FORMATS[int(precision.compute)] == compute
    assert precision.name == name


def test_rates_of_formats_that_the_platform_lacks_are_zero():
    rates = gz.specs.Rates.from_peaks({"bf16": 100.0, "fp8": 200.0, "int8": 150.0})
    expected = dict.fromkeys(FORMATS, 0.0) | {"fp32": 0.5, "bf16": 1.0, "fp16": 1.0, "fp8": 2.0, "int8": 1.5}
    assert {name: float(getattr(rates, name)) for name in FORMATS} == expected


@pytest.mark.parametrize(
    ("peaks", "words"), [({"bf16": 1.0, "fp7": 1.0}, "fp7.*fp8"), ({"fp8": 1.0}, "bf16"), ({}, "bf16")]
)
def test_rates_that_cannot_be(peaks, words):
    with pytest.raises(ValueError, match=words):
        gz.specs.Rates.from_peaks(peaks)


# ------------------------------------------------------------------------------------------------------------ print


def test_a_printed_spec_is_a_table():
    text = str(H100)
    assert text.splitlines()[0] == "Platform H100-SXM"
    for words in ("3.35 TB/s", "989.4 TFLOP/s", "85.02 GB", "450 GB/s", "1 µs", "memory bandwidth", "network.1"):
        assert words in text
    assert max(len(line) for line in text.splitlines()) < 120
    assert "moe" not in str(LLAMA)
    assert "4,096" in str(LLAMA)
    assert "Axis(n: [1. 2.])" in str(gz.Workload(batch=gz.axis([1, 2], "n")))


def test_a_traced_spec_prints_too():
    seen = []
    jax.eval_shape(lambda x: seen.append(str(H100.replace(mem_bw=x))), 1.0)
    assert "mem_bw" in seen[0]


def test_a_label_may_be_a_text():
    named: Any = "mine"
    chip = gz.Platform(1e15, 1e12, 8e10, label=named)
    assert chip.name == "mine"
    assert gz.model("gpt2").replace(label="ours").name == "ours"
    assert repr(chip).startswith("Platform('mine', flops=1 PFLOP/s, mem_bw=1 TB/s")
