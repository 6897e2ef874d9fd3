"""What no machine or model could have is an error of one line: field, value, rule, fix."""

import json
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
import xarray as xr

import genz_jax as gz

MODEL, CHIP, MOE = "llama-3.1-8b", "H100-SXM", "mixtral-8x7b"
H100, LLAMA = gz.platform(CHIP), gz.model(MODEL)
ONE_BOX = H100.replace(**{"network.1.size": 8})
DRAFT = gz.Speculation(gz.model("llama-3.2-1b"), 4, 0.8)


def sweep(
    model: Any = MODEL,
    platform: Any = CHIP,
    workload: Any = None,
    parallelism: Any = None,
    precision: Any = None,
    **options: Any,
) -> xr.Dataset:
    """A sweep of a decode step: what is wrong must be found before anything is compiled."""
    options = {"stage": "decode", "progress": False} | options
    return gz.sweep(model, platform, workload, parallelism, precision, **options)


def estimate(
    model: Any = MODEL,
    platform: Any = CHIP,
    workload: Any = None,
    parallelism: Any = None,
    precision: Any = None,
    **options: Any,
) -> Any:
    options = {"stage": "decode"} | options
    return gz.estimate(model, platform, workload, parallelism, precision, **options)


def fails(call: Callable[[], object], words: str, error: type[Exception] = ValueError) -> None:
    with pytest.raises(error, match=words) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 500
    assert type(caught.value) is error


# Wrong for a single point and for a sweep alike: arguments, and what the message must say in that order.
BOTH = {
    "unknown model": (dict(model="lama-3.1-8b"), "unknown model 'lama-3.1-8b'.*did you mean.*llama-3.1-8b"),
    "unknown platform": (dict(platform="H1000"), r"unknown platform 'H1000'.*(?i:h100).*gz\.platforms\(\)"),
    "unknown workload": (dict(workload="chatt"), r"unknown workload 'chatt'.*chat.*gz\.workloads\(\)"),
    "unknown stage": (dict(stage="decod"), "stage = 'decod'.*must be one of.*did you mean decode"),
    "empty stage": (dict(stage=""), "stage = ''.*must be one of.*request"),
    "unknown assumptions": (dict(assumptions="gens"), r"assumptions = 'gens'.*default, genz.*gz\.Assumptions"),
    "unknown precision": (dict(precision="fp7"), "fp7.*known are.*fp8"),
    "unknown precision of the cache": (dict(precision="fp8-fp8-fp7"), "kv_cache.*fp7.*known are.*fp8"),
    "too many formats": (dict(precision="fp8-fp8-fp8-fp8"), "precision = 'fp8-fp8-fp8-fp8'.*one to three"),
    "empty precision": (dict(precision=""), "Precision.*''.*known are.*fp8"),
    "speculation missing": (dict(stage="speculative_decode"), r"speculative_decode.*gz\.Speculation\("),
    "speculation missing in prefill": (dict(stage="speculative_prefill"), r"speculative_prefill.*gz\.Speculation\("),
    "speculation not asked for": (dict(speculation=DRAFT), "decode.*no speculation.*speculative_decode"),
    "no chunks": (dict(stage="chunked"), r"prefill_chunks.*decode_chunks.*at least one"),
    "operators of speculation": (
        dict(stage="speculative_decode", speculation=DRAFT, operators=True),
        "speculative_decode.*no.*operators.*'decode'",
    ),
}


@pytest.mark.parametrize("case", BOTH)
def test_wrong_for_sweep_and_estimate(case):
    arguments, words = BOTH[case]
    fails(lambda: sweep(**arguments), words)
    fails(lambda: estimate(**arguments), words)


