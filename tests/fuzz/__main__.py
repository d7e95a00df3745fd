"""Fuzz what reads foreign bytes: `python -m tests.fuzz archive|reference [DIRECTORY] [-max_total_time=600 ...]`.

Needs `pip install '.[fuzz]'`. What follows the name goes to libFuzzer: DIRECTORY keeps what it finds interesting,
beside tests/fuzz/corpus, which is read only. `-merge=1 NEW OLD...` picks the smallest set of files that does as much.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from pathlib import Path

import atheris

CORPUS = Path(__file__).parent / "corpus"


def main() -> None:
    _, name, *words = sys.argv
    with atheris.instrument_imports(include=["arv_keepdocker", "tests.fuzz"]):
        target = importlib.import_module(f"tests.fuzz.{name}")
    if all(word.startswith("-") for word in words):
        words.append(tempfile.mkdtemp(prefix="akd-fuzz-"))
    itself = f"{sys.executable} -m tests.fuzz {name}"  # libFuzzer runs that again to merge
    atheris.Setup([itself, *words, str(CORPUS / name)], target.check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
