import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import genz_jax as gz
from genz_jax.base import files


@pytest.fixture(scope="module")
def ds() -> xr.Dataset:
    """All kinds of variables: floats, codes, flags, texts, components, operators, infeasible points."""
    chip = gz.platform("H100-SXM").replace(mem_bw=gz.axis(["1 TB/s", "2 TB/s"]))
    spread = gz.Parallelism(tp=gz.axis([1, 5]))
    options = {"stage": "decode", "breakdown": True, "operators": True, "progress": False}
    return gz.sweep(["gpt2", "opt-125m"], chip, None, spread, **options)


def read(path: Path) -> xr.Dataset:
    if path.suffix == ".nc":
        return xr.load_dataset(path)
    return xr.open_zarr(path, consolidated=False).load()


def names_in(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["out.nc", "out.zarr"])
def test_a_file_holds_the_same(ds, tmp_path, name):
    path = tmp_path / name
    gz.save(ds, str(path))
    back = read(path)
    xr.testing.assert_identical(back, ds)
    for key in ds.variables:
        assert back[key].dtype.kind == ds[key].dtype.kind or ds[key].dtype.kind == "U", key
        assert back[key].dtype == ds[key].dtype or ds[key].dtype.kind == "U", key
        assert set(back[key].attrs) == set(ds[key].attrs), key
    assert back.attrs == ds.attrs
    assert names_in(tmp_path) == [name]


@pytest.mark.parametrize("name", ["out.nc", "out.zarr"])
def test_codes_have_words_after_a_trip(ds, tmp_path, name):
    gz.save(ds, str(tmp_path / name))
    back = read(tmp_path / name)
    for code in ("bound", "reason", "operator_bound"):
        np.testing.assert_array_equal(gz.words(back[code]), gz.words(ds[code]))
    assert set(np.unique(gz.words(back.reason))) == {"feasible", "heads_not_divisible"}


@pytest.mark.parametrize("name", ["out.nc", "out.zarr"])
def test_saving_replaces_what_was_there(ds, tmp_path, name):
    path = tmp_path / name
    gz.save(ds, str(path))
    gz.save(ds[["latency"]] * 2, str(path))
    back = read(path)
    assert set(back.data_vars) == {"latency"}
    np.testing.assert_array_equal(back.latency, ds.latency * 2)
    assert names_in(tmp_path) == [name]


def test_a_path_may_be_a_path(ds, tmp_path):
    gz.save(ds, tmp_path / "out.nc")
    assert names_in(tmp_path) == ["out.nc"]


def test_a_relative_path(ds, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    gz.save(ds[["latency"]], "out.nc")
    assert names_in(tmp_path) == ["out.nc"]


@pytest.mark.parametrize("name", ["out.nc", "out.zarr"])
def test_a_failed_save_leaves_the_old_file_and_nothing_else(ds, tmp_path, monkeypatch, name):
    path = tmp_path / name
    gz.save(ds, str(path))

    def half(self: xr.Dataset, target: str = "", **options: object) -> None:
        if target:
            Path(target).write_text("half")
        raise RuntimeError("interrupted")

    monkeypatch.setattr(xr.Dataset, "to_netcdf", half)
    monkeypatch.setattr(xr.Dataset, "to_zarr", half)
    with pytest.raises(RuntimeError, match="interrupted"):
        gz.save(ds * 2, str(path))
    assert names_in(tmp_path) == [name]
    xr.testing.assert_identical(read(path), ds)


@pytest.mark.parametrize("size", [0, 10**9])
def test_a_netcdf_file_is_the_same_however_it_is_made(ds, tmp_path, monkeypatch, size):
    monkeypatch.setattr(files, "IN_MEMORY", size)
    gz.save(ds, tmp_path / "out.nc")
    xr.testing.assert_identical(read(tmp_path / "out.nc"), ds)
    assert (tmp_path / "out.nc").stat().st_size < 10**6


@pytest.mark.first(1)
@pytest.mark.parametrize("name", ["out.nc", "out.zarr"])
@pytest.mark.parametrize("size", [0, 10**9])
def test_a_file_size_limit_is_told_in_one_line_and_leaves_nothing(tmp_path, name, size):
    program = f"""
        import resource
        import numpy as np
        import xarray as xr
        from genz_jax.base import files

        files.IN_MEMORY = {size}
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        try:
            files.save(xr.Dataset({{"a": ("x", np.random.default_rng(0).random(10_000))}}), {name!r})
        except ValueError as error:
            print(error)
    """
    environment = {**os.environ, "PYTHONPATH": str(Path(gz.__file__).parent.parent)}
    command = [sys.executable, "-c", textwrap.dedent(program)]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == f"output {name!r}: cannot be written (File too large)\n"
    assert names_in(tmp_path) == []


def test_a_folder_of_other_things_is_not_replaced(ds, tmp_path):
    (tmp_path / "out.zarr").mkdir()
    (tmp_path / "out.zarr" / "thesis.txt").write_text("all of it")
    with pytest.raises(ValueError, match=r"out\.zarr'.*holds no Zarr store; choose another name"):
        gz.save(ds, tmp_path / "out.zarr")
    assert (tmp_path / "out.zarr" / "thesis.txt").read_text() == "all of it"
    assert names_in(tmp_path) == ["out.zarr"]


def test_a_link_is_written_through(ds, tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "near.nc").symlink_to(tmp_path / "far" / "out.nc")
    gz.save(ds[["latency"]], tmp_path / "near.nc")
    assert (tmp_path / "near.nc").is_symlink()
    assert names_in(tmp_path / "far") == ["out.nc"]


def test_a_store_that_cannot_be_replaced_stays(tmp_path, monkeypatch):
    def store(path: str) -> None:
        Path(path).mkdir()
        (Path(path) / "zarr.json").write_text("{}")

    store(str(tmp_path / "out.zarr"))
    (tmp_path / "out.zarr" / "mine").write_text("")
    replace = os.replace

    def refused(source: str, target: str | Path) -> None:
        if Path(source).name == "out.zarr" and Path(source).parent != tmp_path:
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", refused)
    with pytest.raises(ValueError, match="No space left"):
        files.write(tmp_path / "out.zarr", {".zarr": store})
    assert names_in(tmp_path / "out.zarr") == ["mine", "zarr.json"]
    assert names_in(tmp_path) == ["out.zarr"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, MemoryError])