VALUES = {
    "negative": (lambda: H100.replace(mem_bw=-1), r"Platform\.mem_bw = -1: must be finite and above 0"),
    "negative text": (lambda: H100.replace(mem_bw="-1 TB/s"), r"Platform\.mem_bw = -1e\+12: must be .*above 0"),
    "zero": (lambda: H100.replace(flops=0), r"Platform\.flops = 0: must be finite and above 0"),
    "NaN": (lambda: H100.replace(mem_capacity=float("nan")), r"Platform\.mem_capacity = nan: must be finite"),
    "NaN text": (lambda: H100.replace(mem_capacity="nan"), r"Platform\.mem_capacity = nan: must be finite"),
    "Inf": (lambda: H100.replace(mem_bw=np.inf), r"Platform\.mem_bw = inf: must be finite"),
    "Inf text": (lambda: H100.replace(mem_bw="inf GB/s"), r"Platform\.mem_bw = inf: must be finite"),
    "wrong unit": (lambda: H100.replace(mem_bw="80 GB"), r"Platform\.mem_bw = '80 GB'.*'byte'.*'byte s-1'.*TB/s"),
    "unknown unit": (lambda: H100.replace(mem_bw="3 furlong"), r"Platform\.mem_bw = '3 furlong'.*unknown unit.*known"),
    "no number": (lambda: H100.replace(mem_bw="fast"), r"Platform\.mem_bw = 'fast'.*'3.35 TB/s'"),
    "unit of a link": (lambda: H100.replace(link_latency="1 GB/s"), r"latency = '1 GB/s'.*'s'.*'1 us'"),
    "unit of a count": (lambda: gz.Workload(batch="3 GB"), r"Workload\.batch = '3 GB'.*'byte'"),
    "no whole number": (lambda: gz.Workload(batch=2.5), r"Workload\.batch = 2.5: must be a whole number"),
    "batches that are not whole": (
        lambda: gz.Workload(batch=gz.geomspace(1, 256, 30)),
        r"Workload\.batch = 1\.2.*whole number.*np\.unique\(np\.round\(values\)\)",
    ),
    "commas": (lambda: gz.Workload(input_tokens="2,000"), r"Workload\.input_tokens = '2,000' has commas; write 2000"),
    "alias of nothing": (lambda: H100.replace(link_bw=None), r"Platform\.link_bw = None: a value is needed"),
    "a number as a file": (lambda: gz.save(cast("Any", 3), "out.nc"), "dataset = 3: must be an xarray Dataset"),
    "tp=0": (lambda: gz.Parallelism(tp=0), r"Parallelism\.tp = 0: must be a whole number of 1 or more"),
    "no prompt": (lambda: gz.Workload(input_tokens=0), r"Workload\.input_tokens = 0: must be a whole number of 1"),
    "share above 1": (lambda: H100.replace(memory_efficiency=1.2), r"Platform\.memory_efficiency = 1.2: .*at most 1"),
    "acceptance": (lambda: gz.Speculation(LLAMA, 4, 1.1), r"Speculation\.acceptance = 1.1: must be from 0 to 1"),
    "one of an axis": (
        lambda: gz.Workload(batch=gz.axis([1, 2, 0, 4])),
        r"Workload\.batch = 0 \(at 2 of 4 values\): must be a whole number",
    ),
    "one of an axis is no number": (
        lambda: H100.replace(mem_bw=gz.axis(["1 TB/s", "2 TB/s", "nan TB/s"])),
        r"Platform\.mem_bw = nan \(at 2 of 3 values\): must be finite",
    ),
    "axis in another unit": (
        lambda: H100.replace(mem_bw=gz.geomspace("1 GB", "2 GB", 3)),
        r"Platform\.mem_bw: the axis is in 'byte'.*'byte s-1'.*TB/s",
    ),
    "labelled array in another unit": (
        lambda: H100.replace(mem_bw=xr.DataArray([1.0], dims="x", attrs={"units": "GB"})),
        r"Platform\.mem_bw: the axis is in 'byte'.*'byte s-1'",
    ),
    "empty axis": (lambda: gz.Workload(batch=gz.axis([])), "axis: no values.*at least one"),
    "empty linspace": (lambda: H100.replace(mem_bw=gz.linspace(1, 2, 0)), "num = 0.*at least 1"),
    "geomspace from 0": (lambda: H100.replace(mem_bw=gz.geomspace(0, "1 TB/s", 5)), "above 0.*linspace"),
    "unknown field": (lambda: H100.replace(mem_bandwith=1), "'mem_bandwith'.*did you mean.*mem_bw"),
    "unknown smoothing": (lambda: gz.Assumptions(smooth=-1.0), r"Assumptions\.smooth = -1.0.*0 .*0\.5"),
    "element size alone": (lambda: gz.Precision(weights=1.0), r"Precision\.compute.*(format|fp8)"),
}


@pytest.mark.parametrize("case", VALUES)
def test_wrong_values(case):
    make, words = VALUES[case]
    fails(make, words)


