import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import xarray as xr
import zarr

import genz_jax as gz
from genz_jax.grid.packed import of_packed
from genz_jax.grid.walk import compiled
from genz_jax.serving.evaluate import Question, function_of
from genz_jax.store import regions as cutting, write as stores

CHIP = gz.platform("H100-SXM")
CHUNKS = {"mem_bw": 3, "flops": 4, "tp": 2}
FEW = ("latency", "weights", "memory_time", "feasible", "reason")


def small(figures: Any = FEW, bandwidths: int = 7, **options: Any) -> xr.Dataset:
    """84 to 1,200 points whose chunks do not divide the axes, and figures that lack some of them."""
    chip = CHIP.replace(mem_bw=gz.geomspace(1e11, 1e13, bandwidths), flops=gz.geomspace(1e13, 1e16, 6))
    spread = gz.Parallelism(tp=gz.axis([1, 5, 4]))  # 5 does not divide the heads
    options = {"stage": "decode", "progress": False, "figures": figures, **options}
    return gz.sweep(["gpt2", "opt-125m"], chip, None, spread, **options)


def contents(path: Path) -> dict[str, bytes]:
    """Bytes of all files, but for the time at which the store was begun and hashes of it."""
    found = {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}
    found["zarr.json"] = re.sub(rb'"created": "[^"]*"', b"", found["zarr.json"])
    found["done/zarr.json"] = re.sub(rb'"(created|checksum|files)": ".*"', b"", found["done/zarr.json"])
    return found