def test_a_failed_write_leaves_nothing(tmp_path, error):
    def half(path: str) -> None:
        Path(path).write_text("half")
        raise error("stop")

    with pytest.raises(error, match="stop"):
        files.write(tmp_path / "out.nc", {".nc": half})
    assert names_in(tmp_path) == []


def test_a_write_that_the_system_refuses_is_told_in_one_line(tmp_path):
    def full(path: str) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(ValueError, match=r"out\.nc.*No space left on device") as caught:
        files.write(tmp_path / "out.nc", {".nc": full})
    assert "\n" not in str(caught.value)
    assert names_in(tmp_path) == []


def test_what_is_written_is_complete_before_it_is_there(tmp_path):
    target = tmp_path / "out.nc"
    seen = []

    def slow(path: str) -> None:
        Path(path).write_text("first")
        seen.append(target.exists())
        Path(path).write_text("all")

    files.write(target, {".nc": slow})
    assert seen == [False]
    assert target.read_text() == "all"


def test_a_store_takes_the_place_of_a_store(tmp_path):
    def store(path: str) -> None:
        Path(path).mkdir()
        (Path(path) / "zarr.json").write_text("{}")

    old = tmp_path / "out.zarr"
    store(str(old))
    (old / "left-over").write_text("")
    files.write(old, {".zarr": store})
    assert names_in(old) == ["zarr.json"]
    assert names_in(tmp_path) == ["out.zarr"]


def test_a_file_is_as_readable_as_any_other(ds, tmp_path):
    gz.save(ds, str(tmp_path / "out.nc"))
    (tmp_path / "other").write_text("")
    assert (tmp_path / "out.nc").stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.parametrize(
    ("path", "words"),
    [("out.txt", r"must end in \.nc"), ("no/out.nc", r"no' does not exist"), ("file/out.nc", "file' does not exist")],
)
def test_a_target_is_checked_before_any_work(tmp_path, path, words):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=words) as caught:
        files.check_target(tmp_path / path, (".nc",))
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_files_open_without_this_package(ds, tmp_path):
    gz.save(ds, str(tmp_path / "out.nc"))
    gz.save(ds, str(tmp_path / "out.zarr"))
    program = """
        import sys
        import xarray as xr

        one = xr.load_dataset("out.nc")
        two = xr.open_zarr("out.zarr", consolidated=False).load()
        xr.testing.assert_identical(one, two)
        assert one.latency.attrs["units"] == "s"
        assert one.sel(model="gpt2", tp=1).latency.notnull().all()
        assert one.feasible.dtype == bool
        assert "genz_jax" not in sys.modules and "jax" not in sys.modules
        print(one.attrs["stage"])
    """
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(program)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "decode"