ARGUMENTS = {
    "empty list of models": (dict(model=[]), "model = .*empty list.*at least one"),
    "empty list of platforms": (dict(platform=()), "platform = .*empty list.*at least one"),
    "empty list of workloads": (dict(workload=[]), "workload = .*empty list.*at least one"),
    "empty list of precisions": (dict(precision={}), "precision = .*empty list.*at least one"),
    "empty list of parallelisms": (dict(parallelism=[]), "parallelism = .*empty list.*at least one"),
    "model twice": (dict(model=[MODEL, "gpt2", MODEL]), f"model: the name '{MODEL}' stands twice.*mapping"),
    "platform twice": (dict(platform=[H100, H100.replace(mem_bw=1e12)]), "platform: .*'H100-SXM' stands twice"),
    "precision twice": (dict(precision=["fp8", "fp8"]), "precision: .*'fp8' stands twice"),
    "parallelism twice": (dict(parallelism=[gz.Parallelism()] * 2), "parallelism: .*tp1.* stands twice"),
    "unknown name in a list": (dict(model=[MODEL, "gpt-7"]), "unknown model 'gpt-7'"),
    "unknown name in a mapping": (dict(platform={"mine": "H1000"}), "unknown platform 'H1000'"),
    "value twice": (
        dict(workload=gz.Workload(batch=gz.axis([1, 8, 1]))),
        r"workload\.batch: .*value 1 twice.*each value once",
    ),
    "value twice on a short name": (
        dict(platform=H100.replace(link_bw=gz.axis(["1 GB/s", "1 GB/s"]))),
        r"network\.0\.bandwidth: .*value 1e\+09 twice.*each value once",
    ),
    "two axes of one name": (
        dict(model=LLAMA.replace(**{"attention.layers": gz.axis([1, 2]), "ffn.layers": gz.axis([1, 2])})),
        r"ffn\.layers.*attention\.layers.*'layers'.*gz\.axis\(values, dim=",
    ),
    "zip of different lengths": (
        dict(platform=H100.replace(mem_bw=gz.axis([1e12, 2e12], "chip"), flops=gz.axis([1e14, 2e14, 3e14], "chip"))),
        r"mem_bw: 2 values.*'chip'.*flops has 3.*same number",
    ),
    "zip with a list of another length": (
        dict(platform=[CHIP, "H200", "B200"], workload=gz.Workload(batch=gz.axis([1, 2], "platform"))),
        r"batch: 2 values.*'platform'.*has 3",
    ),
    "labels that differ": (
        dict(
            platform=H100.replace(
                mem_bw=xr.DataArray([1e12, 2e12], dims="chip", coords={"chip": ["a", "b"]}),
                flops=xr.DataArray([1e14, 2e14], dims="chip", coords={"chip": ["a", "c"]}),
            )
        ),
        "labels.*'chip' differ",
    ),
    "axis in a listed platform": (
        dict(platform=[H100.replace(mem_bw=gz.axis([1e12, 2e12])), "H200"]),
        "Platform in a list has the axis .*single specs",
    ),
    "axis in a listed workload": (
        dict(workload=[gz.Workload(batch=gz.axis([1, 2])), "chat"]),
        "Workload in a list has the axis .*single specs",
    ),
    "axis in a listed parallelism": (
        dict(parallelism=[gz.Parallelism(tp=gz.axis([1, 2])), gz.Parallelism(tp=8)]),
        "Parallelism in a list has the axis .*single specs",
    ),
    "a bare list in a field": (dict(workload=gz.Workload(batch=np.array([1.0, 2.0]))), r"workload\.batch.*gz\.axis"),
    "unknown figure": (dict(figures=["latncy"]), "figure 'latncy'.*'decode'.*did you mean latency"),
    "figure of another stage": (dict(figures=["ttft"]), "figure 'ttft': not a figure of 'decode'"),
    "unknown figure of a request": (dict(figures=["ttfd"], stage="request"), "figure 'ttfd'.*did you mean ttft"),
    "no figure": (dict(figures=[]), "figures = .*at least one"),
    "a dimension named like a figure": (
        dict(workload=gz.Workload(batch=gz.axis([1, 2], dim="latency"))),
        r"workload\.batch.*'latency'.*another name",
    ),
    "breakdown of speculation": (
        dict(stage="speculative_decode", speculation=DRAFT, breakdown=True),
        "speculative_decode.*no breakdown",
    ),
}


@pytest.mark.parametrize("case", ARGUMENTS)
def test_wrong_for_a_sweep(case):
    arguments, words = ARGUMENTS[case]
    fails(lambda: sweep(**arguments), words)