def names_in(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def done(path: Path) -> int:
    folder = path / "done" / "c"
    return sum(name.isdigit() for name in os.listdir(folder)) if folder.is_dir() else 0


def same(found: xr.Dataset, expected: xr.Dataset) -> None:
    """Equal but for the last bits, which the shape of a block decides, and for when they were made."""
    assert list(found.data_vars) == list(expected.data_vars)
    assert set(found.variables) == set(expected.variables)
    assert {**found.attrs, "created": ""} == {**expected.attrs, "created": ""}
    for name, variable in expected.variables.items():
        assert found[name].dims == variable.dims, name
        if variable.dtype.kind == "f":
            assert found[name].dtype == variable.dtype, name
            np.testing.assert_allclose(found[name], variable, rtol=1e-12, err_msg=str(name))
        else:
            assert found[name].dtype == variable.dtype or variable.dtype.kind == "U", name
            np.testing.assert_array_equal(found[name], variable, err_msg=str(name))
        for key, value in variable.attrs.items():
            np.testing.assert_array_equal(found[name].attrs[key], value)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A store written without a break."""
    path = tmp_path_factory.mktemp("whole") / "x.zarr"
    small(store=path, chunks=CHUNKS)
    return path


# ------------------------------------------------------------------------------------------------- what is in a store


@pytest.mark.first(1)
@pytest.mark.parametrize("chunks", [CHUNKS, None, {"mem_bw": 1}, {"tp": -1, "model": 1, "flops": 100}])
def test_a_store_holds_what_a_sweep_in_memory_does(tmp_path, chunks):
    expected = small(None, breakdown=True)
    found = small(None, breakdown=True, store=tmp_path / "x.zarr", chunks=chunks)
    same(found, expected)
    assert {variable.dims for variable in found.data_vars.values()} >= {(), ("model", "tp"), expected.latency.dims}
    assert names_in(tmp_path) == ["x.zarr"]


@pytest.mark.slow
def test_a_store_of_operators(tmp_path):
    same(
        small(["latency"], operators=True, store=tmp_path / "x.zarr", chunks=CHUNKS), small(["latency"], operators=True)
    )


@pytest.mark.slow
def test_a_store_of_a_point(tmp_path):
    same(gz.sweep("gpt2", CHIP, store=str(tmp_path / "x.zarr")), gz.sweep("gpt2", CHIP))


@pytest.mark.slow
def test_a_store_in_single_precision(tmp_path):
    with jax.enable_x64(False):
        found, expected = small(store=tmp_path / "x.zarr"), small()
    assert found.latency.dtype == np.float32
    np.testing.assert_allclose(found.latency, expected.latency, rtol=1e-6)


@pytest.mark.slow
def test_a_store_opens_without_this_package(whole):
    program = """
        import sys
        import numpy as np
        import xarray as xr

        found = xr.open_zarr(sys.argv[1], consolidated=False, chunks=None)
        assert (found.done == 1).all() and found.done.sizes == {"block": 12}, found.done
        assert found.latency.dims == ("model", "flops", "mem_bw", "tp")
        assert found.latency.attrs["units"] == "s" and found.weights.dims == ("model", "tp")
        assert found.sel(model="gpt2", tp=1).latency.notnull().all()
        assert not found.feasible.sel(tp=5).any() and found.feasible.dtype == bool
        assert found.latency.encoding["chunks"] == (2, 4, 3, 2)
        assert "genz_jax" not in sys.modules and "jax" not in sys.modules
    """
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(program), str(whole)]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=whole.parent)
    assert ended.returncode == 0, ended.stderr


def test_a_store_is_read_when_it_is_used(whole):
    found = small(store=whole, chunks=CHUNKS)
    assert "done" not in found
    assert "block" not in found.dims
    assert not any(variable._in_memory for variable in found.data_vars.values())
    part = found.latency.isel(mem_bw=slice(2, 5), tp=0)
    assert part.shape == (2, 6, 3)
    assert not found.latency.variable._in_memory


@pytest.mark.slow
def test_one_compiled_shape_for_all_regions(tmp_path):
    figures = ("energy", "bound")
    small(figures, store=tmp_path / "x.zarr", chunks=CHUNKS)
    question = Question("decode", gz.Assumptions.default, figures)
    packed = of_packed(function_of(question))
    assert sum(compiled(packed, quick).shapes for quick in (False, True)) == 1


def test_every_region_is_written_once(tmp_path, monkeypatch):
    written: list[tuple[str, tuple]] = []
    write = stores.write_region

    def noted(array: Any, place: Any, *rest: Any) -> None:
        where = tuple(place[dim].start for dim in array.metadata.dimension_names if dim in place)
        written.append((array.name, where))
        write(array, place, *rest)

    monkeypatch.setattr(stores, "write_region", noted)
    small(store=tmp_path / "x.zarr", chunks=CHUNKS)
    assert len(written) == len(set(written))
    counts = {name: sum(what == f"/{name}" for what, _ in written) for name in FEW}
    # ⌈7/3⌉ · ⌈6/4⌉ · ⌈3/2⌉ regions, of which a figure has as many as the dimensions it depends on.
    assert counts == {"latency": 12, "weights": 2, "memory_time": 6, "feasible": 2, "reason": 2}


# ------------------------------------------------------------------------------------------------- killed and resumed

WRITER = """
    import os, pathlib, signal, sys
    import jax

    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_num_cpu_devices", 2)
    path, last = sys.argv[1], int(sys.argv[2])
    replace, count = pathlib.Path.replace, [0]

    def counted(self, target):
        count[0] += 1
        if count[0] == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return replace(self, target)

    pathlib.Path.replace = counted
    sys.path.insert(0, sys.argv[3])
    from test_store import CHUNKS, small

    small(store=path, chunks=CHUNKS)
    print(count[0])
"""


def writer(path: Path, last: int = 0) -> subprocess.Popen:
    """A process that writes the store, and is killed when it is about to rename a file for the `last`th time."""
    command = [sys.executable, "-c", textwrap.dedent(WRITER), str(path), str(last), str(Path(__file__).parent)]
    environment = {**os.environ, "PYTHONPATH": str(Path(gz.__file__).parent.parent)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def killed(path: Path, last: int) -> None:
    process = writer(path, last)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL, errors


@pytest.mark.slow
def test_a_killed_sweep_goes_on_where_it_was(tmp_path, whole, monkeypatch):
    path = tmp_path / "x.zarr"
    killed(path, 40)
    before = done(path)
    assert 0 < before < 12
    computed = []
    compute = cutting.Regions.compute
    monkeypatch.setattr(
        cutting.Regions, "compute", lambda self, region: computed.append(region) or compute(self, region)
    )
    small(store=path, chunks=CHUNKS)
    assert len(computed) == 12 - before
    assert contents(path) == contents(whole)
    assert names_in(tmp_path) == ["x.zarr"]


@pytest.mark.slow
@pytest.mark.parametrize("last", [1, 7, 20, 21, 22, 23, 24, 25, 40, 50, 55, 56])
def test_killed_at_any_moment(tmp_path, whole, last):
    path = tmp_path / "x.zarr"
    killed(path, last)  # of 20 files of the empty store and 36 of the regions
    writer(path, 8).communicate()  # and once more, if so much is left
    small(store=path, chunks=CHUNKS)
    assert contents(path) == contents(whole)
    assert names_in(tmp_path) == ["x.zarr"]


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.0, 0.05, 0.2])
def test_killed_from_outside(tmp_path, whole, delay):
    path = tmp_path / "x.zarr"
    process = writer(path)
    while not path.exists() and process.poll() is None:
        time.sleep(0.001)
    time.sleep(delay)
    process.kill()
    process.communicate()
    small(store=path, chunks=CHUNKS)
    assert contents(path) == contents(whole)


def test_an_interrupted_sweep_says_how_to_go_on(tmp_path, monkeypatch):
    path, finish, calls = tmp_path / "x.zarr", stores.Store._finish, []

    def interrupted(self: stores.Store, number: int, writes: Any) -> int:
        calls.append(number)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return finish(self, number, writes)

    monkeypatch.setattr(stores.Store, "_finish", interrupted)
    with pytest.raises(KeyboardInterrupt, match="2 of 12 regions are done; call again with the same arguments"):
        small(store=path, chunks=CHUNKS)
    monkeypatch.undo()
    same(small(store=path), small())


def test_a_full_disk_is_told_in_one_line_and_leaves_the_store_usable(tmp_path, monkeypatch):
    path = tmp_path / "x.zarr"

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(stores, "write_region", full)
        with pytest.raises(ValueError, match=r"x\.zarr.*No space left on device.*call again to go on"):
            small(store=path, chunks=CHUNKS)
    assert done(path) == 0
    same(small(store=path), small())


def test_what_killed_processes_leave_is_removed_at_the_end(tmp_path, whole):
    path = tmp_path / "x.zarr"
    shutil.copytree(whole, path)
    shutil.rmtree(path / "done" / "c")  # as if all of it were still to do
    (path / "latency" / "c" / "0" / "0" / "0" / "0.abc.partial").write_bytes(b"half")
    (tmp_path / ".x.zarr.abc.new" / "x.zarr").mkdir(parents=True)
    small(store=path, chunks=CHUNKS)
    assert contents(path) == contents(whole)
    assert names_in(tmp_path) == ["x.zarr"]


def test_the_time_of_making_is_that_of_the_first_call(whole):
    created = json.loads((whole / "zarr.json").read_text())["attributes"]["created"]
    assert small(store=whole, chunks=CHUNKS).attrs["created"] == created


# ---------------------------------------------------------------------------------------------------- several writers


def test_writers_that_do_the_same_regions_at_once(tmp_path, whole):
    # Threads of one process take the regions in one order, so that they do all of them twice.
    path, errors = tmp_path / "x.zarr", []

    def write() -> None:
        try:
            with jax.enable_x64(True):
                small(store=path, chunks=CHUNKS)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert contents(path) == contents(whole)
    assert names_in(tmp_path) == ["x.zarr"]


@pytest.mark.slow
def test_processes_share_the_work(tmp_path, whole):
    path = tmp_path / "x.zarr"
    writers = [writer(path) for _ in range(2)]
    ended = [process.communicate(timeout=300) for process in writers]
    assert [process.returncode for process in writers] == [0, 0], ended
    assert contents(path) == contents(whole)
    assert names_in(tmp_path) == ["x.zarr"]


def test_a_writer_whose_work_was_done_and_tidied_by_another_goes_on(tmp_path, monkeypatch):
    path, write = tmp_path / "x.zarr", stores.write_region

    def tidied(array: Any, place: Any, *rest: Any) -> None:
        write(array, place, *rest)
        small(store=path, chunks=CHUNKS)
        raise FileNotFoundError(2, "No such file or directory")

    def once(*args: Any) -> None:
        monkeypatch.setattr(stores, "write_region", write)
        tidied(*args)

    monkeypatch.setattr(stores, "write_region", once)
    same(small(store=path, chunks=CHUNKS), small())


# -------------------------------------------------------------------------------------------------------- what refuses


def test_other_chunks_are_refused(whole):
    before = contents(whole)
    with pytest.raises(ValueError, match=r"'mem_bw': 2.*misaligned.*leave chunks= out") as caught:
        small(store=whole, chunks={**CHUNKS, "mem_bw": 2})
    assert "\n" not in str(caught.value)
    assert contents(whole) == before
    small(store=whole)  # as they are
    small(store=whole, chunks={"mem_bw": 3, "flops": 4, "tp": 2, "model": 2})


@pytest.mark.first(1)
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"bandwidths": 8}, r"platform\.mem_bw is 7 values .* there, 8 values"),
        ({"figures": ("latency",)}, "figures is"),
        ({"assumptions": "genz"}, r"assumptions\.causal is True there, False here.*more"),
        ({"assumptions": gz.Assumptions(smooth=0.1)}, r"assumptions\.smooth is 0\.0 there, 0\.1 here"),
        ({"stage": "prefill"}, "stage is decode there, prefill here"),
        ({"breakdown": True}, "breakdown is False there, True here"),
    ],
)
def test_other_parameters_are_refused(whole, changes, words):
    before = contents(whole)
    with pytest.raises(ValueError, match=rf"holds another sweep; nothing was changed.*{words}") as caught:
        small(**changes, store=whole)
    assert "\n" not in str(caught.value)
    assert contents(whole) == before


@pytest.mark.slow
def test_every_number_of_a_case_counts(tmp_path):
    def write(**changes: Any) -> None:
        gz.sweep(
            "gpt2",
            CHIP.replace(mem_bw=gz.axis([1e12, 2e12, 3e12]), **changes),
            figures="ttft",
            store=tmp_path / "x.zarr",
        )

    write()
    write()
    with pytest.raises(ValueError, match=r"platform\.mem_capacity is 8.*there, 8.*here"):
        write(mem_capacity=np.nextafter(80e9, 81e9))
    with pytest.raises(ValueError, match=r"sha256"):
        # The ends are the same, a value between is not.
        gz.sweep("gpt2", CHIP.replace(mem_bw=gz.axis([1e12, 2.5e12, 3e12])), figures="ttft", store=tmp_path / "x.zarr")


def test_another_precision_is_refused(whole):
    with jax.enable_x64(False), pytest.raises(ValueError, match="numbers is float64 there, float32 here"):
        small(store=whole)


def test_another_version_is_refused(whole, monkeypatch):
    monkeypatch.setattr("importlib.metadata.version", lambda name: "9.9.9")
    with pytest.raises(ValueError, match=r"genz_jax_version is .* there, 9\.9\.9 here"):
        small(store=whole)


def saved(path: Path) -> None:
    gz.save(small(), path)


def other_store(path: Path) -> None:
    zarr.open_group(path, mode="w").create_array("done", shape=(2,), dtype="int8")


def other_folder(path: Path) -> None:
    path.mkdir()
    (path / "thesis.txt").write_text("all of it")


@pytest.mark.parametrize("make", [saved, other_store, other_folder])
def test_what_is_no_store_is_not_touched(tmp_path, make):
    path = tmp_path / "x.zarr"
    make(path)
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    with pytest.raises(ValueError, match=r"x\.zarr.*was not begun by a sweep with store=.*remove it") as caught:
        small(store=path)
    assert "\n" not in str(caught.value)
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before


@pytest.mark.slow
def test_an_empty_folder_becomes_the_store(tmp_path):
    (tmp_path / "x.zarr").mkdir()
    same(small(store=tmp_path / "x.zarr"), small())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"chunks": {"bandwidth": 2}}, "no dimension 'bandwidth'; did you mean"),
        ({"chunks": {"mem_bw": 0}}, r"chunks\['mem_bw'\] = 0: must be a whole number of 1 or more, or -1"),
        ({"chunks": {"mem_bw": -2}}, r"chunks\['mem_bw'\] = -2: must be a whole number"),
        ({"chunks": {"mem_bw": True}}, r"chunks\['mem_bw'\] = True: must be a whole number"),
        ({"store": "x.nc"}, r"'x\.nc': must end in \.zarr"),
        ({"store": "no/x.zarr"}, "'no/x.zarr': the folder .* does not exist"),
        ({"lazy": True}, "takes no store= or client="),
        ({"store": None}, "chunks: only store=… and lazy=True have chunks"),
        ({"store": None, "chunks": None, "client": object()}, "client: its workers write to a store"),
        ({"client": object()}, "must be a dask.distributed.Client"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(tmp_path, monkeypatch, options, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=words) as caught:
        small(**{"store": "x.zarr", "chunks": CHUNKS, **options})
    assert "\n" not in str(caught.value)
    assert done(tmp_path / "x.zarr") == 0


@pytest.mark.parametrize(
    ("chunks", "words"),
    [(7, "chunks = 7: must be a mapping"), ({"x": 2.5}, r"chunks\['x'\] = 2\.5: must be a whole number of 1 or more")],
)
def test_chunks_of_another_type_are_refused(chunks, words):
    with pytest.raises(ValueError, match=words):
        cutting.read_chunks(chunks, {"x": 10})


@pytest.mark.slow
def test_too_many_regions_are_refused(tmp_path):
    chip = CHIP.replace(mem_bw=gz.geomspace(1e11, 1e13, 1000), flops=gz.geomspace(1e13, 1e16, 1000))
    with pytest.raises(ValueError, match="1,000,000 regions of 1 points; at most 100,000, give longer chunks"):
        gz.sweep("gpt2", chip, figures="ttft", store=tmp_path / "x.zarr", chunks={"mem_bw": 1, "flops": 1})
    assert names_in(tmp_path) == []


def test_names_that_a_store_needs_are_refused(tmp_path):
    chip = CHIP.replace(mem_bw=gz.axis([1e12, 2e12], "block"))
    with pytest.raises(ValueError, match="'block': a store has 'done' and 'block' of its own; use another name"):
        gz.sweep("gpt2", chip, figures="ttft", store=tmp_path / "x.zarr")


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(stores, "ZARR", "99.0")
    with pytest.raises(ValueError, match=r"zarr, 99\.0 or later; install it with pip install 'genz_jax\[store\]'"):
        small(store=tmp_path / "x.zarr")


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (
            {"x": slice(0, 4), "y": slice(1, 5)},
            r"region y = 1:5: misaligned with chunks of 3 of 8.*from a multiple of 3",
        ),
        ({"x": slice(0, 4), "y": slice(3, 5)}, "region y = 3:5: misaligned"),
        ({"x": slice(0, 4), "y": slice(0, 6)}, "region y = 0:6: misaligned"),
        ({"x": slice(4, 8), "y": slice(0, 3)}, "region x = 4:8: misaligned with chunks of 4 of 7"),
        ({"x": slice(2, 4), "y": slice(0, 3)}, "region x = 2:4: misaligned"),
    ],
)
def test_a_region_that_is_not_one_chunk_is_refused(tmp_path, place, words):
    array = zarr.create_array(tmp_path / "x.zarr", shape=(7, 8), chunks=(4, 3), dtype="f8", fill_value=0.0)
    value = np.ones([at.stop - at.start for at in place.values()])
    with pytest.raises(ValueError, match=words):
        stores.write_region(array, place, value, {"x": 4, "y": 3}, ("x", "y"))
    assert not np.any(array[:])


def test_regions_of_one_chunk_are_written(tmp_path):
    array = zarr.create_array(tmp_path / "x.zarr", shape=(7, 8), chunks=(4, 3), dtype="f8", fill_value=0.0)
    lengths, dims = {"x": 4, "y": 3}, ("x", "y")
    stores.write_region(array, {"x": slice(4, 7), "y": slice(6, 8)}, np.ones((3, 2)), lengths, dims)
    assert np.sum(np.asarray(array[:])) == 6
    with pytest.raises(ValueError, match=r"misaligned, the chunks of .* have the length 3"):
        stores.write_region(array, {"x": slice(4, 7), "y": slice(6, 8)}, np.ones((3, 2)), {"x": 4, "y": 6}, dims)
    with pytest.raises(ValueError, match=r"an array of shape \(2, 3\) for a region of \(3, 2\)"):
        stores.write_region(array, {"x": slice(4, 7), "y": slice(6, 8)}, np.ones((2, 3)), lengths, dims)


# ------------------------------------------------------------------------------------------------------------- regions


@pytest.mark.parametrize("sizes", [(3, 5, 7), (1000, 1000, 1000), (1, 10**9), (10**9, 1), (16, 16, 4096, 4096)])
@pytest.mark.parametrize("width", [1, 100, 10**5])
def test_regions_that_are_not_given_are_of_bounded_size(sizes, width):
    lengths = {f"d{k}": n for k, n in enumerate(sizes)}
    order = tuple(lengths)
    found = cutting.region_shape({}, lengths, order, width)
    assert all(1 <= found[dim] <= lengths[dim] for dim in order)
    points = np.prod(list(found.values()))
    assert points <= cutting.POINTS
    assert points * width <= cutting.BYTES
    whole = [found[dim] == lengths[dim] for dim in order if lengths[dim] > 1]
    assert whole == sorted(whole)  # the fast ones stay whole
    if np.prod([float(n) for n in sizes]) * width > cutting.BYTES:
        assert points * width > cutting.BYTES / 4 or points > cutting.POINTS / 4
    given = cutting.region_shape({"d0": 1}, lengths, order, width)
    assert given["d0"] == 1
    assert np.prod(list(given.values())) <= cutting.POINTS


@pytest.mark.slow
def test_memory_does_not_grow_with_the_grid(tmp_path):
    program = """
        import resource, sys
        import genz_jax as gz

        chip = gz.platform("H100-SXM").replace(
            mem_bw=gz.geomspace(1e11, 1e13, 2048), flops=gz.geomspace(1e13, 1e16, int(sys.argv[2]))
        )
        gz.sweep("gpt2", chip, stage="decode", figures=["latency", "energy"], store=sys.argv[1], progress=False)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    """
    peaks = []
    for name, count in (("small.zarr", 2048), ("large.zarr", 16 * 2048)):
        command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path / name), str(count)]
        environment = {**os.environ, "PYTHONPATH": str(Path(gz.__file__).parent.parent)}
        ended = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert ended.returncode == 0, ended.stderr
        peaks.append(int(ended.stdout))
        shutil.rmtree(tmp_path / name)
    assert peaks[1] - peaks[0] < 0.1 * 2 * 4 * 2048 * 16 * 2048  # of what the figures take
