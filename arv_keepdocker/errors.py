"""What can go wrong, each kind with the exit status that scripts may branch on."""

import os

_LONGEST = 200


class KeepdockerError(Exception):
    """Base of every error that is shown to the user as one message and ends the program.

    The message says what failed, on which object and in whose words; `hint`, where there is one, says what to do.
    """

    exit_status = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(KeepdockerError):
    """The command line asks for something that cannot be: a bad name, two tags, ..."""

    exit_status = 2


class ImageNotFoundError(KeepdockerError):
    """The engine and Arvados could both be asked, or one of them was not needed, and neither has the image."""

    exit_status = 3


class EngineError(KeepdockerError):
    """The container engine is missing, unreachable, or failed at what it was asked to do."""

    exit_status = 4


class EngineUnavailableError(EngineError):
    """There is no container engine, or it cannot be reached or may not be used."""


class RegistryError(KeepdockerError):
    """The registry could not be asked, refused, or sent something other than it should have."""

    exit_status = 4


class ArchiveError(KeepdockerError):
    """The saved image is broken, incomplete, or of a format that the cluster refuses."""

    exit_status = 5


class IncompleteArchiveError(ArchiveError):
    """The saved image lacks its configuration or layers, though the archive's end is there."""


class NoDecoderError(ArchiveError):
    """The archive may be whole, but there is nothing here to unpack it with."""


class PlatformNotSavedError(ArchiveError):
    """The saved image is whole, but not there for the platform that was asked for."""


class ArvadosError(KeepdockerError):
    """Arvados or Keep could not be asked, refused, or failed."""

    exit_status = 6

    def __init__(self, message: str, hint: str | None = None, retry_reason: str | None = None) -> None:
        """`retry_reason` says in a few words what was wrong if the same may succeed soon: `Arvados answered 503`."""
        super().__init__(message, hint)
        self.retry_reason = retry_reason


class CacheError(KeepdockerError):
    """The cache directory cannot be used: not writable, not ours, or full."""


def missing_certificates() -> str:
    """The beginning of a hint, if SSL_CERT_FILE is the name of no file: neither OpenSSL nor the SDK complains."""
    name = os.environ.get("SSL_CERT_FILE")
    return f"SSL_CERT_FILE names {name}, which does not exist. " if name and not os.path.exists(name) else ""


def quoted(text: str) -> str:
    """Text of unknown origin as a message can bear it: in quotes, escaped, and cut where it is long."""
    return repr(text) if len(text) <= _LONGEST else f"{text[:_LONGEST]!r}..."
