"""What a saved image archive says about itself, read once from its first byte to its last.

The archive is a docker-archive: a tar whose manifest.json names one image's configuration and layers. The layout
differs between engines (https://github.com/moby/docker-image-spec), what is used here does not. Nothing is ever
extracted to disk, and of the members only small JSON documents are kept in memory.
"""

import hashlib
import json
import posixpath
import re
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import IO, Any, NoReturn, Protocol, cast

from .errors import ArchiveError

_CHUNK = 1 << 20
_BLOCK = 512
_END_OF_ARCHIVE = 2 * _BLOCK
"""Two blocks of zeros end a tar (POSIX.1, pax interchange format); without them it has been cut short."""
_DOCUMENT_LIMIT = 8 << 20
"""Bytes of a member that may be kept as a JSON document. Real configurations have a few kilobytes."""
_DOCUMENTS_LIMIT = 64 << 20
_MEMBERS_LIMIT = 100_000
_BLOB = re.compile(r"blobs/sha256/([0-9a-f]{64})")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_GZIP_MAGIC = b"\x1f\x8b"
_COMPRESSED = (_GZIP_MAGIC, b"\x28\xb5\x2f\xfd")
"""How gzip (RFC 1952) and Zstandard (RFC 8878) files begin."""
_READ_ERRORS = (tarfile.TarError, EOFError, ValueError, OverflowError, zlib.error)


@dataclass(frozen=True)
class Archive:
    """A whole image archive: everything it names is there and has the digest it should have."""

    image_id: str
    """`sha256:` and the hexadecimal digest of the image's configuration: the id that Arvados records."""
    created: str | None
    """The configuration's `created`, ISO 8601, if it has one."""
    architecture: str
    os: str
    diff_ids: tuple[str, ...]
    """Digests of the layers' uncompressed tars, base first."""
    layers: tuple[str, ...]
    """Names of the members that hold the layers, base first; one that occurs twice is named twice."""
    size: int
    """The archive's length in bytes."""


class Readable(Protocol):
    """The part of a binary file that is used here: it is only read, forwards."""

    def read(self, size: int, /) -> bytes: ...


def read(stream: Readable) -> Archive:
    """Read the archive to its end and check it.

    Raises ArchiveError when it is cut short, damaged, incomplete, or holds not exactly one image. What `stream.read`
    raises comes through.
    """
    source = _Source(stream)
    members = _Members()
    try:
        with tarfile.open(mode="r|", fileobj=cast("IO[bytes]", source), bufsize=_CHUNK) as tar:
            end = _read_members(tar, members)
    except _READ_ERRORS as error:
        if source.size == 0:
            raise ArchiveError("the archive is empty") from error
        raise ArchiveError(f"the archive is cut short or damaged: {error}") from error
    source.drain()
    # tarfile takes a header that it does not understand for the end of the archive.
    if source.size < end + _END_OF_ARCHIVE or source.last_non_zero > end:
        raise ArchiveError(f"the archive is cut short or damaged near byte {end}")
    return _resolve(members, source.size)


class _Source:
    """Counts what is read and remembers where the last byte that is not zero was."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self.size = 0
        self.last_non_zero = 0

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        kept = len(data.rstrip(b"\0"))
        if kept:
            self.last_non_zero = self.size + kept
        self.size += len(data)
        return data

    def drain(self) -> None:
        while self.read(_CHUNK):
            pass


@dataclass
class _Members:
    """What is remembered of the archive's members, by name."""

    sha256: dict[str, str] = field(default_factory=dict)
    """Of every file: the digest of its bytes."""
    content_sha256: dict[str, str] = field(default_factory=dict)
    """Of gzip files that are not named by their digest: the digest of what they hold."""
    compressed: set[str] = field(default_factory=set)
    documents: dict[str, bytes] = field(default_factory=dict)
    """Of files that look like JSON: their bytes."""
    links: dict[str, str] = field(default_factory=dict)
    """Of symbolic and hard links: the name of the member they point to."""
    documents_size: int = 0

    def add(self, name: str, content: "_Content") -> None:
        """Remember a file; raises ArchiveError if it is not what its name says, or not the same as one before."""
        if content.blob is not None and content.sha256 != content.blob[1]:
            raise ArchiveError(f"member {name!r} of the archive is damaged: its digest is sha256:{content.sha256}")
        if self.sha256.setdefault(name, content.sha256) != content.sha256:
            raise ArchiveError(f"the archive has two different members {name!r}")
        if content.compressed:
            self.compressed.add(name)
        if content.inflated is not None:
            self.content_sha256[name] = content.inflated.hexdigest()
        if content.document is not None:
            self.documents_size += content.size
            if self.documents_size > _DOCUMENTS_LIMIT:
                raise ArchiveError(f"the archive has more than {_DOCUMENTS_LIMIT >> 20} MiB of JSON")
            self.documents[name] = content.document

    def target(self, name: str) -> str:
        """The file that `name` stands for; docker writes a layer that occurs twice as a symbolic link."""
        name = posixpath.normpath(name)
        return self.links.get(name, name)


