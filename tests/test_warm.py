"""A process that the server forks is what a new Python is."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Command
from tests.warm import Process, Warm

ROOT = Path(__file__).parent.parent

STATE = r"""
import sys
OURS = [name for name in sys.modules if name.partition(".")[0] in ("arvados", "tests")]
import arvados
ARVADOS = sorted(vars(arvados))
import arvados.commands.put, requests
import gc, json, logging, os, resource, signal, subprocess, threading, time, warnings

LOGGERS = ("", "arvados", "arvados.api", "arvados.keepdocker", "googleapiclient")
VERSION = arvados.commands.put.upload_opts._option_string_actions["--version"]

def stream(each):
    names = ("name", "mode", "encoding", "errors", "newlines", "line_buffering", "write_through")
    raw = getattr(each.buffer, "raw", each.buffer)
    return [getattr(each, name) for name in names] + [raw.name, raw.mode, each.fileno(), type(each.buffer).__name__]

print(json.dumps({
    "arguments": sys.argv,
    "path": sys.path,
    "module": [__name__, sys.modules["__main__"].__dict__ is globals()],
    "environment": dict(os.environ),
    "the C library's environment": subprocess.check_output("env | grep -v ^_= | sort", shell=True, text=True),
    "folder": os.getcwd(),
    "streams": [stream(each) for each in (sys.stdin, sys.stdout, sys.stderr)],
    "originals": [sys.stdin is sys.__stdin__, sys.stdout is sys.__stdout__, sys.stderr is sys.__stderr__],
    "files": [os.readlink("/proc/self/fd/0"), sorted(os.listdir("/proc/self/fd"))],
    "session": [os.getpid() == each for each in (os.getpgid(0), os.getsid(0))],
    "signals": {number.name: str(signal.getsignal(number)) for number in signal.Signals},
    "mask": str(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
    "limits": [resource.getrlimit(getattr(resource, name)) for name in dir(resource) if name.startswith("RLIMIT")],
    "umask": os.umask(0),
    "flags": str(sys.flags),
    "warnings": [sorted(map(str, warnings.filters)), warnings.showwarning.__module__],
    "garbage": [gc.isenabled(), gc.get_threshold()],
    "threads": [threading.active_count(), threading.current_thread() is threading.main_thread()],
    "loggers": [str([each, each.handlers, each.filters]) for each in map(logging.getLogger, LOGGERS)],
    "log": arvados.log_handler.stream is sys.stderr,
    "SDK": {name: sorted(vars(module)) for name, module in sorted(sys.modules.items()) if name.startswith("arvados")},
    "arvados alone": ARVADOS,
    "settings": arvados.config.settings(),
    "arv-put": [arvados.commands.put._machine_format.replace(str(os.getpid()), "PID"), VERSION.version],
    "zone": time.tzname,
    "ours": OURS,
    "children": open(f"/proc/self/task/{os.getpid()}/children").read(),
}))
"""
ENDS = {
    "return": "print('said', end='')",
    "status": "import sys; print('said'); sys.exit(5)",
    "words": "import sys; print('said'); sys.exit('no more')",
    "error": "raise ValueError('wrong')",
    "at exit": "import atexit; atexit.register(lambda: print('last'))",
    "a thread": "import threading, time; threading.Timer(0.2, lambda: print('last')).start()",
    "full": "import os, sys; os.dup2(os.open('/dev/full', os.O_WRONLY), 1); print('said')",
    "killed": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "interrupted": "import signal; signal.raise_signal(signal.SIGINT)",
    "terminated": "import signal; signal.raise_signal(signal.SIGTERM)",
    "a pipe that nobody reads": "import os; r, w = os.pipe(); os.close(r); os.write(w, b'x')",
    "what is read": "import sys; print(sys.stdin.read().upper(), file=sys.stderr)",
}


@pytest.fixture
def program(
    warm: Callable[[Mapping[str, str]], Warm], plain_environment: dict[str, str], tmp_path: Path
) -> Callable[[str], Command]:
    """Makes a module of the text, and the command that runs it."""
    (tmp_path / "folder").mkdir()

    def make(text: str) -> Command:
        (tmp_path / "folder" / "program.py").write_text(text)
        argv = [sys.executable, "-m", "program"]
        return Command(argv, tmp_path / "folder", plain_environment, [], warm(plain_environment))

    return make


def both(command: Command, *words: str, **options: Any) -> None:
    """It says and ends the same, whether its process is forked or new."""
    forked, new = (each(*words, **options) for each in (command, command.anew()))
    assert isinstance(command.processes[0], Process)
    assert not isinstance(command.processes[1], Process)
    trace = "Traceback (most recent call last):\n"
    assert (forked.status, forked.stdout) == (new.status, new.stdout)
    assert forked.stderr.partition(trace)[0] == new.stderr.partition(trace)[0]
    assert forked.stderr.splitlines()[-1:] == new.stderr.splitlines()[-1:]


@pytest.mark.parametrize("tty", [False, True])
def test_the_state(program: Callable[[str], Command], tty: bool) -> None:
    command = program(STATE)
    umask = os.umask(0o27)
    words = ["a b", "", "ö", os.fsdecode(b"\xff")]
    results = [each(*words, env={"TZ": "Asia/Tokyo"}, tty=tty) for each in (command, command.anew())]
    os.umask(umask)
    assert [result.stderr for result in results] == ["", ""]
    forked, new = (json.loads(result.stdout) for result in results)
    assert forked == new
    assert forked["zone"][0] == "JST"
    assert (forked["ours"], forked["umask"]) == ([], 0o27)


@pytest.mark.parametrize("end", ENDS)
def test_the_end(program: Callable[[str], Command], end: str) -> None:
    both(program(ENDS[end]), input="read this\n")


def test_what_warns_warns(program: Callable[[str], Command]) -> None:
    both(program("import warnings; warnings.warn('watch', RuntimeWarning)"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_to_the_group(program: Callable[[str], Command], number: signal.Signals) -> None:
    # Python may lose what a signal raises while it forks.
    command = program(
        "import subprocess; sleep = subprocess.Popen(['sleep', '1000']); print('go', flush=True); sleep.wait()"
    )
    ends = []
    for each in (command, command.anew()):
        process = each.start()
        assert process.stdout is not None
        assert process.stdout.readline() == "go\n"
        assert process.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.01)
        os.killpg(process.pid, number)
        out, err = process.communicate(timeout=20)
        assert process.poll() == process.wait() == process.returncode
        ends.append((process.returncode, out, err.splitlines()[-1:]))
        process.send_signal(number)  # to nobody
    assert ends[0] == ends[1]


def test_its_process_id_is_free_when_it_has_ended(program: Callable[[str], Command]) -> None:
    process = program("").start()
    os.kill(process.pid, 0)
    process.communicate(timeout=20)
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)


def test_what_starts_in_another_way_is_not_forked(program: Callable[[str], Command], tmp_path: Path) -> None:
    command = program("import sys; print(sys.flags.dev_mode)")
    assert command(env={"PYTHONDEVMODE": "1"}).stdout == "True\n"
    assert command(env={"LC_ALL": "C"}).stdout == "False\n"
    shell = Command(["sh", "-c", "echo"], command.directory, command.environment, command.processes, command.warm)
    assert shell().stdout == "\n"
    assert not any(isinstance(process, Process) for process in command.processes)


def test_a_script(program: Callable[[str], Command], tmp_path: Path) -> None:
    command = program("")
    script = tmp_path / "script"
    script.write_text(f"#!{sys.executable}\nimport sys\nprint(__name__, sys.argv, sys.path)\n")
    script.chmod(0o755)
    for words in (), ("x",):
        run = Command([str(script)], command.directory, command.environment, [], command.warm)
        both(run, *words)


@pytest.mark.parametrize(
    ("settings", "env"),
    [
        ("ARVADOS_API_HOST=there\nARVADOS_DEBUG=1\n", {}),
        ("ARVADOS_API_HOST=there\n", {"ARVADOS_API_HOST": "here"}),
        ("malformed", {"ARVADOS_API_TOKEN": "a"}),
        (None, {"ARVADOS_DEBUG": "1"}),
    ],
)
def test_the_settings_are_read_when_the_sdk_is_imported(
    program: Callable[[str], Command], tmp_path: Path, settings: str | None, env: dict[str, str]
) -> None:
    path = tmp_path / "home" / ".config" / "arvados" / "settings.conf"
    path.parent.mkdir(parents=True)
    if settings is not None:
        path.write_text(settings)
    both(program(IMPORTED_TWICE), env=env)


IMPORTED_TWICE = """
import logging, sys
try:
    import arvados
except ValueError as error:
    print(error, sorted(name for name in sys.modules if name.startswith("arvados")))
import arvados.commands._util, arvados.config
print(logging.getLogger("arvados"), arvados.config.settings(), sorted(vars(arvados)))
"""


NOTHING_IS_READ = """
import os, sys
from tests.warm_server import import_ours

import_ours()
for name in [name for name in sys.modules if name.startswith("arv_keepdocker")]:
    del sys.modules[name]
for name in ("environ", "getcwd", "umask", "getuid", "geteuid", "getpid", "isatty"):
    delattr(os, name)
del sys.argv, sys.stdin, sys.stdout
import_ours()
"""


def test_our_modules_read_nothing_of_a_process_when_they_are_imported(plain_environment: dict[str, str]) -> None:
    """So that they are the same for each that is forked."""
    subprocess.run([sys.executable, "-c", NOTHING_IS_READ], cwd=ROOT, env=plain_environment, check=True)


NOTHING_IS_READ_BY_THE_SDK = """
import importlib, os, sys, types
from tests.warm_server import ImportedBefore

before = ImportedBefore()
sys.modules["arvados"] = package = types.ModuleType("arvados")
package.__path__ = importlib.machinery.PathFinder.find_spec("arvados").submodule_search_locations
os.environ = object()
for name in ("getcwd", "umask", "getuid", "geteuid", "getpid", "isatty"):
    delattr(os, name)
del sys.argv, sys.stdin, sys.stdout
for name in before.modules:
    importlib.import_module(name)
assert before not in sys.meta_path
"""


def test_what_is_kept_of_the_sdk_reads_nothing_either(plain_environment: dict[str, str]) -> None:
    subprocess.run([sys.executable, "-c", NOTHING_IS_READ_BY_THE_SDK], cwd=ROOT, env=plain_environment, check=True)


def test_a_folder_that_is_gone(program: Callable[[str], Command], tmp_path: Path) -> None:
    command = program("")
    shutil.rmtree(tmp_path / "folder")
    with pytest.raises(FileNotFoundError):
        command()
