"""Stores with flipped bits, lost files and odd names: equal numbers or one line, never other numbers."""

import os
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from test_store import CHUNKS, contents, done, names_in, same, small

import genz_jax as gz
from genz_jax.store import regions as cutting

RNG = np.random.default_rng(20260101)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "x.zarr"
    small(store=path, chunks=CHUNKS)
    return path


@pytest.fixture
def copy(tmp_path, whole) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "x.zarr"))


def files_of(path: Path) -> list[str]:
    return sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())


def flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << (bit % 8)
    return bytes(changed)


def flips(path: Path, count: int) -> Iterator[str]:
    """Damage a file at a time by one bit, in each file at least twice, and put it back."""
    names = files_of(path)
    for k in range(count):
        name = names[k % len(names)]
        content = (path / name).read_bytes()
        (path / name).write_bytes(flipped(content, int(RNG.integers(8 * len(content)))))
        yield name
        (path / name).write_bytes(content)


def one_line(error: BaseException, *words: str) -> None:
    text = str(error)
    assert "\n" not in text
    assert len(re.sub(r"'/[^']*'", "", text)) <= 300, text  # but for the path
    for word in words:
        assert word in text, text


def harmless_or_named(path: Path, count: int) -> int:
    expected, caught = gz.open_store(path).load(), 0
    for name in flips(path, count):
        try:
            found = gz.open_store(path).load()
        except ValueError as error:
            one_line(error, name)
            caught += 1
        else:
            xr.testing.assert_identical(found, expected)
    return caught


@pytest.mark.slow
def test_every_flipped_bit_is_found_or_harmless(copy):
    count = 3 * len(files_of(copy))
    assert harmless_or_named(copy, count) > 0.95 * count


@pytest.mark.slow
def test_many_flipped_bits_are_found_or_harmless(copy):
    assert harmless_or_named(copy, 4000) > 0.95 * 4000


@pytest.mark.slow
def test_xarray_alone_finds_every_flipped_bit_of_a_chunk(copy):
    names = [name for name in files_of(copy) if "/c" in name]
    expected = xr.open_zarr(copy, consolidated=False, chunks=None).load()
    for name in names:
        content = (copy / name).read_bytes()
        for bit in RNG.integers(8 * len(content), size=3):
            (copy / name).write_bytes(flipped(content, int(bit)))
            with pytest.raises(ValueError, match="checksum do not match"):
                xr.open_zarr(copy, consolidated=False, chunks=None).load()
        (copy / name).write_bytes(content)
    xr.testing.assert_identical(xr.open_zarr(copy, consolidated=False, chunks=None).load(), expected)


@pytest.mark.parametrize("name", ["out.zarr"])
def test_a_saved_dataset_has_checksums_too(tmp_path, name):
    gz.save(small(), tmp_path / name)
    for file in files_of(tmp_path / name):
        if "/c" in file:
            content = (tmp_path / name / file).read_bytes()
            (tmp_path / name / file).write_bytes(flipped(content, int(RNG.integers(8 * len(content)))))
            with pytest.raises(ValueError, match="checksum do not match"):
                xr.open_zarr(tmp_path / name, consolidated=False, chunks=None).load()
            (tmp_path / name / file).write_bytes(content)


def test_a_lost_file_is_named_and_made_again(copy, whole):
    """Every file but the one that says what the store holds."""
    expected = contents(whole)
    for name in files_of(whole):
        if name == "done/zarr.json":
            continue
        (copy / name).unlink()
        marks = name.startswith("done/c/")
        with pytest.raises(ValueError, match="11 of 12 regions are written" if marks else name) as caught:
            gz.open_store(copy)
        one_line(caught.value)
        (copy / name).write_bytes((whole / name).read_bytes())
    for name in files_of(whole):
        if name != "done/zarr.json" and not name.startswith("done/c/"):
            (copy / name).unlink()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        same(small(store=copy, chunks=CHUNKS), small())
    assert any("written again" in str(one.message) for one in seen)
    assert contents(copy) == expected


@pytest.mark.first(7)
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("latency/c/0/0/0/0", r"1 of 12 regions were done.*'latency/c/0/0/0/0'.*computed again"),
        ("feasible/c/0/0", r"1 of 12 regions.*'feasible/c/0/0'"),
        ("done/c/7", r"1 of 12 regions.*'done/c/7'"),
        ("mem_bw/c/0", r"'mem_bw/c/0' lost or damaged; written again"),
        ("latency/zarr.json", r"'latency/zarr\.json' lost or damaged; written again"),
        ("zarr.json", r"'zarr\.json' lost or damaged; written again"),
    ],
)
@pytest.mark.parametrize("how", ["flipped", "empty", "lost"])
def test_a_resumed_call_makes_what_is_damaged_again(copy, whole, name, words, how):
    content = (copy / name).read_bytes()
    if how == "lost":
        (copy / name).unlink()
    else:
        (copy / name).write_bytes(flipped(content, 9) if how == "flipped" else b"")
    if (name, how) == ("done/c/7", "lost"):  # is that of a region that was never written
        small(store=copy, chunks=CHUNKS)
    else:
        with pytest.warns(UserWarning, match=words):
            small(store=copy, chunks=CHUNKS)
    assert contents(copy) == contents(whole)
    assert names_in(copy.parent) == ["x.zarr"]
    xr.testing.assert_identical(gz.open_store(copy).load(), gz.open_store(whole).load())


