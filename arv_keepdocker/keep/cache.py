"""The cache directory: saved images, and locks that let only one run at a time store an image."""

import contextlib
import errno
import fcntl
import functools
import grp
import os
import pwd
import random
import re
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from ..errors import CacheError

LEFTOVER_DAYS = 7
_JOURNAL = re.compile(r"[0-9a-f]{32}\.(?:journal(?:\.part)?|checks)")
_OURS = re.compile(r"(sha256:[0-9a-f]{64}|incoming-[0-9]+)(?:\.[a-zA-Z0-9]+)?\.(?:tar|tar\.part|lock)")


class Cache:
    """The directory `$XDG_CACHE_HOME/arvados/docker`, private to the user, and created when it is first needed.

    Every method raises CacheError, with a hint how to move the directory, if it cannot be used.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    @functools.cached_property
    def path(self) -> Path:
        """The directory, which exists, belongs to the user, and is closed to everybody else."""
        path = default_path(self._environment)
        with _explained(path):
            _make(path)
            if problem := _distrusted(path.parent):
                raise _error(path, problem)
            status = path.lstat()
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
                raise _error(path, "it is not a directory that belongs to you")
            if status.st_mode & 0o077:
                path.chmod(0o700)
        return path

    @property
    def is_distrusted(self) -> bool:
        """Whether others may have written to arv-put's cache directory."""
        return distrusted(self._environment) is not None

    def archive_path(self, image_id: str, kind: str = "") -> Path:
        """The path of a complete, checked archive of the image; `kind` tells several archives of it apart."""
        return self.path / f"{image_id}{kind}.tar"

    def incoming_path(self) -> Path:
        """A path for an archive whose image is not known yet, only for this process."""
        return self.path / f"incoming-{random.randrange(1 << 63)}.tar"  # pids may be the same, on several machines

    @contextmanager
    def replacing(self, path: Path) -> Iterator[Path]:
        """A file to write, which becomes `path` if the block succeeds, and is removed otherwise.

        It is flushed to disk before it is renamed, so that `path` is never an incomplete file.
        """
        with _explained(self.path), replacing(path) as partial:
            yield partial

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Raise CacheError if the block cannot write to a file in the directory."""
        with _explained(self.path):
            yield

    def check_space(self, needed: int) -> None:
        """Raise CacheError unless the directory's disk has `needed` bytes free."""
        with _explained(self.path):
            free = shutil.disk_usage(self.path).free
        if free < needed:
            raise _error(self.path, f"{needed >> 20} MiB are needed to save the image and {free >> 20} MiB are free")

    @contextmanager
    def lock(self, image_id: str, waiting: Callable[[int | None], AbstractContextManager[None]]) -> Iterator[None]:
        """Hold the image's lock during the block. `waiting` gets the pid of a run that holds it, if known, and returns
        the context in which to wait.

        The kernel releases the lock when its process ends.
        """
        path = self.path / f"{image_id}.lock"

        def waiting_for_holder(descriptor: int) -> AbstractContextManager[None]:
            pid = os.pread(descriptor, 20, 0)
            return waiting(int(pid) if pid.isdigit() else None)

        with _explained(self.path):
            descriptor = locked(path, waiting_for_holder)
        try:
            with _explained(self.path):
                os.truncate(descriptor, 0)
                os.pwrite(descriptor, str(os.getpid()).encode(), 0)
            yield
        finally:
            path.unlink(missing_ok=True)
            os.close(descriptor)

    def discard(self, *image_ids: str) -> None:
        """Remove the archives of images that are in Arvados now; the caller holds their locks."""
        with contextlib.suppress(OSError, CacheError):
            for entry in self.path.iterdir():
                ours = _OURS.fullmatch(entry.name)
                if ours and ours[1] in image_ids and entry.suffix != ".lock":
                    entry.unlink(missing_ok=True)

    def remove_leftovers(self) -> None:
        """Remove what dead runs have left: locks that nobody holds, and archives and journals after a week."""
        try:
            entries = [(entry, entry.lstat()) for entry in self.path.iterdir()]
        except (OSError, CacheError):
            return  # another run is removing too, or the directory is gone: there is always a next time
        oldest = time.time() - LEFTOVER_DAYS * 24 * 60 * 60
        for entry, status in entries:
            if _JOURNAL.fullmatch(entry.name) and status.st_mtime < oldest:
                with contextlib.suppress(OSError):
                    entry.unlink()
            ours = _OURS.fullmatch(entry.name)
            if ours and (entry.suffix == ".lock" or status.st_mtime < oldest):
                self._remove_unused(entry, ours[1])

    def _remove_unused(self, entry: Path, image_id: str) -> None:
        lock = self.path / f"{image_id}.lock"
        try:
            descriptor = _opened(lock)
        except OSError:
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_open_file(descriptor, lock):
                entry.unlink(missing_ok=True)
                lock.unlink(missing_ok=True)
        except OSError:
            pass  # in use
        finally:
            os.close(descriptor)


