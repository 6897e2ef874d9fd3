import dataclasses
import doctest
import inspect
import re
from pathlib import Path

import jax
import matplotlib
import pytest

import genz_jax as gz

matplotlib.use("Agg")
ROOT = Path(__file__).parent.parent
PUBLIC = {name: value for name, value in vars(gz).items() if not name.startswith("_") and not inspect.ismodule(value)}
PAGES = ("README.md", "docs/gradients.md")


def examples(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_are_documented(name):
    text = inspect.getdoc(PUBLIC[name]) or ""
    assert len(text) > 20
    assert text.splitlines()[0].rstrip().endswith((".", ":"))


FUNCTIONS = [name for name, value in PUBLIC.items() if inspect.isfunction(value)]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_argument_is_described(name):
    text = inspect.getdoc(PUBLIC[name]) or ""
    for argument in inspect.signature(PUBLIC[name]).parameters:
        assert argument in text, argument


def test_examples_of_docstrings():
    finder, runner = doctest.DocTestFinder(recurse=False), doctest.DocTestRunner(verbose=False)
    tests = [test for name, value in PUBLIC.items() for test in finder.find(value, name, globs={"gz": gz})]
    tests = [test for test in tests if test.examples]
    assert {"sweep", "estimate"} <= {test.name for test in tests}
    report: list[str] = []
    for test in tests:
        runner.run(test, out=report.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(report)


@pytest.mark.parametrize("page", PAGES)
def test_examples_of_pages_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    assert examples(page)
    # As people run them: the tests' strict promotion of types is too strict for optax.
    with jax.numpy_dtype_promotion("standard"):
        for i, block in enumerate(examples(page)):
            exec(compile(block, f"{page} block {i + 1}", "exec"), namespace)


def test_every_field_of_every_result_and_spec_is_described():
    for value in PUBLIC.values():
        if inspect.isclass(value) and dataclasses.is_dataclass(value):
            for field in dataclasses.fields(value):
                if "units" in field.metadata:
                    assert field.metadata["long_name"], field.name


def test_the_version_is_that_of_the_project_file():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert gz.__version__ == project["version"]
