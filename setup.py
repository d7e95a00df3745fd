"""Packaging of arv-keepdocker; everything else that tools need lives in dot-files."""

import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from setuptools import Distribution, find_packages, setup

HERE = Path(__file__).parent
DESCRIPTION = "Store and list container images in Arvados"
FOUND = re.search(r'^__version__ = "([^"]+)"$', (HERE / "arv_keepdocker" / "__init__.py").read_text(), re.MULTILINE)
assert FOUND is not None
VERSION = FOUND[1]
COMMANDS = ["arv-keepdocker", "keepdocker"]

# requests is what registries are asked with; arvados-python-client brings it, too.
INSTALL = ["arvados-python-client>=3.1,<5", "ciso8601>=2.0", "requests>=2.25"]
# What makes the shells' completions from the parser, which has arv-put's options.
DOCUMENT = ["shtab>=1.7"]
SANDBOX = ["aiohttp>=3.9", "cryptography>=42"]
# Python has a decoder of its own from 3.14 on.
ZSTD = ['backports.zstd>=1.0; python_version < "3.14"']
# Unpacks gzip three times as fast as Python's own decoder.
FAST = ["isal>=1.6"]
TEST = [
    *SANDBOX,
    *DOCUMENT,
    *FAST,
    "hypothesis>=6.100",
    "mypy>=1.11",
    "pytest>=8.2",
    "pytest-xdist>=3.6",
    "types-requests>=2.31",
    "ruff>=0.6",
    "setuptools>=64",
    "wheel>=0.40",
]
# pip's old way of installing, where it has no package "wheel", could only build them into this directory.
BUILDS_APART = "setuptools.build_meta" in sys.modules


class Documents(Distribution().get_command_class("install_data")):  # type: ignore[misc]
    """Makes the manual page and the completions, and installs them."""

    def run(self) -> None:
        self.data_files = list(documents(HERE / "build" / "share"))
        super().run()


def documents(directory: Path) -> Iterator[tuple[str, list[str]]]:
    """Write them, and say where they are to be installed; nothing if what that needs is not there."""
    sys.path.insert(0, str(HERE))
    date = time.strftime("%Y-%m-%d", time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH", time.time()))))
    texts = {}
    try:
        from arv_keepdocker.cli import completion, manual
        from arv_keepdocker.cli.parser import option_parser

        for name in COMMANDS:
            parser = option_parser()
            parser.prog = name
            texts[f"share/man/man1/{name}.1"] = manual.page(parser, VERSION, date)
            texts[f"share/bash-completion/completions/{name}"] = completion.script(parser, "bash")
            texts[f"share/zsh/site-functions/_{name}"] = completion.script(parser, "zsh")
    except ImportError as error:
        print(f"warning: no manual page and no completions: {error}", file=sys.stderr)
        return
    for target, text in texts.items():
        path = directory / target
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        yield str(Path(target).parent), [str(path.relative_to(HERE))]


setup(
    name="arv-keepdocker",
    version=VERSION,
    description=DESCRIPTION,
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["arv_keepdocker", "arv_keepdocker.*"]),
    package_dir={"": "."},  # a checkout is installed as a line in a .pth file, not as code that each Python runs
    package_data={"arv_keepdocker": ["py.typed"]},
    python_requires=">=3.10",
    install_requires=INSTALL,
    setup_requires=[*DOCUMENT, *INSTALL] if BUILDS_APART else [],
    cmdclass={"install_data": Documents},
    data_files=[("share/man/man1", [])],  # where there are none, setuptools leaves that command out
    extras_require={"sandbox": SANDBOX, "fast": FAST, "zstd": ZSTD, "test": TEST, "fuzz": ["atheris>=2.3"]},
    entry_points={"console_scripts": [f"{name} = arv_keepdocker.__main__:main" for name in COMMANDS]},
    classifiers=[
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Bio-Informatics",
    ],
)
