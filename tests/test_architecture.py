"""Who may import whom, and who may touch what."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import arv_keepdocker

PACKAGE = Path(arv_keepdocker.__file__).parent
LAYERS = [
    {"__init__", "__main__"},
    {"cli"},
    {"push", "usage"},
    {"store.streaming", "store.via_arv_put"},
    {"catalog", "choice", "formats", "sources.archives", "store.canonical_file"},
    {"plan"},
    {"entry"},
    {"keep.units", "listing", "progress", "projects", "sources.source"},
    {"keep.known", "keep.small", "keep.writer"},
    {"keep.journal", "keep.putter", "keep.reader", "keep.sender"},
    {"survey"},
    {"links"},
    {"cluster", "engine", "sdk_logs"},
    {"attempts", "sources.daemon", "sources.repair"},
    {"display", "settings", "sources.described", "troubles"},
    {"images.archive", "sources.blobs"},
    {"images.tar"},
    {"images.candidates", "images.canonical", "images.configuration", "images.entries"},
    {"cache", "images.image", "images.members", "images.names", "keep.answers"},
    {"lanes", "platforms", "reference", "sources", "sources.program", "uuids"},
    {"images.compression", "images.json", "images.tar_headers"},
    {"interrupts", "terminal.secrets", "terminal.streams", "terminal.waiting"},
    {"errors", "images", "images.layers", "keep", "keep.blocks", "store", "store.arv_put", "terminal"},
]
"""The package's modules, those that may import the ones below first."""
SDK = {"arvados", "apiclient", "googleapiclient", "httplib2"}


def modules() -> dict[str, ast.Module]:
    found = {path.stem: path for path in PACKAGE.glob("*.py")}
    for path in PACKAGE.glob("*/*.py"):
        found[".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")] = path
    return {name: ast.parse(path.read_text()) for name, path in found.items() if not name.startswith("sandbox")}


def imports(tree: ast.AST) -> set[str]:
    """What is imported anywhere in the tree; `.x` for a module of the package."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level:
            found.update([f".{node.module}"] if node.module else [f".{alias.name}" for alias in node.names])
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


def test_every_module_has_its_layer() -> None:
    assert {name for layer in LAYERS for name in layer} == set(modules())


@pytest.mark.parametrize("name", sorted(modules()))
def test_dependencies_point_down(name: str) -> None:
    level = next(index for index, layer in enumerate(LAYERS) if name in layer)
    below = {f".{module}" for layer in LAYERS[level + 1 :] for module in layer}
    ours = {module for module in imports(modules()[name]) if module.startswith(".")} - {".__version__"}
    folder, _, _ = name.rpartition(".")
    # Within a folder, its modules are named without it.
    ours = {f".{folder}{module}" if f"{folder}{module}" in modules() else module for module in ours}
    assert ours <= below


@pytest.mark.parametrize("name", sorted(modules()))
def test_the_sdk_is_imported_late(name: str) -> None:
    statements = modules()[name].body
    top = [imports(node) for node in statements if isinstance(node, (ast.Import, ast.ImportFrom))]
    assert not set().union(*top) & SDK


@pytest.mark.parametrize(
    ("what", "who"),
    [
        ("argparse", {"cli", "store.arv_put", "usage"}),
        ("sys", {"cli"}),
        ("subprocess", {"sources.program"}),
        ("tarfile", {"images.canonical"}),
    ],
)
def test_only_these_modules_know_about_it(what: str, who: set[str]) -> None:
    assert {name for name, tree in modules().items() if what in imports(tree)} == who


def test_only_one_module_knows_arv_put() -> None:
    assert {path.stem for path in PACKAGE.rglob("*.py") if "arvados.commands" in path.read_text()} == {
        "__init__",
        "arv_put",
    }


def test_the_package_and_its_version_do_without_the_sdk() -> None:
    code = f"import sys, arv_keepdocker.cli; print(sorted({SDK!r} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
