"""Which folder may import which, and who may touch what."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import arv_keepdocker

PACKAGE = Path(arv_keepdocker.__file__).parent
LAYERS = [
    "__main__",
    "__init__",
    "cli",
    "push",
    "store",
    "catalog",
    "sources",
    "keep",
    "images",
    "terminal",
    "parallel",
    "errors",
]
"""The package's folders, and modules beside them; each may import those below."""
LINES_OF_A_MODULE = 300
LINES_OF_A_FUNCTION = 40
SDK = {"arvados", "apiclient", "googleapiclient", "httplib2"}
SLOW = SDK | {"requests", "urllib3"}


def paths() -> dict[str, Path]:
    """The modules by path without `.py`, as in `cli/main`; the sandbox is a program of its own."""
    found = [path for path in PACKAGE.rglob("*.py") if PACKAGE / "sandbox" not in path.parents]
    return {str(path.relative_to(PACKAGE).with_suffix("")): path for path in found}


@functools.cache
def modules() -> dict[str, ast.Module]:
    return {module: ast.parse(path.read_text()) for module, path in paths().items()}


def place(module: str) -> str:
    """The folder in LAYERS, or the module itself."""
    return module.partition("/")[0]


def imported(module: str) -> Iterator[str]:
    """The package's modules that it imports, anywhere in it."""
    folders = module.split("/")[:-1]
    for node in ast.walk(modules()[module]):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = folders[: len(folders) - node.level + 1]
            path = "/".join([*base, *(node.module or "").split(".")]).strip("/")
            for alias in node.names:
                named = f"{path}/{alias.name}".strip("/")
                yield named if named in modules() else path if path in modules() else f"{path}/__init__".strip("/")


def names(tree: ast.AST) -> set[str]:
    """What is imported from outside of the package, anywhere in the tree."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            found.add(node.module.split(".")[0])
    return found


def test_every_module_has_its_place() -> None:
    assert set(map(place, modules())) == set(LAYERS)


@pytest.mark.parametrize("folder", LAYERS)
def test_dependencies_point_down(folder: str) -> None:
    used = {place(other) for module in modules() if place(module) == folder for other in imported(module)}
    # Everything may know the version, which is beside everything.
    assert used - {folder, "__init__"} <= set(LAYERS[LAYERS.index(folder) + 1 :])


def test_no_module_depends_on_itself() -> None:
    left = {module: set(imported(module)) - {module, "__init__"} for module in modules()}
    while free := [module for module, needs in left.items() if not needs & left.keys()]:
        for module in free:
            del left[module]
    assert not left


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_and_functions_are_short(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= LINES_OF_A_MODULE
    functions = [
        node for node in ast.walk(ast.parse(text)) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]
    lengths = {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in functions}
    assert {name: lines for name, lines in lengths.items() if lines > LINES_OF_A_FUNCTION} == {}


@pytest.mark.parametrize("module", sorted(paths()))
def test_the_sdk_is_imported_late(module: str) -> None:
    statements = modules()[module].body
    top = [names(node) for node in statements if isinstance(node, (ast.Import, ast.ImportFrom))]
    assert not set().union(*top) & SDK


@pytest.mark.parametrize(
    ("what", "who"),
    [
        ("argparse", {"cli", "store"}),
        ("sys", {"cli", "terminal"}),
        ("requests", {"sources"}),
        ("subprocess", {"sources"}),
        ("tarfile", {"images"}),
    ],
)
def test_only_these_folders_know_about_it(what: str, who: set[str]) -> None:
    assert {place(module) for module, tree in modules().items() if what in names(tree)} == who


def test_only_one_module_knows_arv_put() -> None:
    who = {module for module in modules() if "arvados.commands" in (PACKAGE / f"{module}.py").read_text()}
    assert who == {"__init__", "store/arv_put"}


def test_the_package_and_its_version_do_without_the_sdk() -> None:
    code = f"import sys, arv_keepdocker.cli.main; print(sorted({SLOW!r} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