@pytest.mark.parametrize("content", [b"", b"{", b"5", b"[]", b'{"attributes": 5}', b"\xff\xfe", b"{}" * 3])
def test_a_damaged_record_is_refused_in_one_line(copy, content):
    (copy / "done" / "zarr.json").write_bytes(content)
    before = {name: (copy / name).read_bytes() for name in files_of(copy)}
    for call in (lambda: small(store=copy), lambda: small(store=copy, chunks=CHUNKS), lambda: gz.open_store(copy)):
        with pytest.raises(ValueError, match=r"done/zarr\.json") as caught:
            call()
        one_line(caught.value, "remove")
    assert {name: (copy / name).read_bytes() for name in files_of(copy)} == before


def test_what_other_packages_wrote_is_not_replaced(copy, monkeypatch):
    (copy / "zarr.json").write_text("{}")
    cutting._regions.cache_clear()
    monkeypatch.setattr("jax.__version__", "9.9.9")  # stands in the attributes
    with pytest.raises(ValueError, match=r"'zarr\.json' lost or damaged, and other versions") as caught:
        small(store=copy, chunks=CHUNKS)
    assert "\n" not in str(caught.value)
    assert (copy / "zarr.json").read_text() == "{}"
    cutting._regions.cache_clear()


def test_a_store_that_is_not_finished_is_not_opened(copy):
    (copy / "done" / "c" / "3").unlink()
    with pytest.raises(ValueError, match="11 of 12 regions are written; make the call of gz"):
        gz.open_store(copy)


def test_what_is_not_written_never_looks_like_a_figure(copy):
    (copy / "latency" / "c" / "0" / "0" / "0" / "0").unlink()
    (copy / "reason" / "c" / "0" / "0").unlink()
    found = xr.open_zarr(copy, consolidated=False, chunks=None)
    assert np.isneginf(found.latency).sum() == 2 * 4 * 3 * 2
    assert (found.reason.isel(tp=slice(0, 2)) == -1).all()
    assert (gz.words(found.reason).isel(tp=slice(0, 2)) == "unwritten").all()


def test_the_store_of_another_name_is_not_touched(tmp_path):
    for name in (".*.zarr.abc.new", ".a.zarr.abc.new", ".[ab].zarr.abc.new", ".*.zarr.b.zarr.abcd.new"):
        (tmp_path / name / "inside").mkdir(parents=True)
    small(store=tmp_path / "*.zarr", chunks=CHUNKS)
    left = sorted([".a.zarr.abc.new", ".[ab].zarr.abc.new", ".*.zarr.b.zarr.abcd.new", "*.zarr"])
    assert names_in(tmp_path) == left
    small(store=tmp_path / "[ab].zarr", chunks=CHUNKS)
    assert ".a.zarr.abc.new" in names_in(tmp_path)
    assert ".[ab].zarr.abc.new" not in names_in(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["with space.zarr", "[a-z]?*.zarr", "ünï✓.zarr", ".hidden.zarr", "./x.zarr/", "{x}.zarr", "%41.zarr", "~.zarr"],
)
def test_odd_names(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    expected = small(("latency",))
    same(small(("latency",), store=name), expected)
    same(gz.open_store(name), expected)
    assert names_in(tmp_path) == [Path(name).name]
    gz.save(expected, f"saved {Path(name).name}")
    same(xr.open_zarr(tmp_path / f"saved {Path(name).name}", consolidated=False, chunks=None), expected)
    gz.save(expected, f"{Path(name).stem}.nc")
    same(xr.load_dataset(tmp_path / f"{Path(name).stem}.nc"), expected)


def test_a_link_to_a_store_is_the_store(tmp_path, whole):
    path, link = Path(shutil.copytree(whole, tmp_path / "x.zarr")), tmp_path / "link.zarr"
    link.symlink_to(path, target_is_directory=True)
    (path / "done" / "c" / "3").unlink()
    small(store=link, chunks=CHUNKS)
    assert done(path) == 12
    assert link.is_symlink()


@pytest.mark.parametrize("kind", ["file", "dangling", "long", "zero"])
def test_where_no_store_can_be_is_told_in_one_line(tmp_path, kind):
    path = tmp_path / {"long": "x" * 300, "zero": "x\0y"}.get(kind, "x")
    path = path.with_name(path.name + ".zarr")
    if kind == "file":
        path.write_text("a letter")
    if kind == "dangling":
        path.symlink_to(tmp_path / "nowhere" / "x.zarr")
    with pytest.raises(ValueError, match=r"store|output") as caught:
        small(store=path)
    assert "\n" not in str(caught.value)
    if kind == "file":
        assert path.read_text() == "a letter"
    assert names_in(tmp_path) == ([path.name] if kind in ("file", "dangling") else [])


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="limits of a process")
def test_a_file_size_limit_stops_a_store_in_one_line(tmp_path):
    program = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (3_000, 3_000))
import genz_jax as gz
chip = gz.platform("H100-SXM").replace(mem_bw=gz.geomspace(1e11, 1e13, 300), flops=gz.geomspace(1e13, 1e16, 300))
try:
    gz.sweep("gpt2", chip, stage="decode", figures=["latency"], store="x.zarr", progress=False)
except ValueError as error:
    print(error)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(gz.__file__).parent.parent)}
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, cwd=tmp_path, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert re.fullmatch(r"store = .*: cannot be written \(File too large\).*\n", ended.stdout)
    assert not [name for name in files_of(tmp_path) if name.endswith(".partial")]
