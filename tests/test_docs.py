import doctest
import re
from pathlib import Path

import jax
import matplotlib
import pytest

import genz_jax as gz

matplotlib.use("Agg")
ROOT = Path(__file__).parent.parent
PUBLIC = {name: getattr(gz, name) for name in gz.__all__}
PAGES = ("README.md", "docs/gradients.md", "docs/extending.md", "docs/kernels.md")


def examples(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)


SHOWN = PUBLIC | {"layers": gz.layers, "results": gz.results, "about": gz.catalog.about}
FINDER = doctest.DocTestFinder(recurse=False)
EXAMPLES = {test.name: test for name, value in SHOWN.items() for test in FINDER.find(value, name) if test.examples}
SLOW = ("tune", "search", "require", "gradients", "sensitivity", "fit", "open_store")


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in EXAMPLES])
def test_examples_of_docstrings_run(name):
    report: list[str] = []
    failed, attempted = doctest.DocTestRunner(verbose=False).run(EXAMPLES[name], out=report.append)
    assert attempted
    assert failed == 0, "".join(report)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_examples_of_pages_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    assert examples(page)
    # As people run them: the tests' strict promotion of types is too strict for optax.
    with jax.numpy_dtype_promotion("standard"):
        for i, block in enumerate(examples(page)):
            exec(compile(block, f"{page} block {i + 1}", "exec"), namespace)


def test_the_version_is_that_of_the_project_file():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert gz.__version__ == project["version"]
