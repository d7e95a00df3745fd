"""Runs credential helpers: programs that keep passwords, and print them for programs of the same user.

The protocol is that of https://github.com/docker/docker-credential-helpers.
"""

import contextlib
import json
import os
import selectors
import shutil
import signal
import subprocess
import time

_SECONDS = 60.0
"""Seconds to wait for a helper: some ask a cloud's servers, others ask the user for a passphrase."""
_POLL_SECONDS = 0.1
_ANSWER_LIMIT = 1 << 20
_NOT_FOUND = b"credentials not found"


class HelperError(Exception):
    """The helper gave no usable answer. Its output is not repeated, since it may contain a secret."""


def ask(program: str, server: str, seconds: float = _SECONDS) -> tuple[str, str] | None:
    """The user name and the secret that a helper has for `server`; None if it has none.

    Raises HelperError if the helper is missing, fails, hangs for `seconds`, or gives an invalid answer.
    """
    path = shutil.which(program) if "/" not in program else None
    if path is None:
        raise HelperError("there is no such program on PATH")
    status, output = _run(path, server, seconds)
    if status != 0:
        if _NOT_FOUND in output.lower():
            return None
        how = f"failed with exit status {status}" if status > 0 else f"was ended by signal {-status}"
        raise HelperError(f"it {how}; `echo {server} | {program} get` shows why")
    try:
        answer = json.loads(output)
        username, secret = answer["Username"], answer["Secret"]
    except (ValueError, LookupError, TypeError, RecursionError):
        username = secret = None
    if not isinstance(username, str) or not isinstance(secret, str):
        raise HelperError("its answer is not a user name and a secret")
    return (username, secret) if secret else None


def _run(path: str, server: str, seconds: float) -> tuple[int, bytes]:
    environment = {name: value for name, value in os.environ.items() if name != "ARVADOS_API_TOKEN"}
    try:
        process = subprocess.Popen(
            [path, "get"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,  # so that it can be killed together with its children
        )
    except OSError as error:
        raise HelperError(f"it could not be started: {error.strerror}") from error
    deadline = time.monotonic() + seconds
    try:
        with contextlib.suppress(BrokenPipeError):
            _tell(process, server)
        output = _output(process, deadline)
        return process.wait(max(deadline - time.monotonic(), 0)), output
    except subprocess.TimeoutExpired:
        raise HelperError(f"it did not answer within {seconds:.0f} s") from None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _tell(process: "subprocess.Popen[bytes]", server: str) -> None:
    assert process.stdin is not None
    with process.stdin as stdin:
        stdin.write(server.encode())


def _output(process: "subprocess.Popen[bytes]", deadline: float) -> bytes:
    """All that the helper prints, even if a child of it keeps its output open."""
    assert process.stdout is not None
    output = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            ended = process.poll() is not None
            if selector.select(_POLL_SECONDS):
                chunk = os.read(process.stdout.fileno(), 1 << 16)
                output += chunk
                if not chunk:
                    return output
            elif ended:
                return output
            if len(output) > _ANSWER_LIMIT:
                raise HelperError(f"its answer is longer than {_ANSWER_LIMIT >> 20} MiB")
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(process.args, 0)
