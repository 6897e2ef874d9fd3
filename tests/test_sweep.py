import dataclasses
from typing import Any

import jax
import numpy as np
import pytest
import xarray as xr
from tqdm import tqdm

import genz_jax as gz
from genz_jax.base.fields import Rule, Spec
from genz_jax.grid import feed, shape
from genz_jax.labelled import labels
from genz_jax.serving import results
from genz_jax.serving.evaluate import Case

CHIP = gz.platform("H100-SXM")
QUICK = {"stage": "decode", "progress": False}
FEW = {"figures": ["latency", "weights"], **QUICK}
SMALL = ["gpt2", "opt-125m", "opt-1.3b"]

CHUNKS = gz.Workload(
    prefill_chunks=(gz.specs.PrefillChunk(128, 256),),
    decode_chunks=(gz.specs.DecodeChunk(4, 4, gz.axis([512, 1024], "context")),),
)
DRAFT = gz.Speculation(gz.model("opt-125m"), gz.axis([2, 4], "drafted"), 0.8)


def replaced(spec: Spec, path: str, value: object) -> Spec:
    return spec.replace(**{path: value})


# ------------------------------------------------------------------------------------------------ sweep and estimate


@pytest.mark.first(1)
@pytest.mark.parametrize(
    "stage", ["request", "prefill", "decode", "chunked", "speculative_prefill", "speculative_decode"]
)
def test_a_sweep_is_many_estimates(stage):
    speculates = stage.startswith("speculative")
    workload = CHUNKS if stage == "chunked" else gz.Workload(batch=gz.axis([1, 8]), input_tokens=300, output_tokens=40)
    platform = CHIP.replace(mem_bw=gz.geomspace("0.5 TB/s", "8 TB/s", 3), link_latency=gz.axis(["1 us", "3 us"]))
    spread = gz.Parallelism(tp=gz.axis([1, 4]), pp=gz.axis([1, 2]))
    draft = DRAFT if speculates else None
    options = {"stage": stage, "operators": stage == "decode"}
    found = gz.sweep("gpt2", platform, workload, spread, "fp8", speculation=draft, progress=False, **options)
    generator = np.random.default_rng(0)
    for _ in range(4):
        place = {dim: int(generator.integers(n)) for dim, n in found.sizes.items() if dim != "operator"}
        point = found.isel(place)
        at = {name: float(value) for name, value in point.coords.items() if value.ndim == 0}
        if stage == "chunked":
            work = CHUNKS.replace(**{"decode_chunks.0.context_tokens": [512, 1024][place["context"]]})
        else:
            work = gz.Workload(at["batch"], 300, 40)
        draft = gz.Speculation(gz.model("opt-125m"), [2, 4][place["drafted"]], 0.8) if speculates else None
        chip = CHIP.replace(mem_bw=at["mem_bw"], link_latency=at["link_latency"])
        alone = gz.estimate(
            "gpt2", chip, work, gz.Parallelism(at["tp"], 1, at["pp"]), "fp8", speculation=draft, **options
        )
        compared = 0
        for name, (value, meta) in labels.flat_figures(alone).items():
            if name not in point:  # figures of a request's stages are there only on demand
                continue
            expected = np.array(list(value.values())) if isinstance(value, dict) else value
            np.testing.assert_allclose(point[name], expected, rtol=1e-12, err_msg=name)
            compared += 1 + ("dim" in meta)
        assert compared >= (25 if stage == "decode" else 12)


@pytest.mark.slow
def test_lists_of_everything():
    models, platforms = ["gpt2", "mixtral-8x7b"], ["H100-SXM", "MI300X", "TPU-v5p"]
    workloads = {"short": gz.Workload(4, 128, 16), "chat": "chat"}
    spreads = [gz.Parallelism(), gz.Parallelism(tp=4), gz.Parallelism(tp=2, pp=2)]
    precisions = ["bf16", "fp8", gz.Precision("int4", "bf16")]
    found = gz.sweep(models, platforms, workloads, spreads, precisions, figures=["latency", "memory"], **QUICK)
    assert dict(found.sizes) == {"model": 2, "platform": 3, "workload": 2, "parallelism": 3, "precision": 3}
    assert found.latency.dims == ("model", "platform", "workload", "parallelism", "precision")
    assert found.model.values.tolist() == models
    assert found.platform.values.tolist() == platforms
    assert found.workload.values.tolist() == ["short", "chat"]
    assert found.parallelism.values.tolist() == ["tp1-ep1-pp1", "tp4-ep1-pp1", "tp2-ep1-pp2"]
    assert found.precision.values.tolist() == ["bf16", "fp8", "int4-bf16-bf16"]
    point = found.sel(
        model="mixtral-8x7b", platform="MI300X", workload="chat", parallelism="tp2-ep1-pp2", precision="fp8"
    )
    alone = gz.estimate("mixtral-8x7b", "MI300X", "chat", spreads[2], "fp8", stage="decode")
    assert float(point.latency) == pytest.approx(float(alone.latency), rel=1e-9)
    assert float(point.memory) == pytest.approx(float(alone.memory), rel=1e-9)


