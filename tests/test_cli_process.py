"""The command as a process: what it cannot write, and signals, end in an exit status and at most one line."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import genz_jax as gz

ROOT = Path(gz.__file__).parent.parent
COMMAND = [sys.executable, "-m", "genz_jax_main"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
SWEEP = ["sweep", "-m", "gpt2", "-p", "H100-SXM", "--axis", "mem_bw=1TB/s:9TB/s:50", "--input", "500"]
SWEEP += ["--figures", "tpot"]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/dev/full, signals and limits of a process")


SLOW = pytest.mark.slow


def start(*args: str, **options: object) -> subprocess.Popen:
    given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": ENVIRONMENT, **options}
    return subprocess.Popen([*COMMAND, *args], **given)  # type: ignore[call-overload]


def names_in(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


@pytest.mark.first(1)
@pytest.mark.parametrize(
    "args",
    [["platforms", "--json"], ["--help"], *(pytest.param([one], marks=SLOW) for one in ("platforms", "--version"))],
)
def test_a_full_device_is_told_in_one_line(args):
    with open("/dev/full", "w") as full:
        process = start(*args, stdout=full)
        _, errors = process.communicate()
    assert process.returncode == 1
    assert errors == "error: the standard output cannot be written (No space left on device)\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    "args", [["models"], pytest.param(["models", "--json"], marks=SLOW), pytest.param(["--help"], marks=SLOW)]
)
def test_a_pipe_that_nobody_reads_is_told_in_one_line(args):
    end, written = os.pipe()
    os.close(end)
    process = start(*args, stdout=written)
    os.close(written)
    _, errors = process.communicate()
    assert process.returncode == 1
    assert errors == "error: the standard output cannot be written (Broken pipe)\n"


def test_a_closed_output_is_told_in_one_line():
    command = f"{' '.join(COMMAND)} platforms >&-"
    ended = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, check=False)
    assert (ended.returncode, ended.stderr) == (1, "error: the standard output is closed\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("out.nc", ["-o"]),
        pytest.param("out.zarr", ["-o"], marks=SLOW),
        pytest.param("out.png", ["--plot"], marks=SLOW),
        pytest.param("out.zarr", ["--store"], marks=SLOW),
    ],
)
def test_a_file_size_limit_leaves_no_half_file(tmp_path, name, options):
    command = ["sh", "-c", 'ulimit -f 1; exec "$@"', "sh", *COMMAND, *SWEEP, *options, name]
    environment = {**ENVIRONMENT, "JAX_ENABLE_COMPILATION_CACHE": "false", "MPLCONFIGDIR": os.environ.get("HOME", "/")}
    # A block is 512 bytes or 1024, by the shell.
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    lines = [line for line in ended.stderr.splitlines() if "error: " in line]
    assert ended.returncode == 2, ended.stderr
    assert len(lines) == 1
    assert name in lines[0]
    assert "File too large" in lines[0]
    assert "Traceback" not in ended.stderr
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("option", ["-o", pytest.param("--plot", marks=SLOW)])
def test_a_folder_that_nobody_can_write_to(option):
    name = "/proc/x.nc" if option == "-o" else "/proc/x.png"
    process = start(*SWEEP, option, name)
    _, errors = process.communicate()
    assert process.returncode == 2
    assert errors.count("\n") == 1
    assert errors.startswith(f"error: output '{name}': ")


def interrupted(process: subprocess.Popen, delay: float, number: int = signal.SIGINT) -> tuple[int, str]:
    time.sleep(delay)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors


INTERRUPTED_IMPORT = """
import os, signal, sys

class Interrupt:
    def find_spec(self, name, *rest):
        if name == "xarray":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
from genz_jax_main import main

main()
"""
"""The command, interrupted where it begins to import xarray."""


def interrupted_import(before: str = "") -> tuple[int, str, str]:
    command = [sys.executable, "-c", before + INTERRUPTED_IMPORT, "--version"]
    ended = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    return ended.returncode, ended.stdout, ended.stderr


def test_an_interrupt_during_imports():
    assert interrupted_import() == (130, "", "")


def test_an_interrupt_of_what_ignores_it():
    """As `command &` in a script: the shell lets it ignore interrupts, and so it does."""
    code, out, errors = interrupted_import("import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)")
    assert (code, errors) == (0, "")
    assert out.startswith("genz-jax ")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_interrupts_at_any_moment(tmp_path, seed):
    """While it imports, reads, traces, compiles, computes and writes."""
    chance = random.Random(seed)
    environment = {**ENVIRONMENT, "JAX_ENABLE_COMPILATION_CACHE": "false"}
    ended = 0
    for _ in range(8):
        args = [*SWEEP[:-2], "-o", "out.nc", "--plot", "out.png"]
        process = start(*args, cwd=tmp_path, env=environment)
        code, errors = interrupted(process, chance.uniform(0.3, 10.0))
        assert (code, errors) in ((130, ""), (0, "")), (code, errors)
        ended += code == 130
        assert not [name for name in names_in(tmp_path) if name.startswith(".")]
    assert ended > 0


WRITER = """
import os, sys, time
from genz_jax_main import main
from genz_jax.base import files

def slow(dataset, path):
    with open(path, "w") as file:
        file.write("half")
    print("half", flush=True)
    time.sleep(60)

files.write_netcdf = slow
main()
"""


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, *(pytest.param(one, marks=SLOW) for one in (signal.SIGINT, signal.SIGHUP))]
)
def test_a_signal_while_a_file_is_written_leaves_nothing(tmp_path, number):
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, *SWEEP, "-o", "out.nc"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=ENVIRONMENT,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "half\n"
    assert len(names_in(tmp_path)) == 1
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (128 + number, "")
    assert names_in(tmp_path) == []


def test_an_interrupted_store_says_how_to_go_on(tmp_path):
    big = [
        "sweep",
        "-m",
        "gpt2",
        "-p",
        "H100-SXM",
        "--input",
        "500",
        "--figures",
        "tpot",
        "--store",
        "x.zarr",
        "--chunks",
        "mem_bw=1",
    ]
    big += ["--axis", "mem_bw=1TB/s:9TB/s:2000", "--axis", "flops=1e14:1e16:100"]
    process = start(*big, cwd=tmp_path)
    folder = tmp_path / "x.zarr" / "done" / "c"
    while process.poll() is None and not (folder.is_dir() and len(names_in(folder)) > 5):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert errors.startswith("stopped: store = 'x.zarr': ")
    assert errors.endswith("of 2,000 regions are done; call again with the same arguments to go on\n")
    assert names_in(tmp_path) == ["x.zarr"]
    assert not [file for file in (tmp_path / "x.zarr").rglob("*.partial")]
