"""Packaging of arv-keepdocker; everything else that tools need lives in dot-files."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'^__version__ = "([^"]+)"$', (HERE / "arv_keepdocker" / "__init__.py").read_text(), re.MULTILINE)
assert VERSION is not None

SANDBOX = ["aiohttp>=3.9", "cryptography>=42"]
TEST = [
    *SANDBOX,
    "hypothesis>=6.100",
    "mypy>=1.11",
    "pytest>=8.2",
    "requests>=2.31",
    "ruff>=0.6",
]

setup(
    name="arv-keepdocker",
    version=VERSION[1],
    description="Put container images into Arvados",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["arv_keepdocker", "arv_keepdocker.*"]),
    package_data={"arv_keepdocker": ["py.typed"]},
    python_requires=">=3.10",
    install_requires=["arvados-python-client>=3.1,<5", "ciso8601>=2.0"],
    extras_require={"sandbox": SANDBOX, "test": TEST, "fuzz": ["atheris>=2.3"]},
    entry_points={
        "console_scripts": [
            "arv-keepdocker = arv_keepdocker.__main__:main",
            "keepdocker = arv_keepdocker.__main__:main",
        ]
    },
    classifiers=[
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Bio-Informatics",
    ],
)