POINTS = {
    "an axis": (dict(workload=gz.Workload(batch=gz.axis([1, 2]))), r"workload\.batch is an axis.*one point.*gz\.sweep"),
    "an axis of a platform": (
        dict(platform=H100.replace(link_bw=gz.axis([1e9]))),
        r"platform\.network\.0\.bandwidth is an axis.*gz\.sweep",
    ),
    "a bare list in a field": (dict(workload=gz.Workload(batch=np.array([1.0, 2.0]))), r"workload\.batch.*gz\.sweep"),
    "tp does not divide the heads": (
        dict(parallelism=gz.Parallelism(tp=3)),
        r"Parallelism\.tp.* = 3: must divide attention\.heads = 32.*of llama-3\.1-8b; choose a divisor",
    ),
    "tp beyond the heads": (dict(parallelism=gz.Parallelism(tp=64)), r"tp.* = 64: must divide attention\.heads = 32"),
    "tp of channels": (
        dict(model="falcon-mamba-7b", parallelism=gz.Parallelism(tp=3)),
        r"tp.* = 3: must divide ssm\.d_inner = 8192 of falcon-mamba-7b",
    ),
    "ep on a dense model": (
        dict(parallelism=gz.Parallelism(ep=2)),
        r"Parallelism\.ep = 2: llama-3\.1-8b has no experts.*ep=1.*tp or pp",
    ),
    "ep does not divide the experts": (
        dict(model=MOE, parallelism=gz.Parallelism(ep=16)),
        r"Parallelism\.ep = 16: must divide the 8 experts of mixtral-8x7b",
    ),
    "pp beyond the layers": (
        dict(parallelism=gz.Parallelism(pp=33)),
        r"Parallelism\.pp = 33: at most the 32 layers of llama-3\.1-8b",
    ),
    "more replicas than requests": (
        dict(parallelism=gz.Parallelism(dp=2)),
        r"Parallelism\.dp = 2: at most the batch of 1",
    ),
    "more context parallel ranks than tokens": (
        dict(workload=gz.Workload(1, 7), parallelism=gz.Parallelism(cp=8)),
        r"Parallelism\.cp = 8: at most the 7 prompt tokens",
    ),
    "a network too small for context parallelism": (
        dict(platform=ONE_BOX, parallelism=gz.Parallelism(tp=4, cp=4)),
        r"tp·ep·cp·pp = 16 devices.*joins 8",
    ),
    "a network too small": (
        dict(platform=ONE_BOX, parallelism=gz.Parallelism(tp=8, pp=2)),
        r"tp·ep·pp = 16 devices.*network of H100-SXM joins 8.*fewer.*network",
    ),
    "more experts per token than there are": (
        dict(model=gz.model(MOE).replace(**{"moe.top_k": 9})),
        r"moe\.top_k = 9: at most the 8 experts of mixtral-8x7b",
    ),
    "heads that key-value heads do not divide": (
        dict(model=LLAMA.replace(**{"attention.kv_heads": 5})),
        r"attention\.kv_heads = 5: must divide heads = 32 of llama-3\.1-8b",
    ),
    "heads of a draft": (
        dict(
            model="llama-3.1-70b",
            parallelism=gz.Parallelism(tp=8),
            precision="fp8",
            stage="speculative_decode",
            speculation=gz.Speculation(gz.model("gpt2"), 4, 0.8),
        ),
        r"tp.* = 8: must divide attention\.heads = 12.*gpt2",
    ),
    "a draft without experts": (
        dict(
            model=MOE,
            parallelism=gz.Parallelism(ep=8),
            stage="speculative_decode",
            speculation=gz.Speculation(gz.model("llama-3.1-8b"), 4, 0.8),
        ),
        r"Parallelism\.ep = 8: llama-3\.1-8b has no experts",
    ),
}


@pytest.mark.first(1)
@pytest.mark.parametrize("case", POINTS)
def test_wrong_for_an_estimate(case):
    arguments, words = POINTS[case]
    fails(lambda: estimate(**arguments), words)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (dict(parallelism=gz.Parallelism(tp=3)), "heads_not_divisible"),
        (dict(parallelism=gz.Parallelism(ep=2)), "no_experts_for_ep"),
        (dict(model=MOE, parallelism=gz.Parallelism(ep=16)), "experts_not_divisible"),
        (dict(parallelism=gz.Parallelism(pp=33)), "pp_beyond_layers"),
        (dict(platform=ONE_BOX, parallelism=gz.Parallelism(tp=8, pp=2)), "network_too_small"),
        (dict(model="llama-3.1-405b"), "does_not_fit"),
    ],
)
def test_in_a_sweep_the_same_is_data(arguments, reason):
    point = sweep(figures=["latency", "feasible", "reason"], **arguments)
    assert not point.feasible
    assert np.isnan(point.latency)
    assert gz.words(point.reason) == reason