def default_path(environment: Mapping[str, str]) -> Path:
    """The path of the cache directory; a relative XDG_CACHE_HOME counts as unset (XDG Base Directory Specification)."""
    base = Path(environment.get("XDG_CACHE_HOME") or "")
    if not base.is_absolute():
        try:
            base = Path.home() / ".cache"
        except RuntimeError as error:
            raise CacheError(f"no cache directory: {error}", "Set HOME or XDG_CACHE_HOME.") from error
    return base / "arvados" / "docker"


def distrusted(environment: Mapping[str, str]) -> str | None:
    """Why others may have written to the cache directories of the SDK and arv-put; None if they cannot have.

    The SDK keeps the discovery document there, which says where the token is sent to. Since 3.1 it uses the first of
    systemd's directories that is writable, or else the parent of ours (arvados._internal.basedirs).
    """
    directories = [Path(name) for name in environment.get("CACHE_DIRECTORY", "").split(":") if name.startswith("/")]
    with contextlib.suppress(OSError, CacheError):
        directories.append(default_path(environment).parent)
        _make(directories[-1])  # or the SDK would, with the permissions that the umask leaves
    paths = [directory / name for directory in directories for name in ("", "discovery", "arv-put")]
    return next(filter(None, map(_distrusted, paths)), None)


def _distrusted(path: Path) -> str | None:
    try:
        link, status = path.lstat(), path.stat()
    except OSError:
        return None
    if {link.st_uid, status.st_uid} != {os.geteuid()}:
        return f"{path} belongs to another user"
    others = stat.S_IWOTH if _is_private(status.st_gid) else stat.S_IWOTH | stat.S_IWGRP
    return f"others can write to {path}" if status.st_mode & others else None


def _is_private(group: int) -> bool:
    """Whether the user is alone in the group: with private groups, the group may write to the user's files."""
    try:
        user, entry = pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(group)
    except KeyError:
        return False
    return entry.gr_name == user and set(entry.gr_mem) <= {user}


def _make(path: Path) -> None:
    """Create a directory and its parents, for the user alone."""
    for directory in [*reversed(path.parents), path]:
        if not directory.is_dir():
            directory.mkdir(mode=0o700, exist_ok=True)
            directory.chmod(0o700)  # whatever the umask


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _error(path, "there is no space left") from error
        raise _error(path, error.strerror or str(error)) from error


def _error(path: Path, reason: str) -> CacheError:
    return CacheError(
        f"cache directory {path} cannot be used: {reason}",
        "Set XDG_CACHE_HOME to a directory of yours that has enough space.",
    )


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file to write, for the user alone, which becomes `path` if the block succeeds, and is removed otherwise.

    It is flushed to disk before it is renamed, so that `path` is never an incomplete file. Raises OSError.
    """
    partial = path.with_name(path.name + ".part")
    partial.unlink(missing_ok=True)
    partial.touch(mode=0o600, exist_ok=False)
    try:
        partial.chmod(0o600)  # whatever the umask
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def locked(path: Path, waiting: Callable[[int], AbstractContextManager[None]]) -> int:
    """Lock the file, created if need be, and return its descriptor; the lock ends with the descriptor or the process.

    `waiting` gets a descriptor of the file and returns the context in which to wait for another process. Raises
    OSError.
    """
    while True:
        descriptor = _opened(path)
        try:
            os.fchmod(descriptor, 0o600)  # whatever the umask
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                with waiting(descriptor):
                    fcntl.flock(descriptor, fcntl.LOCK_EX)
            # The last holder may have removed or replaced the file; then the next process would lock another one.
            if _is_open_file(descriptor, path):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _opened(path: Path) -> int:
    """A descriptor of the file, created if need be. Raises OSError, also for a pipe or a device, which might block."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = os.open(path, flags, 0o600)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, f"{path.name} is not a regular file")
    return descriptor


def _is_open_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False
