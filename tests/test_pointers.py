"""What docstrings, comments and pages point at is there: files, modules and names."""

import ast
import dataclasses
import importlib
import inspect
import io
import re
import tokenize
from pathlib import Path

import pytest

import genz_jax as gz

ROOT = Path(__file__).parent.parent
CODE = [path for top in ("genz_jax", "studies", "benchmarks") for path in sorted((ROOT / top).rglob("*.py"))]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "benchmarks/results.md"]
FILE = re.compile(
    r"(?<![\w./*<-])((?:[\w-]+/)*[\w-]+\.(?:py|md)\b|(?:benchmarks|docs|genz_jax|studies|tests)/[\w./-]*\w)"
)
MADE = ("benchmarks/gpu", "studies/out", "studies/NAME.py")
"""What commands of this project write, and what stands for any name."""


def prose(path: Path) -> str:
    """Docstrings and comments of a file of code; all of a page."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return text
    tree = ast.parse(text)
    texts = (node.value for node in ast.walk(tree) if isinstance(node, ast.Expr))
    strings = (text.value for text in texts if isinstance(text, ast.Constant) and isinstance(text.value, str))
    comments = (t.string for t in tokenize.generate_tokens(io.StringIO(text).readline) if t.type == tokenize.COMMENT)
    return "\n".join([*strings, *comments])


def is_there(pointer: str, page: Path, text: str) -> bool:
    """Whether a file is there, seen from the root, the package or the folder of what points at it.

    A file that a page tells its reader to write is there too: the page's code starts with its name.
    """
    places = (ROOT, ROOT / "genz_jax", page.parent)
    return any((place / pointer).exists() for place in places) or f"```python\n# {pointer}\n" in text


@pytest.mark.parametrize("path", [*CODE, *PAGES], ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_modules_that_are_pointed_at_are_there(path):
    text = prose(path)
    pointers = {found for found in FILE.findall(re.sub(r"https?://\S+", "", text)) if not found.startswith(MADE)}
    assert not [pointer for pointer in sorted(pointers) if not is_there(pointer, path, text)]
    # Names stand in error messages too.
    whole = path.read_text(encoding="utf-8")
    names = set(re.findall(r"(?<![\w.])(?:gz|genz_jax)((?:\.[A-Za-z]\w*)+)", whole))
    assert not [name for name in sorted(names) if not resolves(name[1:])]


def resolves(name: str) -> bool:
    """Whether a dotted name is one of the package, by attributes, fields and submodules."""
    value: object = gz
    parts = name.split(".")
    for i, part in enumerate(parts):
        if value is gz and part in gz._MOVED:
            return False
        fields = {field.name for field in dataclasses.fields(value)} if dataclasses.is_dataclass(value) else set()
        if hasattr(value, part):
            value = getattr(value, part)
        elif part in fields:
            return i == len(parts) - 1
        else:
            try:
                value = importlib.import_module(f"genz_jax.{'.'.join(parts[: i + 1])}")
            except ModuleNotFoundError as error:
                # A module that is there may need an optional package that is not.
                return i == len(parts) - 1 and not (error.name or "genz_jax").startswith("genz_jax")
    return True


SWITCHES = dict(re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", inspect.getdoc(gz.Assumptions) or "", re.M))


def test_every_switch_is_described():
    assert list(SWITCHES) == [field.name for field in dataclasses.fields(gz.Assumptions)]


@pytest.mark.parametrize("switch", SWITCHES)
def test_a_switch_is_read_where_its_description_says(switch):
    files = re.findall(r"([\w/]+\.py)((?:,\s+`\w+`)*)", SWITCHES[switch])
    assert files
    for file, names in files:
        source = (ROOT / "genz_jax" / file).read_text(encoding="utf-8")
        assert f".{switch}" in source, f"{file} does not read it"
        for name in re.findall(r"`(\w+)`", names):
            assert re.search(rf"^def {name}\(|^class {name}\b", source, re.M), f"{file} has no {name}"