def test_names_of_a_mapping_are_the_labels():
    chips = {"as it is": "H100-SXM", "twice the bandwidth": CHIP.replace(mem_bw="6.7 TB/s")}
    found = gz.sweep("gpt2", chips, figures=["memory_time"], **QUICK)
    assert found.platform.values.tolist() == list(chips)
    one, two = (float(found.memory_time.sel(platform=name)) for name in chips)
    assert one == pytest.approx(2 * two, rel=1e-9)


def test_specs_without_names_are_numbered():
    model = gz.Model(64, 2, 100, attention=gz.layers.Attention(2, 4, 4, 16), ffn=gz.layers.FFN(2, 128))
    found = gz.sweep([model, "gpt2", model.replace(vocab_size=200)], CHIP, figures=["latency"], **QUICK)
    assert found.model.values.tolist() == ["model0", "gpt2", "model2"]


@pytest.mark.slow
def test_lists_of_one():
    found = gz.sweep(["gpt2"], ("H100-SXM",), [gz.Workload()], [gz.Parallelism()], ["fp8"], **FEW)
    assert dict(found.sizes) == {"model": 1, "platform": 1, "workload": 1, "parallelism": 1, "precision": 1}
    assert set(found.weights.dims) == {"model", "parallelism", "precision"}
    point = gz.sweep("gpt2", "H100-SXM", precision="fp8", **FEW)
    assert float(found.latency.squeeze()) == pytest.approx(float(point.latency), rel=1e-12)


def test_names_in_an_array():
    first = gz.sweep(SMALL, CHIP, figures=["latency"], **QUICK)
    again = gz.sweep(first.model.values, CHIP, figures=["latency"], **QUICK)
    xr.testing.assert_equal(first, again)


# ------------------------------------------------------------------------------------------------ any number an axis


ATTENTION = {"v_head_dim": 32, "value_projection": 0.5, "output_gate": 512, "input_size": 1024, "qk_norms": 128}
EXTRA = {**ATTENTION, "biases": 64, "tied_layers": 1, "shared_kv_layers": 1}
INDEXER = gz.layers.Indexer(2, 4, 32, 64, head_weights=0.5)
PER_KIND = "/".join(
    ["bf16", *(f"{kind}=int8-int8" for kind in ("attention", "ffn", "experts", "shared_experts", "head"))]
)
EVERYTHING = Case(
    model=gz.Model(
        512,
        12,
        1000,
        1.0,
        head_biases=1000,
        other_parameters=4096,
        mtp_layers=1,
        mtp_dense=0.5,
        mtp_local=0.5,
        attention=gz.layers.Attention(2, 8, 2, 64, **EXTRA),
        local_attention=gz.layers.LocalAttention(2, 8, 4, 64, 32, **EXTRA),
        sparse_attention=gz.layers.SparseAttention(2, 8, 4, 64, indexer=INDEXER.replace(block_size=8), **EXTRA),
        compressed_attention=gz.layers.CompressedAttention(
            4,
            8,
            64,
            96,
            32,
            4,
            48,
            biases=8,
            sparse=gz.layers.Compressor(2, 4, 2, indexer=INDEXER),
            heavy=gz.layers.Compressor(2, 16),
        ),
        latent_attention=gz.layers.LatentAttention(
            2, 8, 96, 64, 32, 16, 32, biases=64, output_gate=256, indexer=INDEXER
        ),
        ssm=gz.layers.SSM(2, 1024, 16, 4, 32, inner_norms=64, biases=2048),
        ssd=gz.layers.SSD(2, 16, 64, 32, 1, 4, inner_norms=1024, biases=64),
        delta_net=gz.layers.DeltaNet(2, 4, 8, 64, 64, 4, decay_rank=16, gate_rank=32),
        linear_attention=gz.layers.LinearAttention(2, 8, 64, inner_norms=512),
        short_convolution=gz.layers.ShortConvolution(2, 512, 4, biases=8),
        lm_head=0.5,
        ffn=gz.layers.FFN(6, 1024, biases=64, tied_layers=2),
        moe=gz.layers.MoE(
            6,
            8,
            2,
            256,
            2,
            1,
            512,
            biases=64,
            router_biases=8,
            shared_gate=0.5,
            latent=gz.layers.LatentExperts(128, norm=0.5),
        ),
        layer_embedding=gz.layers.LayerEmbedding(12, 32, 900),
        residual_streams=gz.layers.ResidualStreams(24, 4, 2, 0.5),
        projections=(gz.layers.Projection(4, 512, 64), gz.layers.Projection(4, 64, 512, uses=2)),
    ),
    platform=CHIP.replace(
        compute_efficiency=0.5,
        memory_efficiency=0.5,
        link_efficiency=0.5,
        offload_bw="64 GB/s",
        link_domain=64,
        rates=gz.specs.Rates(),
    ),
    workload=gz.Workload(4, 300, 40, 2, cached_tokens=64, cache_hit_rate=0.5),
    parallelism=gz.Parallelism(1, 1, 1, 2),
    precision=gz.Precision(PER_KIND, kv_outliers=0.02, kv_rank=4),
    engine=gz.Engine(8192, max_sequences=64),
)


