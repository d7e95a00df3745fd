"""The adapter to arv-put, against the installed one and against the interface that the next release will have."""

import argparse
import sys
import types
from collections.abc import Sequence
from typing import Any, TextIO

import pytest

from arv_keepdocker.errors import ArvadosError
from arv_keepdocker.store import arv_put


class NextPut(types.ModuleType):
    """Stands in for the interface of the next release's `arvados.commands.put`: options by a function, `do_put`."""

    def __init__(self) -> None:
        super().__init__("arvados.commands.put")
        self.calls: list[Sequence[str]] = []
        self.fails: SystemExit | Exception | None = None

    def get_run_opts(self) -> argparse.ArgumentParser:
        parser = argparse.ArgumentParser(add_help=False)
        parser.add_argument("--project-uuid")
        parser.add_argument("--name")
        parser.add_argument("--silent", action="store_true")
        parser.add_argument("--gained", action="append", default=[])
        return parser

    def do_put(self, arguments: Sequence[str], stdout: TextIO, install_sig_handlers: bool = True) -> str:
        self.calls.append(arguments)
        assert not install_sig_handlers
        if self.fails is not None:
            raise self.fails
        return "zzzzz-4zz18-000000000000000"

    def main(self, *args: Any, **kwargs: Any) -> None:
        raise SystemExit(0)


@pytest.fixture
def next_put(monkeypatch: pytest.MonkeyPatch) -> NextPut:
    import arvados.commands.put

    module = NextPut()
    monkeypatch.setitem(sys.modules, "arvados.commands.put", module)
    monkeypatch.setattr(arvados.commands, "put", module)
    return module


def parsed(*words: str) -> dict[str, object]:
    return vars(argparse.ArgumentParser(parents=arv_put.option_parsers()).parse_args(words))


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--project-uuid=zzzzz-j7d0g-000000000000000", "--name=debian"],
        ["--name=--force"],
        ["--progress"],
        ["--batch-progress"],
        ["--no-progress", "--silent"],
        ["--no-resume"],
        ["--no-cache", "--batch"],
        ["--retries=3"],
    ],
)
def test_the_parsed_options_are_passed_on(words: list[str]) -> None:
    assert sorted(arv_put.arguments(parsed(*words))) == sorted(words)
    assert arv_put.arguments({**parsed(*words), "force": True, "image": "debian"}) == arv_put.arguments(parsed(*words))


def test_defaults_need_not_be_said() -> None:
    assert arv_put.arguments(parsed("--resume", "--cache", "--retries=10")) == []


def test_the_next_release(next_put: NextPut) -> None:
    options = parsed("--gained=a", "--silent")
    assert arv_put.arguments(options) == ["--silent", "--gained=a"]
    assert arv_put.put("/tmp/x.tar", "sha256:0.tar", ["--silent"], api=None) == "zzzzz-4zz18-000000000000000"
    assert next_put.calls == [["--silent", "--batch", "--filename=sha256:0.tar", "--", "/tmp/x.tar"]]


@pytest.mark.parametrize("fails", [SystemExit(1), RuntimeError("no blocks today"), SystemExit(0)])
def test_a_failure_of_the_next_release(next_put: NextPut, fails: SystemExit | Exception) -> None:
    next_put.fails = fails
    with pytest.raises(ArvadosError, match="arv-put failed"):
        arv_put.put("/tmp/x.tar", "sha256:0.tar", [], api=None)


def test_the_end_that_a_signal_asks_for_comes_through(next_put: NextPut) -> None:
    class Interrupted(SystemExit):
        pass

    next_put.fails = Interrupted(130)
    with pytest.raises(Interrupted):
        arv_put.put("/tmp/x.tar", "sha256:0.tar", [], api=None)