def test_too_big_for_memory_is_refused_at_once_with_the_bytes():
    chip = H100.replace(mem_bw=gz.geomspace(1e12, 2e13, 100_000), flops=gz.geomspace(1e14, 1e16, 100_000))
    huge = gz.Workload(batch=gz.linspace(1, 1000, 1000))
    points, bytes_ = r"10,000,000,000,000 points", r"[48]0,000,000,000,000 bytes"
    words = rf"{points}.*{bytes_}.*figures=.*shorten the axes"
    fails(lambda: sweep(platform=chip, workload=huge, figures=["latency"]), words, MemoryError)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("out.csv", r"'out\.csv': must end in \.nc or \.zarr"),
        ("out", r"'out': must end in \.nc or \.zarr"),
        ("no/such/folder/out.nc", "the folder '.*no/such/folder' does not exist; make it first"),
        ("/proc/out.nc", "'/proc/out.nc'"),
    ],
)
def test_output_that_cannot_be_written(path, words):
    fails(lambda: gz.save(xr.Dataset({"x": 1.0}), path), f"output .*{words}")


def test_a_folder_is_no_netcdf_file(tmp_path):
    (tmp_path / "out.nc").mkdir()
    fails(lambda: gz.save(xr.Dataset({"x": 1.0}), str(tmp_path / "out.nc")), "output .*out.nc.*is a folder")


def test_words_of_a_variable_without_codes():
    fails(lambda: gz.words(xr.DataArray([1.0], name="tpot")), "tpot: .*bound and reason")


# The annotations of the package are checked while tests run, before its own checks; a user has those only.
UNTYPED = {
    "gz.sweep('gpt2', 'H100-SXM', None, 'tp8')": r"parallelism = 'tp8'.*gz\.Parallelism\(tp=8\)",
    "gz.Assumptions(experts='all')": r"Assumptions\.experts = 'all'.*expected, routed",
    "gz.sweep(3, 'H100-SXM')": r"model = 3: must be a name or a gz\.Model, or a list",
    "gz.sweep(None, 'H100-SXM')": "model = None: must be a name",
    "gz.sweep('gpt2', gz.model('gpt2'))": "platform = .*must be a name or a gz.Platform",
    "gz.sweep(['gpt2', 3], 'H100-SXM')": "model = 3: must be a name",
    "gz.sweep('gpt2', 'H100-SXM', 8)": "workload = 8: must be a name or a gz.Workload",
    "gz.sweep('gpt2', 'H100-SXM', None, 8)": r"parallelism = 8: must be .*gz\.Parallelism",
    "gz.sweep('gpt2', 'H100-SXM', precision=8)": "precision = 8: must be a name or a gz.Precision",
    "gz.sweep('gpt2', 'H100-SXM', assumptions=None)": "assumptions = None: must be one of default, genz",
    "gz.sweep('gpt2', 'H100-SXM', stage=None)": "stage = None: must be one of request",
    "gz.sweep('gpt2', 'H100-SXM', figures=[3])": "figure 3: not a figure",
    "gz.sweep('gpt2', 'H100-SXM', stage='speculative_decode', speculation='gpt2')": "speculation = 'gpt2'.*Speculation",
    "gz.estimate(3, 'H100-SXM')": "model = 3: must be a name",
    "gz.estimate('gpt2', 'H100-SXM', stage=None)": "stage = None: must be one of request",
    "gz.estimate(['gpt2'], 'H100-SXM')": "model.*estimate takes one point.*gz.sweep",
    "gz.estimate('gpt2', ['H100-SXM', 'H200'])": "platform.*estimate takes one point.*gz.sweep",
    "gz.Workload(batch=None)": r"Workload\.batch = None: must be a whole number",
    "gz.Workload(batch={})": r"Workload\.batch = \{\}: not a number",
    "gz.Precision(compute=None, weights=None)": r"Precision\.weights = None",
    "gz.Platform(1e15, 1e12, 8e10, network=[])": r"Platform\.network",
    "gz.linspace(0, 1, '3')": "num = '3'",
    "gz.model(3)": "unknown model 3",
}


@pytest.mark.slow
def test_wrong_kinds_of_input():
    program = """
        import json, sys
        import genz_jax as gz

        found = {}
        for call in json.load(sys.stdin):
            try:
                found[call] = ["none", str(eval(call))]
            except Exception as error:
                found[call] = [type(error).__name__, str(error)]
        print(json.dumps(found))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        input=json.dumps(list(UNTYPED)),
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    wrong = {
        call: found[call]
        for call, words in UNTYPED.items()
        if found[call][0] != "ValueError" or not re.search(words, found[call][1]) or "\n" in found[call][1]
    }
    assert not wrong