def numbers_of(case: Case) -> dict[tuple[str, str], tuple[float, Rule]]:
    """Value and rule of every number of a case that a decode step may depend on, by part and path."""
    found = {}
    for part in dataclasses.fields(case):
        spec = getattr(case, part.name)
        for path in spec.paths() if spec is not None else ():
            at: Any = spec
            rule: Any = None
            for name in path.split("."):
                if isinstance(at, tuple):
                    at = at[int(name)]
                else:
                    rule = next(f.metadata.get("rule") for f in dataclasses.fields(at) if f.name == name)
                    at = getattr(at, name)
            if at is not None:  # bidirectional: what sees both ways generates nothing
                found[part.name, path] = (float(at), rule)
    return found


def other(value: float, rule: Rule) -> float:
    if np.isinf(rule.high):
        return value * 2
    if rule.whole:
        return rule.low if value > rule.low else rule.high
    return value / 2


def three_points() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Every number as an axis of the dimension `point`, and the three cases that it stands for.

    The second point changes every third number that is no parallelism, the third all numbers.
    """
    axes: dict[str, dict[str, gz.specs.Axis]] = {}
    points: list[dict[str, dict[str, float]]] = [{}, {}, {}]
    for i, ((part, path), (value, rule)) in enumerate(numbers_of(EVERYTHING).items()):
        values = [value, other(value, rule) if i % 3 == 0 and part != "parallelism" else value, other(value, rule)]
        axes.setdefault(part, {})[path] = gz.axis(values, dim="point")
        for point, number in zip(points, values, strict=True):
            point.setdefault(part, {})[path] = number
    swept, *single = (
        {part: getattr(EVERYTHING, part).replace(**paths) for part, paths in one.items()} for one in (axes, *points)
    )
    return swept, single


@pytest.mark.slow
def test_every_number_may_be_an_axis():
    assert len(numbers_of(EVERYTHING)) > 80
    swept, points = three_points()
    parts, figures = ("model", "platform", "workload", "parallelism", "precision"), ["latency", "memory", "energy"]
    found = gz.sweep(*(swept[part] for part in parts), figures=[*figures, "reason"], engine=swept["engine"], **QUICK)
    assert dict(found.sizes) == {"point": 3}
    assert (gz.words(found.reason) == "feasible").all()
    for i, point in enumerate(points):
        alone = gz.sweep(*(point[part] for part in parts), figures=figures, engine=point["engine"], **QUICK)
        for name in figures:
            np.testing.assert_allclose(found[name][i], alone[name], rtol=1e-12)


def test_every_zipped_number_is_a_coordinate():
    swept, _ = three_points()
    coords = labels.read_grid(labels.name_axes(Case(**swept))).coords
    assert len(coords) == len(numbers_of(EVERYTHING))


FIGURES = {
    field.name.removesuffix("_code")
    for kind in vars(results).values()
    if isinstance(kind, type) and issubclass(kind, results.Result) and kind is not results.OperatorResult
    for field in dataclasses.fields(kind)
}


@pytest.mark.first(44)
@pytest.mark.parametrize(("part", "path"), numbers_of(EVERYTHING))
def test_an_axis_of_any_number_has_a_name_of_its_own(part, path):
    value, rule = numbers_of(EVERYTHING)[part, path]
    axis = gz.axis([value, other(value, rule)])
    case = dataclasses.replace(EVERYTHING, **{part: replaced(getattr(EVERYTHING, part), path, axis)})
    grid = labels.read_grid(labels.name_axes(case))
    (name,) = grid.sizes
    assert name not in FIGURES
    assert path.rsplit(".", 1)[-1] in name or name.startswith("link_")
    assert grid.coords[name].attrs["units"]
    assert grid.coords[name].attrs["long_name"]


def test_sweeping_the_rate_of_a_single_stage():
    # The rate of a platform and the operations of a stage must not take each other's name.
    rates = [1e13, 1e14, 1e15]
    found = gz.sweep("gpt2", CHIP.replace(flops=gz.axis(rates)), **QUICK)
    assert found.latency.dims == ("flops",)
    np.testing.assert_allclose(
        found.compute_time * found.flops, float((found.compute_time * found.flops)[0]), rtol=1e-9
    )


# ------------------------------------------------------------------------------------------------------------ order


def test_the_order_of_an_axis_is_the_users():
    values = [3e12, 1e12, 2e12, 5e11]
    chip = CHIP.replace(mem_bw=gz.axis(values))
    found = gz.sweep("gpt2", chip, figures=["memory_time"], **QUICK).memory_time
    np.testing.assert_array_equal(found.mem_bw, values)
    np.testing.assert_allclose(found * values, float(found[0] * values[0]), rtol=1e-9)


# ----------------------------------------------------------------------------------------------------------- blocks


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(shape, "CPU", shape.Blocking(100, 12))


def many(**options) -> xr.Dataset:
    chip = CHIP.replace(
        mem_bw=gz.geomspace(1e11, 1e13, 11), flops=gz.geomspace(1e13, 1e16, 7), mem_capacity=gz.axis(["1 GB", "80 GB"])
    )
    return gz.sweep(
        SMALL, chip, gz.Workload(batch=gz.axis([1, 3, 7, 50, 900])), gz.Parallelism(tp=gz.axis([1, 2, 3])),
        breakdown=True, **QUICK, **options,
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole() -> xr.Dataset:
    return many()


@pytest.mark.slow
def test_blocks_make_the_whole(whole, small_blocks, monkeypatch):
    seen = []
    part = feed.Blocks.part

    def counted(self, block):
        seen.append(tuple(self.shape.values()))
        return part(self, block)

    monkeypatch.setattr(feed.Blocks, "part", counted)
    parts = many()
    assert len(seen) > 100
    assert len(set(seen)) == 1  # one shape, so one compilation
    assert np.prod(seen[0]) <= 100
    assert set(parts.variables) == set(whole.variables)
    for name, variable in whole.variables.items():
        assert parts[name].dims == variable.dims, name
        if variable.dtype.kind == "f":
            np.testing.assert_allclose(parts[name], variable, rtol=1e-6, err_msg=str(name))
        else:
            np.testing.assert_array_equal(parts[name], variable, err_msg=str(name))


@pytest.mark.parametrize("sizes", [(1, 1), (2, 3), (5, 7), (13, 11), (97, 3), (3, 97), (64, 64)])
@pytest.mark.parametrize("limit", [4, 10, 60])
def test_blocks_cover_every_point(monkeypatch, sizes, limit):
    monkeypatch.setattr(shape, "CPU", shape.Blocking(limit, limit // 2))
    rows, columns = sizes
    case = Case(
        gz.model("gpt2"),
        CHIP.replace(mem_bw=gz.axis(1e6 * np.arange(1.0, columns + 1), "columns")),
        gz.Workload(batch=gz.axis(np.arange(1.0, rows + 1), "rows")),
        gz.Parallelism(),
        gz.Precision(),
    )
    lengths, order = {"rows": rows, "columns": columns}, ("rows", "columns")
    arrays = labels.to_arrays(case, order)
    blocks = feed.Blocks(arrays, lengths, order, shape.rounded_shape(case, lengths, order))
    assert all(n >= min(2, lengths[dim]) for dim, n in blocks.shape.items())
    visits, values = np.zeros(sizes, int), np.zeros(sizes)
    for block in blocks:
        part = blocks.part(block).tree
        batch, bandwidth = np.broadcast_arrays(part.workload.batch, part.platform.mem_bw)
        assert batch.shape == tuple(blocks.shape[dim] if lengths[dim] > 1 else 1 for dim in order)
        place = tuple(block.place[dim] for dim in order)
        visits[place] += 1
        values[place] = (1000.0 * batch + bandwidth / 1e6)[block.inside(order)]
    assert (visits == 1).all()
    np.testing.assert_array_equal(values, 1000.0 * np.arange(1.0, rows + 1)[:, None] + np.arange(1.0, columns + 1))


# ---------------------------------------------------------------------------------------------------------- figures


@pytest.mark.slow
def test_figures_are_a_choice_of_all(whole):
    chosen = many(figures=("energy", "bound", "reason", "weights"))
    assert set(chosen.data_vars) == {"energy", "bound", "reason", "weights", "breakdown"}
    for name, variable in chosen.items():
        xr.testing.assert_allclose(variable, whole[name], rtol=1e-12)


@pytest.mark.slow
def test_figures_of_the_stages_of_a_request():
    chip = CHIP.replace(mem_bw=gz.axis([1e12, 2e12]))
    names = ["ttft", "prefill_latency", "decode_throughput", "decode_memory", "decode_bound"]
    found = gz.sweep("gpt2", chip, figures=names, progress=False)
    assert set(found.data_vars) == set(names)
    decode = gz.sweep("gpt2", chip, **QUICK)
    np.testing.assert_allclose(found.decode_throughput, decode.throughput, rtol=1e-12)
    np.testing.assert_allclose(found.decode_memory, decode.memory, rtol=1e-12)
    np.testing.assert_allclose(found.prefill_latency, found.ttft, rtol=1e-12)


def test_one_figure_as_a_text():
    assert set(gz.sweep("gpt2", CHIP, figures="latency", **QUICK).data_vars) == {"latency"}


# ---------------------------------------------------------------------------------------------------------- numbers


@pytest.mark.slow
def test_single_precision_agrees_with_double():
    def some() -> xr.Dataset:
        chip = CHIP.replace(mem_bw=gz.geomspace(1e11, 1e13, 3), link_bw=gz.axis(["450 GB/s"]))
        figures = ["latency", "throughput", "memory", "energy", "feasible", "reason"]
        return gz.sweep("llama-3.1-405b", chip, None, gz.Parallelism(tp=gz.axis([8, 16])), figures=figures, **QUICK)

    double = some()
    with jax.enable_x64(False):
        single = some()
    assert double.latency.dtype == np.float64
    assert single.latency.dtype == np.float32
    for name in double:
        assert single[name].dims == double[name].dims
        np.testing.assert_allclose(single[name], double[name], rtol=1e-5)


def test_results_are_plain_numpy_that_may_be_written_to():
    found = gz.sweep("gpt2", CHIP.replace(mem_bw=gz.axis([1e12, 2e12])), figures=["latency"], **QUICK)
    assert type(found.latency.values) is np.ndarray
    found.latency[:] = 0.0
    assert (found.latency == 0).all()


# --------------------------------------------------------------------------------------------------------- progress


def quick_sweep(**options) -> None:
    gz.sweep("gpt2", CHIP.replace(mem_bw=gz.axis([1e12, 2e12])), stage="decode", figures=["latency"], **options)


def test_short_sweeps_are_silent(capfd):
    quick_sweep(progress=False)  # compiles
    capfd.readouterr()
    quick_sweep()
    quick_sweep(progress=False)
    assert capfd.readouterr() == ("", "")


def test_long_sweeps_show_a_bar_unless_told_not_to(capfd, monkeypatch):
    def at_once(items: Any, **options: Any) -> tqdm:
        options["delay"] = 0
        return tqdm(items, **options)

    monkeypatch.setattr(feed, "tqdm", at_once)
    quick_sweep(progress=False)
    assert capfd.readouterr() == ("", "")
    quick_sweep()
    out, err = capfd.readouterr()
    assert out == ""
    assert "block" in err