def _read_members(tar: tarfile.TarFile, members: _Members) -> int:
    end = 0
    for count, member in enumerate(tar):
        if count >= _MEMBERS_LIMIT:
            raise ArchiveError(f"the archive has more than {_MEMBERS_LIMIT} members")
        tar.members = []  # type: ignore[attr-defined]  # or tarfile keeps all of them
        name = _checked_name(member.name)
        end = member.offset_data
        if member.issym():
            members.links[name] = _checked_name(posixpath.join(posixpath.dirname(name), member.linkname))
        elif member.islnk():
            members.links[name] = _checked_name(member.linkname)
        elif member.isreg() and not member.issparse():
            end += -(-member.size // _BLOCK) * _BLOCK
            _read_file(tar, member, name, members)
        elif not member.isdir():
            raise ArchiveError(f"member {name!r} of the archive is neither a file, a directory nor a link")
    return end


def _checked_name(name: str) -> str:
    normal = posixpath.normpath(name)
    if normal.startswith(("/", "../")) or normal == "..":
        raise ArchiveError(f"member {name!r} of the archive points outside of it")
    return normal


def _read_file(tar: tarfile.TarFile, member: tarfile.TarInfo, name: str, members: _Members) -> None:
    file = tar.extractfile(member)
    if file is None or member.size < 0:
        raise ArchiveError(f"member {name!r} of the archive is damaged")
    content = _Content(name, member.size)
    while chunk := file.read(_CHUNK):
        content.update(chunk)
    if content.size != member.size:
        raise ArchiveError(f"the archive is cut short in member {name!r}")
    members.add(name, content)


class _Content:
    """The bytes of one member, as they come by."""

    def __init__(self, name: str, expected_size: int) -> None:
        self.size = 0
        self.blob = _BLOB.fullmatch(name)
        self.compressed = False
        self.inflated: _Gunzip | None = None
        self._digest = hashlib.sha256()
        self._may_be_document = expected_size <= _DOCUMENT_LIMIT
        self._document: list[bytes] = []

    def update(self, chunk: bytes) -> None:
        if self.size == 0:
            self.compressed = chunk.startswith(_COMPRESSED)
            if self.blob is None and chunk.startswith(_GZIP_MAGIC):
                self.inflated = _Gunzip()
            self._may_be_document = self._may_be_document and chunk[:1] in b"[{"
        self.size += len(chunk)
        self._digest.update(chunk)
        if self.inflated is not None:
            self.inflated.update(chunk)
        if self._may_be_document:
            self._document.append(chunk)

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    @property
    def document(self) -> bytes | None:
        return b"".join(self._document) if self._document else None


class _Gunzip:
    """The digest of what a gzip stream holds, in bounded memory."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._inflate = zlib.decompressobj(wbits=31)

    def update(self, data: bytes) -> None:
        while data:
            if self._inflate.eof:  # a gzip file may be several streams, one after the other
                self._inflate = zlib.decompressobj(wbits=31)
            self._digest.update(self._inflate.decompress(data, _CHUNK))
            data = self._inflate.unconsumed_tail or self._inflate.unused_data

    def hexdigest(self) -> str:
        if not self._inflate.eof:
            raise EOFError("a compressed layer ends too early")
        return self._digest.hexdigest()


def _resolve(members: _Members, size: int) -> Archive:
    entry = _manifest_entry(members)
    config_name = entry.get("Config")
    layers = entry.get("Layers")
    if not isinstance(config_name, str) or not isinstance(layers, list) or not all(isinstance(n, str) for n in layers):
        raise ArchiveError("the archive's manifest.json does not name a configuration and layers")
    config_file = members.target(config_name)
    config = _document(members, config_file, "the image's configuration")
    image_id = members.sha256[config_file]
    named = re.fullmatch(r"(?:.*/)?([0-9a-f]{64})(?:\.json)?", config_name)
    if named and named[1] != image_id:
        raise ArchiveError(f"the image's configuration {config_name!r} is damaged: its digest is sha256:{image_id}")
    diff_ids = _diff_ids(config)
    if len(diff_ids) != len(layers):
        raise ArchiveError(
            f"the image's configuration has {len(diff_ids)} layers, the archive's manifest.json {len(layers)}"
        )
    files = tuple(members.target(name) for name in layers)
    for file, diff_id in zip(files, diff_ids, strict=True):
        _check_layer(members, file, diff_id)
    created = config.get("created")
    return Archive(
        image_id=f"sha256:{image_id}",
        created=created if isinstance(created, str) and created else None,
        architecture=str(config.get("architecture", "")),
        os=str(config.get("os", "")),
        diff_ids=diff_ids,
        layers=files,
        size=size,
    )


def _manifest_entry(members: _Members) -> Mapping[str, Any]:
    if "manifest.json" not in members.sha256:
        what = "an OCI layout without manifest.json" if "oci-layout" in members.sha256 else "no image archive"
        raise ArchiveError(f"the archive is {what}; docker could not load it")
    entries = _parsed(members, "manifest.json", "the archive's manifest.json")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ArchiveError("the archive's manifest.json is not a list of images")
    if len(entries) != 1:
        raise ArchiveError(f"the archive holds {len(entries)} images instead of one")
    entry: Mapping[str, Any] = entries[0]
    return entry


def _check_layer(members: _Members, file: str, diff_id: str) -> None:
    if file not in members.sha256:
        raise ArchiveError(f"the archive is incomplete: layer {file!r} is missing")
    if file not in members.compressed:
        whole = diff_id == f"sha256:{members.sha256[file]}"
    elif file in members.content_sha256:
        whole = diff_id == f"sha256:{members.content_sha256[file]}"
    else:  # compressed, and named by its digest, which has been checked
        whole = _BLOB.fullmatch(file) is not None
    if not whole:
        raise ArchiveError(f"layer {file!r} of the archive is damaged: it is not the configuration's {diff_id}")


def _diff_ids(config: Mapping[str, Any]) -> tuple[str, ...]:
    rootfs = config.get("rootfs")
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if diff_ids is None:
        diff_ids = []  # an image without layers, as `FROM scratch` and only metadata gives
    if not isinstance(diff_ids, list) or not all(isinstance(d, str) and _DIGEST.fullmatch(d) for d in diff_ids):
        raise ArchiveError("the image's configuration has no list of layer digests (rootfs.diff_ids)")
    return tuple(diff_ids)


def _document(members: _Members, name: str, what: str) -> Mapping[str, Any]:
    document = _parsed(members, name, what)
    if not isinstance(document, dict):
        raise ArchiveError(f"{what} is not a JSON object")
    return document


def _parsed(members: _Members, name: str, what: str) -> Any:
    if name not in members.sha256:
        raise ArchiveError(f"the archive is incomplete: {what} {name!r} is missing")
    if name not in members.documents:
        raise ArchiveError(f"{what} {name!r} is not a JSON document of at most {_DOCUMENT_LIMIT >> 20} MiB")
    try:
        return json.loads(members.documents[name], parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ArchiveError(f"{what} {name!r} is not JSON: {error}") from error


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
