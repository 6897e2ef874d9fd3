"""What people reach from `import genz_jax as gz`: few names, all documented; names that moved answer."""

import dataclasses
import inspect
import pickle
import subprocess
import sys
import types

import equinox as eqx
import pytest

import genz_jax as gz
from genz_jax import layers, plots, results

HOMES = {"gz": gz, "gz.layers": layers, "gz.results": results, "gz.plots": plots}
EVERY = [(home, name) for home, module in HOMES.items() for name in module.__all__]
MOVED = sorted(gz._MOVED)


def test_tab_completion_shows_at_most_fifty_names_beside_modules():
    assert len([name for name in dir(gz) if not isinstance(getattr(gz, name), types.ModuleType)]) <= 50


@pytest.mark.parametrize("module", HOMES.values(), ids=HOMES)
def test_tab_completion_shows_public_names_alone(module):
    shown = {name for name in dir(module) if not name.startswith("__")}
    modules = {name for name in shown if isinstance(getattr(module, name), types.ModuleType)}
    assert shown - modules == set(module.__all__)
    assert modules == ({"catalog", "layers", "plots", "results", "specs"} if module is gz else set())


def test_a_star_import_gives_the_public_names():
    given: dict[str, object] = {}
    exec("from genz_jax import *", given)
    assert set(given) - {"__builtins__"} == set(gz.__all__)
    assert all(given[name] is getattr(gz, name) for name in gz.__all__)


@pytest.mark.parametrize(("home", "name"), EVERY)
def test_every_public_name_is_explained(home, name):
    value = getattr(HOMES[home], name)
    text = inspect.getdoc(value) or ""
    assert len(text) > 20
    assert text.splitlines()[0].rstrip().endswith((".", ":"))
    if home == "gz" and inspect.isfunction(value):
        assert ">>>" in text, "no example that runs"
    if inspect.isfunction(value):
        for argument in inspect.signature(value).parameters:
            assert argument in text, argument
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            assert "units" not in field.metadata or field.metadata["long_name"], field.name


@pytest.mark.parametrize("name", MOVED)
def test_a_moved_name_gives_the_new_object_and_warns_once(name, monkeypatch, recwarn):
    new = gz._MOVED[name]
    found = getattr(gz, name)
    # What it has given is kept in the module, so that it warns no more.
    assert getattr(gz, name) is found
    monkeypatch.delattr(gz, name)
    assert [str(warning.message) for warning in recwarn] == [f"gz.{name} is now gz.{new}"]
    assert recwarn[0].category is FutureWarning
    value: object = gz
    for part in new.split("."):
        value = getattr(value, part)
    assert found is value
    assert name not in dir(gz)


def test_the_warning_points_at_the_line_that_uses_the_old_name():
    code = "import genz_jax as gz\nfor _ in range(2):\n    gz.Attention\nfrom genz_jax import MoE"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines() == [
        "<string>:3: FutureWarning: gz.Attention is now gz.layers.Attention",
        "<string>:4: FutureWarning: gz.MoE is now gz.layers.MoE",
    ]


def test_names_that_never_were_are_refused():
    with pytest.raises(AttributeError, match="'genz_jax' has no attribute 'atention'"):
        gz.atention  # noqa: B018


def test_the_import_leaves_out_what_only_some_calls_need():
    code = (
        "import sys, genz_jax as gz\n"
        "slow = ('matplotlib', 'zarr', 'dask', 'distributed', 'typer', 'h5netcdf')\n"
        "assert not set(slow) & set(sys.modules), set(slow) & set(sys.modules)\n"
        "assert callable(gz.plots.design_space)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "spec",
    [
        gz.model("deepseek-v3"),
        gz.platform("H100-SXM"),
        gz.workload("chat"),
        gz.layers.Attention(32, 32, 8, 128),
        gz.Parallelism(tp=8),
        gz.Precision("fp8"),
    ],
    ids=lambda spec: type(spec).__name__,
)
def test_specs_survive_pickling(spec):
    back = pickle.loads(pickle.dumps(spec))
    assert type(back) is type(spec)
    assert eqx.tree_equal(back, spec)
