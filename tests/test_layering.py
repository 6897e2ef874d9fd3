"""The folders of the package import downward only, none in a circle, and stay small enough to read."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "genz_jax"
FOLDERS = (
    *("base", "kernels", "specs", "catalog", "work", "machine", "serving", "labelled", "counts", "grid", "reduce"),
    *("store", "questions", "parity", "plots", "calibration", "measure", "cli"),
)
"""From the bottom: each imports from those before it alone."""

FACADES = ("layers", "results")
"""Public names of parts of models and of results, beside `genz_jax` itself; nothing below imports them."""

FORBIDDEN = {
    **{"work": {"machine"}, "machine": {"catalog"}, "catalog": {"work", "machine"}},
    "measure": set(FOLDERS) - {"base", "measure"},
}
"""What a folder must never know although it stands above it."""


def name_of(path: Path) -> str:
    """The name under which a file is imported."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in PACKAGE.rglob("*.py")}


def imported(path: Path, typing: bool = False) -> set[str]:
    """Modules of the package that a file imports; those for type checking alone only if asked."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped: set[ast.AST] = set()
    if not typing:
        for node in ast.walk(tree):
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                skipped |= set(ast.walk(node))
    found: set[str] = set()
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return found


def folder_of(module: str) -> str:
    """The folder directly below the package, or "" for the package's own files."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in FOLDERS else ""


def test_every_folder_is_in_the_order():
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} == set(FOLDERS)
    assert {path.stem for path in PACKAGE.glob("*.py")} == {"__init__", "__main__", *FACADES}


@pytest.mark.parametrize("folder", FOLDERS)
def test_imports_go_downward(folder):
    rank = FOLDERS.index(folder)
    for name, path in MODULES.items():
        if folder_of(name) != folder:
            continue
        for module in imported(path):
            if not module.startswith("genz_jax."):
                continue
            there = folder_of(module)
            if there:
                assert FOLDERS.index(there) <= rank, (name, module)
                assert there not in FORBIDDEN.get(folder, ()), (name, module)
            elif folder != "cli":
                assert module.split(".")[1] not in FACADES, (name, module)


def test_no_module_imports_itself_by_way_of_others():
    arrows = {
        name: {other for other in imported(path) if other in MODULES and other != name}
        for name, path in MODULES.items()
    }
    # A name of a folder stands for its `__init__`, which a file inside it has loaded already.
    arrows = {name: {o for o in others if not name.startswith(f"{o}.")} for name, others in arrows.items()}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " → ".join((*path[path.index(name) :], name))
        if name not in done:
            for other in sorted(arrows[name]):
                visit(other, (*path, name))
            done.add(name)

    for name in sorted(arrows):
        visit(name, ())


def test_xarray_is_imported_by_the_folder_of_labels_alone():
    users = {
        folder_of(name) for name, path in MODULES.items() if any(m.split(".")[0] == "xarray" for m in imported(path))
    }
    assert users <= {"labelled"}


def test_only_promised_parts_of_jax_are_imported():
    internal = ("jax.extend", "jax._src", "jax.interpreters", "jaxlib")
    for name, path in MODULES.items():
        for module in imported(path):
            assert not module.startswith(internal), (name, module)


@pytest.mark.parametrize("name", MODULES)
def test_files_and_functions_are_short(name):
    text = MODULES[name].read_text(encoding="utf-8")
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            if body:
                assert (body[-1].end_lineno or 0) - body[0].lineno < 60, node.name


def test_folders_are_small_and_say_what_they_are_for():
    for path in PACKAGE.rglob("__init__.py"):
        files = [other for other in path.parent.glob("*.py") if other != path]
        assert len(files) <= 14, path
        if path.parent != PACKAGE:
            lines = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").splitlines()
            assert len(lines) >= 3, path
            assert "In: " in "\n".join(lines), path
            assert "never" in "\n".join(lines), path
