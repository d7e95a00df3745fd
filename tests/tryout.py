"""Store a small image in a private Arvados and list it, showing each command; run by tests/try."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import sysconfig
import tempfile

from arv_keepdocker.sandbox import Sandbox
from tests import images
from tests.engines import RUN, any_engine


def show(environment: dict[str, str], *command: str) -> str:
    print("$", *command, file=sys.stderr)
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
    print(done.stdout, end="", flush=True)
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout.strip()


def main() -> None:
    with tempfile.TemporaryDirectory() as home, Sandbox() as sandbox, any_engine() as engine:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ARVADOS_")}
        environment["PATH"] = f"{sysconfig.get_path('scripts')}:{environment['PATH']}"
        environment.update(HOME=home, XDG_CACHE_HOME=home, **engine.environment, **sandbox.environment())
        name, tag = f"hello-{RUN}", "v1"
        images.build_runnable(engine.host, f"{name}:{tag}")
        uuid = show(environment, "arv-keepdocker", name, tag)
        show(environment, "arv-keepdocker", "images")
        print("Stored as:", file=sys.stderr)
        print(uuid)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
